"""Raw ids and the indices that stand for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blin.errors import BlinError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

_ALWAYS_UNPACKED = 128 << 20
_ROWS = 4096
_UNPACKED = 250
"""Bytes of ids for each byte of their file, once there are more than the 128 MiB above."""


class Vocabulary:
    """Raw ids in the order of their indices.

    Args:
        ids: a pyarrow array of distinct strings.
        first: the index of the first id: 0 for users, 1 for items.
    """

    def __init__(self, ids: pa.Array, *, first: int) -> None:
        self.ids = ids
        self.first = first

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        first: int,
        error: type[BlinError],
        expected: int | None = None,
        file: pa.NativeFile | None = None,
    ) -> Vocabulary:
        """Reads the ``id`` column of a Parquet file, as many ids as expected.

        What the file says of itself is held against its size, so that a small file cannot take
        much memory. It is opened, or was before, as ``file``.

        Raises:
            error: The file is missing, damaged, or holds something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            source = pa.OSFile(str(path)) if file is None else file
            with pq.ParquetFile(source, page_checksum_verification=True) as table:
                kind = table.schema_arrow.field("id").type
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise error(f"{path}: expected ids that are strings, found {kind}")
                rows = table.metadata.num_rows
                if expected is not None and rows != expected:
                    raise error(f"{path}: expected {expected:,} ids, found {rows:,}")
                ids = _read_ids(table, max(_ALWAYS_UNPACKED, _UNPACKED * source.size()))
            ids.validate(full=True)
        except (OSError, pa.ArrowException, KeyError, ValueError) as cause:
            if isinstance(cause, BlinError):
                raise
            reason = " ".join(str(cause).split())[:200]
            raise error(f"{path}: expected a Parquet file of ids, found: {reason}") from cause
        if len(ids) != rows or ids.null_count > 0:
            raise error(f"{path}: expected {rows:,} ids, found {len(ids) - ids.null_count:,}")
        return cls(ids, first=first)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the ids in their order: of their lengths in UTF-8, then of their text."""
        import numpy as np
        import pyarrow as pa

        ids = self.ids.cast(pa.large_string())
        _, offsets, text = ids.buffers()
        ends = np.frombuffer(offsets, "<i8")[ids.offset : ids.offset + len(ids) + 1]
        digest = hashlib.sha256(np.diff(ends).tobytes())
        digest.update(memoryview(text)[ends[0] : ends[-1]])
        return f"sha256:{digest.hexdigest()}"

    def __len__(self) -> int:
        """Returns the number of ids."""
        return len(self.ids)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {raw: index for index, raw in enumerate(self.ids.to_pylist(), start=self.first)}

    def equals(self, other: Vocabulary) -> bool:
        """Returns whether the same ids stand for the same indices."""
        ids = other.ids.cast(self.ids.type)
        return self.first == other.first and bool(self.ids.equals(ids))

    def index_of(self, raw: str) -> int | None:
        """Returns the index of a raw id, or None if it is unknown."""
        return self._indices.get(raw)

    def indices_of(self, raws: Iterable[str]) -> tuple[list[int], list[str]]:
        """Returns the indices of the known ids, in order, and the unknown ids."""
        known: list[int] = []
        unknown: list[str] = []
        for raw in raws:
            index = self.index_of(raw)
            if index is None:
                unknown.append(raw)
            else:
                known.append(index)
        return known, unknown

    def raw(self, index: int) -> str:
        """Returns the raw id of an index."""
        return self.ids[index - self.first].as_py()  # type: ignore[no-any-return]

    def take(self, indices: NDArray[np.int64]) -> pa.Array:
        """Returns the raw ids of many indices."""
        import pyarrow as pa

        return self.ids.take(pa.array(indices - self.first))


def raw_ids(argument: str, ids: object) -> list[str]:
    """Returns ids as they stand in a log; integers are written out, as those of a table are.

    Args:
        argument: what the message calls them.
        ids: text or integers, of Python, NumPy or Arrow.

    Raises:
        ConfigError: It is no list of ids, such as a text by itself, or something is no id.
    """
    found = _of_python(ids)
    if isinstance(found, str | bytes):
        raise ConfigError(f"{argument}: expected a list of ids, found the text {found!r}")
    if not isinstance(found, Iterable):
        raise ConfigError(f"{argument}: expected a list of ids, found {found!r}")
    return [_raw_id(argument, value) for value in found]


def _of_python(value: Any) -> Any:
    """Returns what a value of Arrow says, and others as they are."""
    return value.as_py() if hasattr(value, "as_py") else value


def _raw_id(argument: str, value: object) -> str:
    found = _of_python(value)
    if isinstance(found, str):
        return str(found)
    if isinstance(found, Integral) and not isinstance(found, bool):
        return str(int(found))
    raise ConfigError(f"{argument}: expected raw ids, each a text, found {value!r}")


def _read_ids(file: pq.ParquetFile, limit: int) -> pa.Array:
    """Returns the ``id`` column, unless it takes more bytes than the limit.

    A value that is stored once may stand in every row, so the rows are read in small portions. What
    the file says of the sizes of its columns is not asked for: pyarrow ends the process where that
    is damaged.
    """
    import pyarrow as pa

    parts, size = [], 0
    for part in file.iter_batches(batch_size=_ROWS, columns=["id"]):
        parts.append(part.column("id"))
        size += parts[-1].nbytes
        if size > limit:
            raise ValueError(f"ids that take more than {limit >> 20} MiB, far more than the file")
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())
