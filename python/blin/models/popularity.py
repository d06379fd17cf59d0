"""The popularity baseline: everybody is recommended what most interactions go to."""

from __future__ import annotations

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec


class Popularity:
    """Scores an item by the number of its training interactions.

    Args:
        items: the training interactions, any order, items 1…V.
        num_items: V.
    """

    def __init__(self, items: Tensor, *, num_items: int) -> None:
        self.num_items = num_items
        self.counts = torch.bincount(items, minlength=num_items + 1).float()

    @property
    def batch_spec(self) -> BatchSpec:
        """One position is enough: the history is only masked."""
        return BatchSpec(max_len=1, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) counts, or (B, K) for the candidates."""
        if candidates is not None:
            return self.counts[candidates]
        return self.counts.repeat(batch.views[0].items.shape[0], 1)
