"""Logs that come as columns: Parquet files, and tables of pandas, polars, pyarrow and others.

The core takes Arrow's buffers as they are, batch by batch; here columns of other types are brought
to the two that it knows, 64-bit integers and text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blin import _core
from blin.errors import DataError

_BATCH_ROWS = 1 << 16
_SAMPLE_ROWS = 200
_PARQUET = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Tells by its first bytes whether a file is Parquet."""
    try:
        # What a pipe gives is gone once it is read.
        with path.open("rb") if path.is_file() else BytesIO() as file:
            return file.read(len(_PARQUET)) == _PARQUET
    except OSError:
        return False


def read_table(
    table: Any, name: str, options: Mapping[str, Any], *, threads: int | None
) -> dict[str, Any]:
    """Reads and prepares a table; messages call it by its name."""
    with _reported(name):
        reader = pa.RecordBatchReader.from_stream(table)
        batches = chain.from_iterable(map(_pieces, reader))
        log = _Log(name, reader.schema, options, threads=threads)
        for batch in batches:
            log.append(batch)
        return log.finish([])


def read_parquet(
    paths: Sequence[Path],
    options: Mapping[str, Any],
    sha256: Callable[[Path], str],
    *,
    threads: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Reads and prepares Parquet files, which have the columns of the first, batch by batch."""
    sizes = [path.stat().st_size for path in paths]
    log: _Log | None = None
    for path, size, done in zip(paths, sizes, np.cumsum([0, *sizes]), strict=False):
        with _reported(path), pq.ParquetFile(path) as file:
            if log is None:
                log = _Log(path, file.schema_arrow, options, threads=threads)
                log.understand(file.iter_batches(_SAMPLE_ROWS))
            missing = set(log.columns) - set(file.schema_arrow.names)
            if missing:
                raise DataError(
                    f"{path}: expected the columns of the first file, found no "
                    f"{sorted(missing)[0]!r}"
                )
            _require_once(log.columns, file.schema_arrow.names, path)
            log.start_file(path)
            rows = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=log.columns):
                log.append(batch)
                rows += len(batch)
                if on_progress is not None:
                    share = rows / max(file.metadata.num_rows, 1)
                    on_progress(int(done + size * share), sum(sizes))
    assert log is not None
    hashes = (sha256(path) for path in paths)
    return log.finish(list(zip(paths, hashes, sizes, strict=True)))


class _Log:
    """Batches of one schema on their way to the core."""

    def __init__(
        self,
        path: str | Path,
        schema: pa.Schema,
        options: Mapping[str, Any],
        *,
        threads: int | None,
    ) -> None:
        self.columns: list[str] = []
        self._path, self._schema = path, schema
        self._options, self._threads = dict(options), threads
        self._reader: _core.ColumnReader | None = None

    def understand(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Finds the columns by their names and the first rows."""
        first = next(iter(batches), None)
        fields = list(self._schema)
        sample = (
            [] if first is None else [_sample(column) for column in first[:_SAMPLE_ROWS].columns]
        )
        self._reader = _core.ColumnReader(
            self._path,
            [field.name for field in fields],
            list(zip(*sample, strict=True)),
            [pa.types.is_temporal(field.type) for field in fields],
            self._options,
            threads=self._threads,
        )
        self.columns = [fields[place].name for place in self._reader.places()]
        _require_once(self.columns, self._schema.names, self._path)

    def start_file(self, path: Path) -> None:
        """Names the file whose batches come next."""
        assert self._reader is not None
        self._reader.start_file(path)

    def append(self, batch: pa.RecordBatch) -> None:
        """Appends a batch that holds the columns that are looked at, and perhaps others."""
        if self._reader is None:
            self.understand([batch])
        assert self._reader is not None
        columns = [_arrays(name, batch.column(name)) for name in self.columns]
        self._reader.append(columns)

    def finish(self, sources: list[tuple[Path, str, int]]) -> dict[str, Any]:
        """Prepares the log."""
        if self._reader is None:
            self.understand([])
        assert self._reader is not None
        return self._reader.finish(sources)


def _require_once(columns: Sequence[str], names: Sequence[str], source: str | Path) -> None:
    twice = next((column for column in columns if names.count(column) > 1), None)
    if twice is not None:
        raise DataError(
            f'{source}: expected one column "{twice}", found {names.count(twice)} of this name'
        )


def _pieces(batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
    """Cuts a large batch, which is no copy."""
    return (batch[start : start + _BATCH_ROWS] for start in range(0, len(batch), _BATCH_ROWS))


def _sample(column: pa.Array) -> list[str]:
    """Returns values as text, nothing for those that have none."""
    try:
        return [value or "" for value in _decoded(column).cast(pa.string()).to_pylist()]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return [""] * len(column)


def _arrays(name: str, column: pa.Array) -> tuple[Any, Any, Any]:
    """Returns integers, or offsets and bytes, and which of them are there."""
    try:
        column = _plain(_decoded(column))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as cause:
        raise DataError(
            f'column "{name}": expected integers, text or times, found {column.type}'
        ) from cause
    valid = None
    if column.null_count:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
    start, stop = column.offset, column.offset + len(column)
    if pa.types.is_integer(column.type):
        return np.frombuffer(column.buffers()[1] or b"", np.int64)[start:stop], None, valid
    _, offsets, text = column.buffers()
    places = np.frombuffer(offsets or bytes(8), np.int64)[start : stop + 1]
    return places, np.frombuffer(text or b"", np.uint8), valid


def _decoded(column: pa.Array) -> pa.Array:
    """Writes out a column that is a dictionary and places in it; Arrow cannot of every type."""
    if not pa.types.is_dictionary(column.type):
        return column
    values = _plain(column.dictionary)
    return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()


def _plain(column: pa.Array) -> pa.Array:
    """Brings a column to integers or text without changing what it says."""
    kind = column.type
    if pa.types.is_temporal(kind):
        return column.cast(pa.timestamp("ns")).cast(pa.int64())
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        # Integers with gaps are floats in pandas.
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column.cast(pa.large_string())
    return column.cast(pa.large_string())


@contextmanager
def _reported(source: str | Path) -> Any:
    """Puts one line that names the source in place of what Arrow says over many."""
    try:
        yield
    except (pa.ArrowException, OSError) as cause:
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise DataError(f"{source}: expected a table, found: {reason}") from cause
