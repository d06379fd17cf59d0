"""Attention whose heads look back to different distances, weighed by a gate at each position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import merge_heads, split_heads, visibility


def spans_of(num_heads: int, max_len: int, *, shortest: int) -> tuple[int, ...]:
    """Returns how many of the newest items each head sees, itself included, in rising order.

        span_h = s (N / s)^(h / (H - 1)), rounded, for h = 0…H - 1

    Each span is the one before it times the same factor, and the last head sees all N. A single
    head sees all, and so do all heads where s is N or more.

    Args:
        num_heads: H.
        max_len: N.
        shortest: s.
    """
    if num_heads == 1:
        return (max_len,)
    first = min(shortest, max_len)
    factor = (max_len / first) ** (1 / (num_heads - 1))
    return tuple(round(first * factor**head) for head in range(num_heads))


def span_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor, *, spans: Sequence[int]
) -> Tensor:
    """Computes causal softmax attention in which head h sees the newest ``spans[h]`` positions.

        w_hij = softmax over the j of the segment of i with i - span_h < j ≤ i of q_hi · k_hj / √D
        out_hi = Σ_j w_hij v_hj

    Distances count the positions of the segment, not what may lie between them.

    Args:
        queries: (B, H, N, D).
        keys: (B, H, N, D).
        values: (B, H, N, D).
        segments: (B, N).
        spans: H numbers, at least 1.

    Returns:
        (B, H, N, D); padding gives 0.
    """
    places = (segments > 0).cumsum(1, dtype=torch.int32)
    back = (places.unsqueeze(-1) - places.unsqueeze(-2)).unsqueeze(1)  # (B, 1, N, N)
    widths = torch.tensor(spans, dtype=torch.int32, device=segments.device).view(-1, 1, 1)
    # A softmax over nothing is not a number: padding sees itself and is put out after.
    own = torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)
    mask = visibility(segments).unsqueeze(1) & (back < widths) | own  # (B, H, N, N)
    out = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return out * (segments > 0)[:, None, :, None]


class SpanAttention(nn.Module):
    """Multi-head attention over several spans, whose heads share out one weight at each position.

        g_i = H softmax(W_g x_i + b_g),   y_i = W_o (g_i1 out_1i ‖ … ‖ g_iH out_Hi) + b_o

    The gate is a softmax, so that one span gains what others lose, and its weights can be compared.
    Equal weights are 1: then this is an ungated attention.

    Args:
        dim: width D of the input and the output.
        num_heads: H; divides ``dim``.
        max_len: the longest span, as for :func:`spans_of`.
        shortest: the shortest one.
    """

    def __init__(self, dim: int, num_heads: int, max_len: int, *, shortest: int) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"num_heads: expected a divisor of dim {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.max_len = max_len
        self.shortest = shortest
        self.qkv = nn.Linear(dim, 3 * dim)
        self.gate = nn.Linear(dim, num_heads)
        self.out = nn.Linear(dim, dim)

    @property
    def spans(self) -> tuple[int, ...]:
        """How many of the newest positions each head sees."""
        return spans_of(self.num_heads, self.max_len, shortest=self.shortest)

    def gates(self, x: Tensor) -> Tensor:
        """Maps (B, N, D) inputs to the weights of the heads, (B, N, H), whose mean is 1."""
        return self.num_heads * self.gate(x).softmax(-1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        parts = self.qkv(x).chunk(3, dim=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in parts)
        heads = span_attention(queries, keys, values, segments, spans=self.spans)
        gates = self.gates(x).transpose(1, 2).unsqueeze(-1)  # (B, H, N, 1)
        return self.out(merge_heads(heads * gates))  # type: ignore[no-any-return]
