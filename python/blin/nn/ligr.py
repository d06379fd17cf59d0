"""The residual block whose branches pass a gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.dropout import Dropout


class LiGRBlock(nn.Module):
    """Attention, then a feed-forward network, each let through by a gate that the input opens.

        x ← x + σ(G₁ x) ⊙ drop(attention(norm(x)))
        x ← x + σ(G₂ x) ⊙ drop(feed_forward(norm(x)))

    After *From Features to Transformers: Redefining Ranking for Scalable Impact* (Borisyuk et al.,
    2025), where it is called LiGR.

    Args:
        attention: a module (x (B, N, D), segments (B, N)) → (B, N, D).
        feed_forward: a module (B, N, D) → (B, N, D).
        dim: width D.
        dropout: probability of dropping a unit of either branch's output.
    """

    def __init__(
        self, attention: nn.Module, feed_forward: nn.Module, *, dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_forward_gate = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        attended = self.attention(self.attention_norm(x), segments)
        x = x + torch.sigmoid(self.attention_gate(x)) * self.dropout(attended)
        fed = self.feed_forward(self.feed_forward_norm(x))
        return x + torch.sigmoid(self.feed_forward_gate(x)) * self.dropout(fed)  # type: ignore[no-any-return]
