"""Models whose scores are written down."""

from __future__ import annotations

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec
from blin.data.dataset import Dataset


class Fixed:
    """Scores by a function of the batch's last items."""

    def __init__(self, dataset: Dataset, table: Tensor) -> None:
        self.name = "fixed"
        self.num_items = dataset.num_items
        self.table = table  # (V + 1, V + 1): the scores after each last item

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(max_len=3, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        scores = self.table[batch.views[0].items[:, -1]].clone()
        return scores if candidates is None else scores.gather(1, candidates)


def random_model(dataset: Dataset, *, levels: int) -> Fixed:
    """Scores at random, whole numbers below ``levels``."""
    size = dataset.num_items + 1
    generator = torch.Generator().manual_seed(levels)
    return Fixed(dataset, torch.randint(0, levels, (size, size), generator=generator).float())


def constant_model(dataset: Dataset, value: float = 1.0) -> Fixed:
    size = dataset.num_items + 1
    return Fixed(dataset, torch.full((size, size), value))
