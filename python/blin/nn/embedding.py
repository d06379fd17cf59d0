"""Embeddings of items and positions, and the scores that an item's embedding gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ItemEmbedding(nn.Embedding):
    """One vector an item, for its place in a history and, tied, for its score.

    Args:
        num_items: V; items are 1…V, row 0 is padding and stays 0.
        dim: width D.
        tokens: further inputs that are no items and are never scored, V + 1…V + tokens.
    """

    def __init__(self, num_items: int, dim: int, *, tokens: int = 0) -> None:
        super().__init__(num_items + 1 + tokens, dim, padding_idx=0)
        self.num_items = num_items

    @property
    def items(self) -> Tensor:
        """(V + 1, D): padding and the items, what can be scored."""
        return self.weight[: self.num_items + 1]

    def score(self, states: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Returns the dot products of (B, D) states with items.

        Args:
            states: (B, D).
            candidates: (B, K) items; None for the whole catalogue.

        Returns:
            (B, V + 1), or (B, K) for the candidates; column 0 of the former is padding's.
        """
        if candidates is None:
            return states @ self.items.t()
        return (self.weight[candidates] @ states.unsqueeze(-1)).squeeze(-1)


def append_bias(states: Tensor, table: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns states and items whose dot products have a bias for each item added.

    Args:
        states: (..., D), which are given a last entry of 1.
        table: (V + 1, D), the items, which are given their biases.
        bias: (V + 1,).
    """
    ones = nn.functional.pad(states, (0, 1), value=1.0)
    return ones, torch.cat([table, bias.unsqueeze(1)], dim=1)


class PositionEmbedding(nn.Embedding):
    """One vector a position; positions beyond the table share its last vector.

    Args:
        max_len: rows of the table, N.
        dim: width D.
    """

    def __init__(self, max_len: int, dim: int) -> None:
        super().__init__(max_len, dim)

    def forward(self, positions: Tensor) -> Tensor:
        """Maps (B, N) positions to (B, N, D)."""
        return super().forward(positions.clamp(max=self.num_embeddings - 1))


def positions_from_end(segments: Tensor, copies: Tensor | None = None) -> Tensor:
    """Returns how many later positions share segment and copy, (B, N): 0 for the newest.

    The positions of a copy follow one another, with nothing but padding (0) between them, which is
    0 too.

    Args:
        segments: (B, N).
        copies: (B, N); None where no segment holds two.
    """
    flipped = [part.flip(1) for part in (segments, copies) if part is not None]
    real = flipped[0] > 0
    places = torch.arange(1, real.shape[1] + 1, device=real.device)
    latest = torch.where(real, places, 0).cummax(dim=1).values  # 0 before the first real one
    later = nn.functional.pad(latest, (1, 0))[:, :-1]
    ends = torch.zeros_like(real)
    for part in flipped:
        ends |= nn.functional.pad(part, (1, 0)).gather(1, later) != part
    count = real.cumsum(dim=1)
    newest = torch.where(real & ends, count, 0).cummax(dim=1).values
    return torch.where(real, count - newest, 0).flip(1)
