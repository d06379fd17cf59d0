"""The held-out items that are ranked, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blin.data.dataset import Dataset
from blin.data.loader import flat_histories

_STEPS_AT_ONCE = 1 << 22
"""Items of histories looked through at a time."""


@dataclass(frozen=True)
class Targets:
    """Held-out items, by user, then by time.

    Attributes:
        dataset: where they are from.
        users: (T,) index of each one's user.
        places: (T,) where in ``dataset.items`` it stands; its history is what its user has before.
        last: how many items of a history, the newest, a model is shown; None shows all. The rest
            stays in the history: it is masked, and it is counted.
    """

    dataset: Dataset
    users: NDArray[np.int64]
    places: NDArray[np.int64]
    last: int | None = None

    def __len__(self) -> int:
        """Returns T."""
        return len(self.places)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(T,) where in ``dataset.items`` each history begins."""
        return self.dataset.offsets[self.users]

    @property
    def shown_from(self) -> NDArray[np.int64]:
        """(T,) where in ``dataset.items`` begins what a model is shown of each history."""
        starts = self.starts
        return starts if self.last is None else np.maximum(starts, self.places - self.last)

    @cached_property
    def items(self) -> NDArray[np.int64]:
        """(T,) the held-out items, 1…V."""
        return self.dataset.items[self.places].astype(np.int64)

    @property
    def history(self) -> NDArray[np.int64]:
        """(T,) how many items come before."""
        return self.places - self.starts

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """(T,) how many training interactions the item has; 0 if it is cold."""
        return self.dataset.training_counts()[self.items - 1]

    @cached_property
    def repeats(self) -> NDArray[np.bool_]:
        """(T,) whether the user has had the item before."""
        found = np.zeros(len(self), dtype=np.bool_)
        starts, items = self.starts, self.items
        ends = np.cumsum(self.history)
        first = 0
        while first < len(self):
            limit = (ends[first - 1] if first else 0) + _STEPS_AT_ONCE
            last = max(first + 1, int(np.searchsorted(ends, limit, side="right")))
            part = slice(first, last)
            rows, seen = flat_histories(self.dataset.items, starts[part], self.places[part])
            same = seen.numpy() == items[part][rows.numpy()]
            found[first + rows.numpy()[same]] = True
            first = last
        return found

    def without(self, marked: NDArray[np.bool_]) -> Targets:
        """Returns those that are not marked."""
        return replace(self, users=self.users[~marked], places=self.places[~marked])
