"""The first-order Markov baseline: what most often follows the last item."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Interactions
from blin.models.popularity import popularity_shares
from blin.models.transitions import count_transitions
from blin.nn.sparse import SparseRows


@dataclass(frozen=True)
class MarkovConfig:
    """There is nothing to set."""


class Markov(nn.Module):
    """Scores an item by how often it follows the last item of the history in training.

    Items that never follow it are told apart by their popularity, scaled to stay below a single
    transition; items that follow it as often are, too, where the rounding of the sum leaves it.

    Args:
        num_items: V.
        config: nothing.
    """

    popularity: Tensor  # (V + 1,)

    def __init__(self, num_items: int, config: MarkovConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.transitions = SparseRows(num_items)
        self.register_buffer("popularity", torch.zeros(num_items + 1))

    def count(self, interactions: Interactions) -> None:
        """Learns from all training interactions; transitions stay inside a user."""
        self.transitions.fill(*count_transitions(interactions, num_items=self.num_items))
        self.popularity = popularity_shares(interactions.items, num_items=self.num_items)

    @property
    def batch_spec(self) -> BatchSpec:
        """Only the last position is looked at."""
        return BatchSpec(max_len=1, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) counts of transitions, or (B, K) for the candidates."""
        items = batch.views[0].items
        scores = self.popularity.repeat(items.shape[0], 1)
        self.transitions.add_to(scores, items[:, -1])
        return scores if candidates is None else scores.gather(1, candidates)
