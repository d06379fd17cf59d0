"""The linear attention of LinRec, bidirectional or causal.

For queries, keys and values q, k, v of one head of width D, position i and channel c (Liu et al.,
SIGIR 2023):

    q̂_ic  = elu(q_ic) / √(Σ_c elu(q_ic)² + ε)                    a query by its length
    k̂_jc  = elu(k_jc) / √(Σ_{j visible from i} elu(k_jc)² + ε)   a channel by its length
    out_i = Σ_{j visible from i} (q̂_i · k̂_j) v_j / √D

Position j is visible from i when both belong to the same segment and, in the causal form, j ≤ i;
padding (segment 0) sees and shows nothing. Weights may be negative and do not sum to 1.

The paper's form is the bidirectional one, in which all positions of a segment share the lengths of
its channels, and Σ_j k̂_j v_jᵀ, a D × D matrix: linear in the length. In the causal form the lengths
are those so far, which makes it another operator, and here a quadratic one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import MultiHeadAttention, visibility
from blin.nn.segments import SegmentRows

EPSILON = 1e-6
"""Under the roots: what is all 0 stays 0."""

PAIRED = 64
"""Rows of up to so many positions are computed pair by pair, which is faster for them."""


def linrec_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor, *, causal: bool = False
) -> Tensor:
    """Computes the attention over rows of N positions.

    Args:
        queries: (B, H, N, D), before the activation.
        keys: (B, H, N, D), before the activation.
        values: (B, H, N, D).
        segments: (B, N); the positions of a segment follow one another, with nothing but padding
            (0) between them.
        causal: see only what came before, and oneself: O(N² D).

    Returns:
        (B, H, N, D) in the dtype of ``values``; rows that see nothing are 0. The arithmetic is at
        least fp32, whatever the dtype of the arguments.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(device_type=values.device.type, enabled=False):
        q, k = nn.functional.elu(queries.to(dtype)), nn.functional.elu(keys.to(dtype))
        v = values.to(dtype) / values.shape[-1] ** 0.5
        q = q * (q.square().sum(dim=-1, keepdim=True) + EPSILON).rsqrt()
        if causal or segments.shape[1] <= PAIRED:
            out = _by_pairs(q, k, v, visibility(segments, causal=causal))
        else:
            out = _by_segments(q, k, v, SegmentRows.of(segments))
        return out.to(values.dtype)


def _by_pairs(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Returns the output from the weights of all pairs, O(N² D)."""
    mask = visible.to(v.dtype).unsqueeze(1)  # (B, 1, N, N)
    q = q * (mask @ k.square() + EPSILON).rsqrt()
    return ((q @ k.transpose(-1, -2)) * mask) @ v


def _by_segments(q: Tensor, k: Tensor, v: Tensor, rows: SegmentRows) -> Tensor:
    """Returns the bidirectional output from one matrix for each segment, O(N D²)."""
    q, k, v = (rows.split(part.transpose(1, 2)).transpose(1, 2) for part in (q, k, v))
    k = k * (k.square().sum(dim=2, keepdim=True) + EPSILON).rsqrt()
    return rows.join((q @ (k.transpose(-1, -2) @ v)).transpose(1, 2)).transpose(1, 2)


class LinRecAttention(MultiHeadAttention):
    """Multi-head attention by :func:`linrec_attention`."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        """Applies :func:`linrec_attention`."""
        return linrec_attention(queries, keys, values, segments, causal=self.causal)
