"""What a position of a row may look at, and the heads that look."""

from __future__ import annotations

import torch
from torch import Tensor


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


def check_heads(dim: int, num_heads: int) -> None:
    """Raises ValueError unless the heads share the width evenly."""
    if dim % num_heads != 0:
        raise ValueError(f"num_heads must divide dim, got dim {dim} and num_heads {num_heads}")
