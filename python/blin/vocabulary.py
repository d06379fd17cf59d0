"""Raw ids and the indices that stand for them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from blin.errors import BlinError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


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
    def read(cls, path: Path, *, first: int, error: type[BlinError]) -> Vocabulary:
        """Reads the ``id`` column of a Parquet file; raises ``error`` when it cannot."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            ids = pq.read_table(path, columns=["id"]).column("id").combine_chunks()
        except (OSError, pa.ArrowException, KeyError) as cause:
            reason = str(cause).splitlines()[0]
            raise error(f"{path}: expected a Parquet file of ids, found: {reason}") from cause
        if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
            raise error(f"{path}: expected ids that are strings, found {ids.type}")
        return cls(ids, first=first)

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
