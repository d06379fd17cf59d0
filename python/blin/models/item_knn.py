"""The item-KNN baseline: what goes with the newest items of the history.

The similarities of items are cosines, as in Sarwar et al., *Item-Based Collaborative Filtering
Recommendation Algorithms* (WWW 2001). That near steps of a sequence count more, and later ones for
earlier ones only, is from the sequential rules, and that the newest items of a history count most
from the vector multiplication, of Ludewig and Jannach, *Evaluation of Session-based Recommendation
Algorithms* (UMUAI 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Interactions
from blin.errors import ConfigError
from blin.models.popularity import popularity_shares
from blin.nn.sparse import SparseRows

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PAIRS_AT_ONCE = 1 << 22
"""Pairs of items counted at a time."""

LOST = 2.0**-24
"""What is so many times smaller is lost in the rounding of a float32."""

LEAST = 1e-25
"""Shares of popularity times this are still told apart by float32."""


@dataclass(frozen=True)
class ItemKNNConfig:
    """What makes items similar, and which of a history count how much.

    Attributes:
        neighbours: of the items similar to an item, so many are kept.
        max_distance: items of a sequence so many steps apart, or fewer, go together.
        distance_decay: what each further step apart takes from that: neighbours count 1.
        backward: how much an earlier item counts for a later one: 0 nothing, 1 as much as a later
            one for an earlier one.
        shrinkage: added to the denominator of the cosine; the higher, the less rare items count.
        max_len: the newest items of a history that are looked at.
        recency_decay: what each step into the past takes from their weight.
    """

    neighbours: int = 200
    max_distance: int = 10
    distance_decay: float = 0.8
    backward: float = 0.0
    shrinkage: float = 60.0
    max_len: int = 20
    recency_decay: float = 0.7

    def __post_init__(self) -> None:
        """Refuses values that nothing can be counted with."""
        for name in ("neighbours", "max_distance", "max_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("distance_decay", "recency_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name}: expected a number in (0, 1], found {getattr(self, name)}"
                )
        if not 0 <= self.backward <= 1:
            raise ConfigError(f"backward: expected a number in [0, 1], found {self.backward}")
        if self.shrinkage < 0:
            raise ConfigError(f"shrinkage: expected at least 0, found {self.shrinkage}")


class ItemKNN(nn.Module):
    """Scores an item by how similar it is to the newest items of the history.

    How much item j goes with item i is a sum over all pairs of the two in a training sequence, i at
    step p and j at step q: ``distance_decay`` ** (|q − p| − 1) if the steps are at most
    ``max_distance`` apart, times ``backward`` where j comes first. Divided by
    √(nᵢ nⱼ) + ``shrinkage``, where n counts the training interactions of an item, it is their
    similarity. A score is the sum of the similarities to the items of the history, each times
    ``recency_decay`` ** (items after it).

    Items similar to nothing in the history are told apart by their popularity, scaled down until
    it is lost in the rounding of any other score.

    Args:
        num_items: V.
        config: the settings.
    """

    popularity: Tensor  # (V + 1,)

    def __init__(self, num_items: int, config: ItemKNNConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.similarities = SparseRows(num_items)
        self.register_buffer("popularity", torch.zeros(num_items + 1))

    def count(self, interactions: Interactions) -> None:
        """Learns from all training interactions."""
        config = self.config
        lengths, targets, weights = [np.zeros(1, np.int64)], [], []
        counts = np.bincount(interactions.items.numpy(), minlength=self.num_items + 1)
        for first, rows in _going_together(interactions, counts, config):
            last = first + rows.shape[0]
            sources = np.repeat(np.arange(first, last), np.diff(rows.indptr))
            norms = np.sqrt(counts[sources].astype(np.float64) * counts[rows.indices])
            rows.data /= norms + config.shrinkage
            kept = _highest(rows, config.neighbours)
            lengths.append(np.bincount(sources[kept] - first, minlength=rows.shape[0]))
            targets.append(rows.indices[kept])
            weights.append(rows.data[kept].astype(np.float32))
        found = np.concatenate(weights)
        self.similarities.fill(
            torch.from_numpy(np.concatenate(lengths)),
            torch.from_numpy(np.concatenate(targets)),
            torch.from_numpy(found),
        )
        least = float(found.min()) if len(found) else 1.0
        least *= config.recency_decay ** (config.max_len - 1)
        shares = popularity_shares(interactions.items, num_items=self.num_items)
        self.popularity = shares * max(least * LOST, LEAST)

    @property
    def batch_spec(self) -> BatchSpec:
        """The newest items."""
        return BatchSpec(
            max_len=self.config.max_len, positions="absolute", views=1, num_negatives=0
        )

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) weighted sums of similarities, or (B, K) for the candidates."""
        items = batch.views[0].items
        scores = self.popularity.repeat(items.shape[0], 1)
        for age, column in enumerate(items.flip(1).unbind(1)):
            self.similarities.add_to(scores, column, self.config.recency_decay**age)
        return scores if candidates is None else scores.gather(1, candidates)


def _going_together(
    interactions: Interactions, counts: NDArray[np.int64], config: ItemKNNConfig
) -> Iterator[tuple[int, csr_array]]:
    """Yields, for stretches of items, the first and what goes with each, (items, V + 1)."""
    from scipy.sparse import coo_array

    items, users = interactions.items.numpy(), interactions.users.numpy()
    order = np.argsort(items, kind="stable")
    ends = np.cumsum(counts)  # in ``order``, by item
    steps = range(1, min(config.max_distance, int(np.bincount(users).max())) + 1)
    shifts = [(step, config.distance_decay ** (step - 1)) for step in steps]
    if config.backward > 0:
        shifts += [(-step, weight * config.backward) for step, weight in shifts]
    size = max(1, PAIRS_AT_ONCE // max(1, len(shifts)))
    first = 1
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, ends[first - 1] + size, side="right")))
        places = order[ends[first - 1] : ends[last - 1]]
        sources, targets, weights = [], [], []
        for shift, weight in shifts:
            here = places[(places + shift >= 0) & (places + shift < len(items))]
            there = here + shift
            together = (users[here] == users[there]) & (items[here] != items[there])
            sources.append(items[here[together]] - first)
            targets.append(items[there[together]])
            weights.append(np.full(int(together.sum()), weight))
        pairs = (np.concatenate(sources), np.concatenate(targets))
        yield (
            first,
            coo_array((np.concatenate(weights), pairs), shape=(last - first, len(counts))).tocsr(),
        )
        first = last


def _highest(rows: csr_array, most: int) -> NDArray[np.bool_]:
    """Marks the highest entries of each row; of equal ones those of the lower items."""
    lengths = np.diff(rows.indptr)
    kept = np.ones(rows.nnz, dtype=np.bool_)
    number = np.repeat(np.arange(len(lengths)), lengths)
    crowded = np.flatnonzero((lengths > most)[number])
    order = np.lexsort((rows.indices[crowded], -rows.data[crowded], number[crowded]))
    crowds = lengths[lengths > most]
    ranks = np.arange(len(crowded)) - np.repeat(np.cumsum(crowds) - crowds, crowds)
    kept[crowded[order[ranks >= most]]] = False
    return kept
