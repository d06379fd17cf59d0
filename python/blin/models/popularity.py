"""The popularity baselines: everybody is recommended what most interactions go to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Interactions
from blin.errors import ConfigError, DataError


@dataclass(frozen=True)
class PopularityConfig:
    """There is nothing to set."""


class Popularity(nn.Module):
    """Scores an item by the number of its training interactions.

    Args:
        num_items: V.
        config: nothing.
    """

    counts: Tensor  # (V + 1,)

    def __init__(self, num_items: int, config: PopularityConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.register_buffer("counts", torch.zeros(num_items + 1))

    def count(self, interactions: Interactions) -> None:
        """Learns from all training interactions."""
        self.counts = item_counts(interactions.items, num_items=self.num_items)

    @property
    def batch_spec(self) -> BatchSpec:
        """One position is enough: the history is only masked."""
        return BatchSpec(max_len=1, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) counts, or (B, K) for the candidates."""
        return same_for_all(self.counts, batch, candidates)


@dataclass(frozen=True)
class RecentPopularityConfig:
    """What is recent.

    Attributes:
        window: the share, counted from the newest, of the time that training interactions span.
    """

    window: float = 0.1

    def __post_init__(self) -> None:
        """Refuses a share that is none."""
        if not 0 < self.window <= 1:
            raise ConfigError(f"window: expected a number in (0, 1], found {self.window}")


class RecentPopularity(nn.Module):
    """Scores an item by the number of its recent training interactions.

    Recent is a stretch of time that ends with the newest training interaction of anybody, as in
    the RecentPop of Ji et al., *A Re-visit of the Popularity Baseline in Recommender Systems*
    (SIGIR 2020). Items without any are told apart by all their interactions, scaled to stay below a
    single recent one; items with as many are, too, where the rounding of the sum leaves these.

    Args:
        num_items: V.
        config: what is recent.
    """

    counts: Tensor  # (V + 1,)

    def __init__(self, num_items: int, config: RecentPopularityConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.register_buffer("counts", torch.zeros(num_items + 1))

    def count(self, interactions: Interactions) -> None:
        """Learns from all training interactions.

        Raises:
            DataError: They have no times.
        """
        items, times = interactions.items, interactions.times
        if times is None:
            raise DataError("recent-popularity: expected interactions with times, found none")
        oldest, newest = int(times.min()), int(times.max())
        recent = times >= newest - int(self.config.window * (newest - oldest))
        self.counts = item_counts(items[recent], num_items=self.num_items)
        self.counts += popularity_shares(items, num_items=self.num_items)

    @property
    def batch_spec(self) -> BatchSpec:
        """One position is enough: the history is only masked."""
        return BatchSpec(max_len=1, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) counts, or (B, K) for the candidates."""
        return same_for_all(self.counts, batch, candidates)


def item_counts(items: Tensor, *, num_items: int) -> Tensor:
    """Returns how often each item occurs, (V + 1,) float32."""
    return torch.bincount(items, minlength=num_items + 1).float()


def popularity_shares(items: Tensor, *, num_items: int) -> Tensor:
    """Returns each item's share of the interactions, (V + 1,); even an only item's is below 1.

    These stay below the least count, and decide what counting leaves undecided, as far as they are
    not lost in the rounding of a larger one.
    """
    return item_counts(items, num_items=num_items) / (len(items) + 1)


def same_for_all(scores: Tensor, batch: Batch, candidates: Tensor | None) -> Tensor:
    """Returns (V + 1,) scores for each row of a batch, (B, V + 1), or (B, K) for candidates."""
    if candidates is not None:
        return scores[candidates]
    return scores.repeat(batch.views[0].items.shape[0], 1)
