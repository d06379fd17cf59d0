"""The first-order Markov baseline: what most often follows the last item."""

from __future__ import annotations

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec


class Markov:
    """Scores an item by how often it follows the last item of the history in training.

    Items that never follow it are told apart by their popularity, scaled to stay below a single
    transition.

    Args:
        items: (I,) training sequences, concatenated, items 1…V.
        owners: (I,) the user of each interaction; transitions stay inside a user.
        num_items: V.
    """

    def __init__(self, items: Tensor, owners: Tensor, *, num_items: int) -> None:
        self.num_items = num_items
        size = num_items + 1
        inside = owners[1:] == owners[:-1]
        steps = items[:-1][inside] * size + items[1:][inside]
        pairs, counts = torch.unique(steps, return_counts=True)
        self.targets = pairs % size
        self.counts = counts.float()
        sources = torch.arange(size + 1)
        self.offsets = torch.searchsorted(torch.div(pairs, size, rounding_mode="floor"), sources)
        popularity = torch.bincount(items, minlength=size).float()
        self.fallback = popularity / (popularity.sum() + 1)

    @property
    def batch_spec(self) -> BatchSpec:
        """Only the last position is looked at."""
        return BatchSpec(max_len=1, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) counts of transitions, or (B, K) for the candidates."""
        scores = self.fallback.repeat(batch.views[0].items.shape[0], 1)
        for row, item in zip(scores, batch.views[0].items[:, -1].tolist(), strict=True):
            followers = slice(self.offsets[item], self.offsets[item + 1])
            row[self.targets[followers]] += self.counts[followers]
        return scores if candidates is None else scores.gather(1, candidates)
