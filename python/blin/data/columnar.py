"""Logs that come as columns: Parquet and Arrow files, and tables of pandas, polars and others.

The core takes Arrow's buffers as they are, batch by batch; here columns of other types are brought
to the two that it knows, 64-bit integers and text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from blin import _core
from blin.errors import ConfigError, DataError, reason_of

_BATCH_ROWS = 1 << 17
_SAMPLE_ROWS = 200
_SHOWN_ROWS = 3
_INSPECTED_ROWS = 1 << 18
_INT64_MAX = 2**63 - 1
# As of text (source.rs): up to here any data may unpack; beyond, only what was made to fill the
# memory is so much smaller than what it holds.
_TRUSTED_BYTES = 128 << 20
_MAX_RATIO = 250
_PARQUET, _ARROW = b"PAR1", b"ARROW1\0\0"
_MAGIC_BYTES = 12
_HEXADECIMAL = np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2)
_UUID_DIGITS = [place for place in range(36) if place not in (8, 13, 18, 23)]


@dataclass(frozen=True)
class _File:
    """An open file of columns."""

    schema: pa.Schema
    num_rows: int
    #: Batches of at most so many rows, of all columns or of these.
    batches: Callable[[int, list[str] | None], Iterable[pa.RecordBatch]]
    #: How its columns are compressed, as far as it says.
    compression: str


def is_columnar(path: Path) -> bool:
    """Tells by its first bytes whether a file is Parquet or Arrow.

    Letters alone do not tell it: an id in a log of text may begin with them.
    """
    magic = _magic(path)
    is_binary = any(byte < ord(" ") and byte not in b"\t\n\f\r" for byte in magic)
    return magic.startswith(_ARROW) or (magic.startswith(_PARQUET) and is_binary)


def has_rows(path: Path) -> bool:
    """Tells whether there is something in a file of columns."""
    with _reported(path), _opened(path) as file:
        return file.num_rows > 0


def refuse_options_of_text(options: Mapping[str, Any]) -> None:
    """Raises a ConfigError if an option is set that only a log of text can have."""
    for option in ("delimiter", "header", "log_format"):
        if options.get(option) is not None:
            raise ConfigError(f"{option}: expected nothing for a log of columns, found a value")


def _magic(path: Path) -> bytes:
    try:
        # What a pipe gives is gone once it is read.
        with path.open("rb") if path.is_file() else BytesIO() as file:
            return file.read(_MAGIC_BYTES)
    except OSError:
        return b""


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    if _magic(path).startswith(_ARROW):
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            schema = file.schema
            num_rows = sum(map(len, _arrow_batches(source, schema, schema.names[:1])))
            yield _File(schema, num_rows, partial(_arrow_pieces, source, schema), "none")
        return
    # Buffering ahead would hold a whole file.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        metadata = file.metadata
        compression = "none"
        if metadata.num_row_groups and metadata.num_columns:
            compression = metadata.row_group(0).column(0).compression.lower()
        yield _File(
            file.schema_arrow,
            metadata.num_rows,
            lambda size, columns: file.iter_batches(size, columns=columns),
            compression.replace("uncompressed", "none"),
        )


def _arrow_batches(
    source: pa.NativeFile, schema: pa.Schema, columns: Sequence[str]
) -> Iterable[pa.RecordBatch]:
    """Yields the batches of an Arrow file, of these columns; others are not unpacked."""
    wanted = [place for place, name in enumerate(schema.names) if name in columns]
    options = pa.ipc.IpcReadOptions(included_fields=wanted)
    with pa.ipc.open_file(source, options=options) as file:
        for place in range(file.num_record_batches if wanted else 0):
            yield file.get_batch(place)


def _arrow_pieces(
    source: pa.NativeFile, schema: pa.Schema, size: int, columns: list[str] | None
) -> Iterable[pa.RecordBatch]:
    for batch in _arrow_batches(source, schema, schema.names if columns is None else columns):
        yield from _pieces(batch if columns is None else batch.select(columns), size)


#: Bytes of memory, bytes of these that are taken, and a directory for what goes beyond.
Spill = tuple[int, int, Path]

#: The hash of a file, given it and what tells to stop.
Sha256 = Callable[[Path, Callable[[], bool]], str]


def read_table(
    table: Any,
    name: str,
    options: Mapping[str, Any],
    *,
    threads: int | None,
    spill: Spill | None = None,
) -> dict[str, Any]:
    """Reads and prepares a table; messages call it by its name."""
    with _reported(name):
        try:
            reader = pa.RecordBatchReader.from_stream(table)
        except (TypeError, ValueError) as cause:  # of the library that the table is of
            raise DataError(f"{name}: expected a table, found: {reason_of(cause)}") from cause
        batches = chain.from_iterable(_pieces(batch, _BATCH_ROWS) for batch in reader)
        log = _Log(name, reader.schema, options, threads=threads, spill=spill)
        for batch in batches:
            log.append(batch)
        return log.finish([])


def inspect_file(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Says how a Parquet or Arrow file is understood by its first rows.

    Returns:
        What :func:`blin._core.inspect_log` returns, without ``bytes_used``, and ``num_rows`` of the
        whole file and the ``types`` of its columns.
    """
    with _reported(path), _opened(path) as file:
        log = _Log(path, file.schema, options, threads=None, spill=None)
        log.understand(file.batches(_SAMPLE_ROWS, None))
        rows = 0
        for batch in file.batches(_BATCH_ROWS, log.columns):
            log.append(batch)
            rows += len(batch)
            if rows >= _INSPECTED_ROWS:
                break
        found = log.inspect()
        return {
            **found,
            "sample": log.sample,
            "types": [str(field.type) for field in file.schema],
            "compression": file.compression,
            "num_rows": file.num_rows,
        }


def read_files(
    paths: Sequence[Path],
    options: Mapping[str, Any],
    sha256: Sha256,
    *,
    threads: int | None,
    spill: Spill | None = None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Reads and prepares Parquet or Arrow files, which have the columns of the first."""
    sizes = []
    for path in paths:
        with _reported(path):
            sizes.append(path.stat().st_size)
    last = max(place for place, size in enumerate(sizes) if size > 0)
    log: _Log | None = None
    with _hashing(paths, sha256) as hashes:
        for place, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            if size == 0:
                continue
            with _reported(path), _opened(path) as file:
                if file.num_rows == 0 and (log is not None or place != last):
                    continue
                if log is None:
                    log = _Log(path, file.schema, options, threads=threads, spill=spill)
                    log.understand(file.batches(_SAMPLE_ROWS, None))
                missing = set(log.columns) - set(file.schema.names)
                if missing:
                    raise DataError(
                        f"{path}: expected the columns of the first file, found no "
                        f"{sorted(missing)[0]!r}"
                    )
                _require_once(log.columns, file.schema.names, path)
                log.require_times(path, file.schema)
                log.start_file(path)
                rows = unpacked = 0
                with closing(_ahead(file.batches(_BATCH_ROWS, log.columns))) as ahead:
                    for batch in ahead:
                        unpacked += log.append(batch)
                        if unpacked > max(_TRUSTED_BYTES, _MAX_RATIO * size):
                            raise DataError(
                                f"{path}: expected beyond {_TRUSTED_BYTES >> 20} MiB at most "
                                f"{_MAX_RATIO} bytes for each packed one, found more; if it is no "
                                "mistake, write it without compression and dictionaries first"
                            )
                        rows += len(batch)
                        if on_progress is not None:
                            share = rows / max(file.num_rows, 1)
                            on_progress(int(sum(sizes[:place]) + size * share), sum(sizes))
        assert log is not None
        # The sorting needs the memory that Arrow would keep for later.
        pa.default_memory_pool().release_unused()
        return log.finish(list(zip(paths, hashes.result(), sizes, strict=True)))


@contextmanager
def _hashing(paths: Sequence[Path], sha256: Sha256) -> Iterator[Future[list[str]]]:
    """Hashes files in the background; stops when the block ends."""
    stopped = Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(lambda: [sha256(path, stopped.is_set) for path in paths])
        finally:
            stopped.set()


class _Log:
    """Batches of one schema on their way to the core."""

    def __init__(
        self,
        path: str | Path,
        schema: pa.Schema,
        options: Mapping[str, Any],
        *,
        threads: int | None,
        spill: Spill | None,
    ) -> None:
        self.columns: list[str] = []
        #: The first rows as text.
        self.sample: list[tuple[str, ...]] = []
        self._path, self._schema = path, schema
        self._options, self._threads, self._spill = dict(options), threads, spill
        self._reader: _core.ColumnReader | None = None

    def understand(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Finds the columns by their names and the first rows."""
        first = next(iter(batches), None)
        fields = list(self._schema)
        sample = (
            [] if first is None else [_sample(column) for column in first[:_SAMPLE_ROWS].columns]
        )
        rows = list(zip(*sample, strict=True))
        self.sample = rows[:_SHOWN_ROWS]
        self._reader = _core.ColumnReader(
            self._path,
            [field.name for field in fields],
            rows,
            [_holds_times(field.type) for field in fields],
            self._options,
            threads=self._threads,
            spill=self._spill,
        )
        self.columns = [fields[place].name for place in self._reader.places()]
        _require_once(self.columns, self._schema.names, self._path)

    def require_times(self, path: Path, schema: pa.Schema) -> None:
        """Raises a DataError unless columns are times where they are in the first file."""
        for name in self.columns:
            found, first = schema.field(name).type, self._schema.field(name).type
            if _holds_times(found) != _holds_times(first):
                raise DataError(
                    f'{path}: column "{name}": expected {first}, as in the first file, '
                    f"found {found}"
                )

    def start_file(self, path: Path) -> None:
        """Names the file whose batches come next."""
        assert self._reader is not None
        self._path = path
        self._reader.start_file(path)

    def append(self, batch: pa.RecordBatch) -> int:
        """Appends a batch that holds the columns that are looked at, and perhaps others.

        Returns:
            The bytes of what was looked at.
        """
        if self._reader is None:
            self.understand([batch])
        assert self._reader is not None
        columns = [_arrays(self._path, name, batch.column(name)) for name in self.columns]
        self._reader.append(columns)
        # Of text a batch has the offsets, and what lies between the first and the last.
        return sum(
            first.nbytes + (0 if text is None else int(first[-1] - first[0]))
            for first, text, _ in columns
        )

    def inspect(self) -> dict[str, Any]:
        """Says how the log is understood."""
        assert self._reader is not None
        return self._reader.inspect()

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


def _ahead(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """Yields what it is given; while one is in use, the next is read."""
    source = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, source, None)
            yield batch


def _pieces(batch: pa.RecordBatch, size: int) -> Iterable[pa.RecordBatch]:
    """Cuts a large batch, which is no copy."""
    return (batch[start : start + size] for start in range(0, len(batch), size))


def _sample(column: pa.Array) -> list[str]:
    """Returns values as text, nothing for those that have none."""
    try:
        if isinstance(column.type, pa.BaseExtensionType):
            column = _written_out(column)
        return [value or "" for value in _decoded(column).cast(pa.string()).to_pylist()]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return [""] * len(column)


def _arrays(source: str | Path, name: str, column: pa.Array) -> tuple[Any, Any, Any]:
    """Returns integers, or offsets and bytes, and which of them are there."""
    try:
        column = _plain(_decoded(column))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as cause:
        raise DataError(
            f'{source}: column "{name}": expected integers, text or times, found {column.type}'
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


def _holds_times(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _decoded(column: pa.Array) -> pa.Array:
    """Writes out a column that is a dictionary and places in it; Arrow cannot of every type."""
    if not pa.types.is_dictionary(column.type):
        return column
    values = _plain(column.dictionary)
    return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()


def _plain(column: pa.Array) -> pa.Array:
    """Brings a column to integers or text without changing what it says."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _written_out(column)
    if pa.types.is_temporal(kind):
        return _nanoseconds(column)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        # Integers with gaps are floats in pandas, and gaps NaN. What a number is called depends on
        # nothing else in its column, for a log is read in parts.
        column = column.cast(pa.float32() if kind == pa.float16() else kind)
        column = pc.if_else(pc.is_nan(column), None, column)
        is_whole = pc.and_(pc.equal(pc.trunc(column), column), pc.less(pc.abs(column), 2.0**63))
        whole = pc.if_else(is_whole, column, None).cast(pa.int64())
        if whole.null_count == column.null_count:
            return whole
        return pc.coalesce(whole.cast(pa.large_string()), column.cast(pa.large_string()))
    # Whether bytes are text is looked at row by row, when they are read.
    is_bytes = pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
    is_bytes = is_bytes or pa.types.is_large_binary(kind)
    return column.cast(pa.large_binary() if is_bytes else pa.large_string())


def _written_out(column: pa.Array) -> pa.Array:
    """Returns UUIDs as they are written, and what is stored as text.

    What other types mean is not told by how they are stored.
    """
    stored = column.storage
    if pa.types.is_string(stored.type) or pa.types.is_large_string(stored.type):
        return stored.cast(pa.large_string())
    if column.type.extension_name != "arrow.uuid":
        raise pa.ArrowInvalid(f"a column of {column.type}")
    first, count = 16 * stored.offset, len(stored)
    raw = np.frombuffer(stored.buffers()[1] or b"", np.uint8)[first : first + 16 * count]
    text = np.full((count, 36), ord("-"), np.uint8)
    text[:, _UUID_DIGITS] = _HEXADECIMAL[raw].reshape(count, 32)
    ends = np.arange(0, 36 * count + 1, 36, dtype=np.int64)
    buffers = pa.py_buffer(ends), pa.py_buffer(text)
    written = pa.LargeStringArray.from_buffers(count, *buffers)
    return pc.if_else(stored.is_valid(), written, None) if stored.null_count else written


def _nanoseconds(column: pa.Array) -> pa.Array:
    """Returns nanoseconds since 1970; as text, if some are more than 64 bits hold.

    These are written out, so that what is wrong with their rows can be said.
    """
    try:
        return column.cast(pa.timestamp("ns")).cast(pa.int64())
    except pa.ArrowInvalid:
        unit = getattr(column.type, "unit", "s" if pa.types.is_date32(column.type) else "ms")
        times = column.cast(pa.timestamp(unit))
        most = _INT64_MAX // {"s": 10**9, "ms": 10**6, "us": 10**3}[unit]
        count = times.cast(pa.int64())
        fits = pc.and_(pc.less_equal(count, most), pc.greater_equal(count, -most))
        nanoseconds = pc.if_else(fits, times, None).cast(pa.timestamp("ns")).cast(pa.int64())
        return pc.coalesce(nanoseconds.cast(pa.large_string()), times.cast(pa.large_string()))


@contextmanager
def _reported(source: str | Path) -> Any:
    """Puts one line that names the source in place of what Arrow says over many."""
    try:
        yield
    except (pa.ArrowException, OSError) as cause:
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise DataError(f"{source}: expected a table, found: {reason}") from cause
