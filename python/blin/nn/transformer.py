"""The residual block around an attention operator."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blin.nn.dropout import Dropout


class Block(nn.Module):
    """Attention, then a feed-forward network, each with dropout, a residual and a layer norm.

    Args:
        attention: a module (x (B, N, D), segments (B, N), …) → (B, N, D).
        feed_forward: a module (B, N, D) → (B, N, D).
        dim: width D.
        dropout: probability of dropping a unit of either branch's output.
        norm_first: normalise a branch's input (pre-norm) instead of the sum (post-norm).
    """

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        *,
        dim: int,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, segments: Tensor, *context: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D).

        The attention is also given the context, whatever it asks for.
        """
        return self._finish(x, self.attention(self._enter(x), segments, *context))

    def advance(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Maps the next positions, (B, M, D), by an attention that can go on from its state."""
        attended, state = self.attention.advance(self._enter(x), state)  # type: ignore[operator]
        return self._finish(x, attended), state

    def _enter(self, x: Tensor) -> Tensor:
        return self.attention_norm(x) if self.norm_first else x

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(attended)
        if self.norm_first:
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]
        x = self.attention_norm(x)
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))  # type: ignore[no-any-return]
