"""What a position of a row may look at, and the heads that look."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from blin.nn.convolution import DepthwiseConvolution


def visibility(segments: Tensor, *, causal: bool = True) -> Tensor:
    """Returns what each position may look at, (B, N) segments to a (B, N, N) mask of booleans.

    Entry (i, j) is true when both lie in the same segment, padding (0) excepted, and, if
    ``causal``, j ≤ i.
    """
    same = segments.unsqueeze(-1) == segments.unsqueeze(-2)
    mask = same & (segments > 0).unsqueeze(-1)
    if causal:
        n = segments.shape[-1]
        mask &= torch.ones(n, n, dtype=torch.bool, device=segments.device).tril_()
    return mask


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Splits (B, N, D) into heads, (B, H, N, D / H)."""
    batch, n, dim = x.shape
    return x.view(batch, n, num_heads, dim // num_heads).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """Joins heads, (B, H, N, D / H), to (B, N, D)."""
    batch, num_heads, n, dim = heads.shape
    return heads.transpose(1, 2).reshape(batch, n, num_heads * dim)


class MultiHeadAttention(nn.Module):
    """Projections around an attention operator, with room for a local branch (Blin, Eq. 11).

    Args:
        dim: width D of the input and the output.
        num_heads: number of heads; divides ``dim``.
        causal: see only what came before, and oneself.
        local: a depthwise convolution of the values (B, N, D), whose output is added to that of
            the attention before the output projection.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        causal: bool = True,
        local: DepthwiseConvolution | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"num_heads must divide dim, got dim {dim} and num_heads {num_heads}")
        self.num_heads = num_heads
        self.causal = causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.local = local
        self.out = nn.Linear(dim, dim)

    @abstractmethod
    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        """Maps three (B, H, N, D / H) with (B, N) segments to (B, H, N, D / H)."""

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        parts = self.qkv(x).chunk(3, dim=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in parts)
        mixed = merge_heads(self.attend(queries, keys, values, segments))
        if self.local is not None:
            mixed = mixed + self.local(parts[2], segments)
        return self.out(mixed)  # type: ignore[no-any-return]
