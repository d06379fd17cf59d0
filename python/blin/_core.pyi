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
    "count_above",
    "count_transitions",
    "data_health",
    "fill_histories",
    "inspect_log",
    "read_log",
    "shuffle_users",
]

def data_health(
    items: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    splits: NDArray[np.int64],
    timestamps: NDArray[np.int64] | None,
    luck: NDArray[np.float64],
    *,
    num_items: int,
    threads: int | None = None,
) -> dict[str, Any]:
    """Counts what there is to know of a dataset before anything is trained on it."""

def inspect_log(
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

    def inspect(self) -> dict[str, Any]:
        """Ends the log and says how it is understood."""

    def finish(self, sources: Sequence[tuple[str | PathLike[str], str, int]]) -> dict[str, Any]:
        """Ends the log, read from files of these paths, hashes and sizes, and prepares it."""

_View = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.float32] | None,
]
"""Items, targets, segments, positions, copies, steps and perhaps weights, each (B, N)."""

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
        crop: float = 0.0,
    ) -> Batcher: ...
    def fill(
        self,
        users: NDArray[np.uint32],
        epoch: int,
        views: Sequence[_View],
        step_users: NDArray[np.int64],
    ) -> tuple[list[int], int]:
        """Fills the views of a batch of these users, and for each step the place of its user.

        Returns the rows of each view and the number of steps.
        """

    def fill_augmented(
        self,
        users: NDArray[np.uint32],
        epoch: int,
        augmentations: Sequence[tuple[str, float]],
        mask: int,
        first: _View,
        second: _View,
    ) -> list[int]:
        """Fills two augmented views of these users and returns the rows of each."""

    def fill_negatives(
        self,
        sampler: NegativeSampler,
        users: NDArray[np.uint32],
        epoch: int,
        views: int,
        outside_history: bool,
        copy: int,
        negatives: NDArray[np.int64],
        log_q: NDArray[np.float32],
    ) -> None:
        """Fills one row of negatives for each step of a batch of so many views, and their log_q.

        Each copy, counted from 0, has draws of its own.
        """

    def mark_history(
        self,
        sampler: NegativeSampler,
        users: NDArray[np.uint32],
        negatives: NDArray[np.int64],
        marks: NDArray[np.bool_],
    ) -> None:
        """Marks, in one row a user, which of the negatives are in the user's sequence."""

def fill_histories(
    history_items: NDArray[np.uint32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_len: int,
    mode: str,
    items: NDArray[np.int64],
    segments: NDArray[np.int32],
    positions: NDArray[np.int32],
) -> None:
    """Fills the rows of histories to score, the newest item at the right."""

def count_above(
    scores: NDArray[np.float32],
    own: NDArray[np.float32],
    above: NDArray[np.int64],
    level: NDArray[np.int64],
) -> None:
    """Counts, for each row of scores, those above its own score and those that equal it."""

def count_transitions(
    items: NDArray[np.int64], users: NDArray[np.int64], num_items: int, span: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Counts how often each item comes 1 to span steps after each other one, inside a user.

    Returns (V + 1,) pairs that each item has, and for each pair, sorted, the item that follows and
    how often.
    """

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
