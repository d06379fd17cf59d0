"""The compiled part of blin."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Batcher",
    "ColumnReader",
    "NegativeSampler",
    "fill_histories",
    "inspect_log",
    "read_log",
    "shuffle_users",
]

def inspect_log(
    path: str | PathLike[str],
    *,
    delimiter: str | None = None,
    header: bool | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
    min_rating: float | None = None,
    log_format: str | None = None,
) -> dict[str, Any]: ...
def read_log(
    paths: Sequence[str | PathLike[str]],
    *,
    delimiter: str | None = None,
    header: bool | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
    min_rating: float | None = None,
    log_format: str | None = None,
    on_bad_row: str = "fail",
    min_interactions: int = 5,
    min_user_interactions: int | None = None,
    min_item_interactions: int | None = None,
    duplicates: str = "keep",
    split: str = "leave-one-out",
    valid_from: str | None = None,
    test_from: str | None = None,
    threads: int | None = None,
    spill: tuple[int, int, str | PathLike[str]] | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]: ...

@final
class ColumnReader:
    """Reads a log that comes as columns, batch by batch."""

    def __new__(
        cls,
        path: str | PathLike[str],
        names: Sequence[str],
        sample: Sequence[Sequence[str]],
        is_nanos: Sequence[bool],
        options: dict[str, Any],
        *,
        threads: int | None = None,
        spill: tuple[int, int, str | PathLike[str]] | None = None,
    ) -> ColumnReader: ...
    def places(self) -> list[int]:
        """The places of the columns to give, in this order."""

    def start_file(self, path: str | PathLike[str]) -> None:
        """Names the file whose batches come next."""

    def append(
        self,
        columns: Sequence[
            tuple[NDArray[np.int64], NDArray[np.uint8] | None, NDArray[np.bool_] | None]
        ],
    ) -> None:
        """Appends a batch: of each column integers, or offsets and bytes, and which are there."""

    def finish(self, sources: Sequence[tuple[str | PathLike[str], str, int]]) -> dict[str, Any]:
        """Ends the log, read from files of these paths, hashes and sizes, and prepares it."""

@final
class Batcher:
    """Fills the views of training batches from sequences that it keeps a reference to."""

    def __new__(
        cls,
        items: NDArray[np.uint32],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        *,
        max_len: int,
        padding: str,
        fit: str,
        copies: str,
        positions: str,
        pack: bool,
        seed: int,
    ) -> Batcher: ...
    def fill(
        self,
        users: NDArray[np.uint32],
        epoch: int,
        view: int,
        items: NDArray[np.int64],
        targets: NDArray[np.int64],
        segments: NDArray[np.int64],
        positions: NDArray[np.int64],
        newest: NDArray[np.bool_],
    ) -> int:
        """Fills one view for these users and returns the number of rows used."""

def fill_histories(
    history_items: NDArray[np.uint32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_len: int,
    mode: str,
    items: NDArray[np.int64],
    segments: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> None:
    """Fills the rows of histories to score, the newest item at the right."""

def shuffle_users(users: NDArray[np.uint32], seed: int, epoch: int) -> None:
    """Puts users, in place, into the order of an epoch."""

@final
class NegativeSampler:
    """Draws wrong items: uniformly, or in proportion to counts."""

    def __new__(
        cls, num_items: int, *, counts: NDArray[np.int64] | None = None
    ) -> NegativeSampler: ...
    def fill_shared(self, out: NDArray[np.int64], seed: int, epoch: int, step: int) -> None:
        """Fills an array with the negatives that a training batch shares."""

    def fill_outside_history(
        self,
        history_items: NDArray[np.uint32],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        users: NDArray[np.uint32],
        seed: int,
        out: NDArray[np.int64],
    ) -> None:
        """Fills one row a user with distinct items from outside the user's whole history."""
