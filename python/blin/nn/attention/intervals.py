"""Attention that knows how much time lies between two positions (TiSASRec, WSDM 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import merge_heads, split_heads, visibility
from blin.nn.dropout import Dropout


def time_intervals(times: Tensor, segments: Tensor, *, most: int) -> Tensor:
    """Returns how far each position lies behind those that look at it, in units of its own.

        r_ij = min(⌊|t_i - t_j| / u_i⌋, most)

    The unit u_i is the shortest time between any two positions that i can see, itself included, and
    that do not have the same time: so nothing that comes later changes it. A difference of more
    than 63 bits counts as the greatest of 63.

    Args:
        times: (B, N) int64.
        segments: (B, N).
        most: longer intervals count as this one.

    Returns:
        (B, N, N) int64, 0…``most``; 0 where i does not see j.
    """
    hidden = ~visibility(segments)
    far = torch.iinfo(torch.int64).max
    left, right = times.unsqueeze(-1), times.unsqueeze(-2)
    apart = left - right
    wrapped = (apart > 0) != (left > right)  # a difference of more than 63 bits
    apart = apart.masked_fill_(wrapped, far).clamp_(min=-far).abs_()
    nearest = apart.masked_fill(hidden | (apart <= 0), far).amin(-1)  # (B, N)
    units = nearest.unsqueeze(1).expand_as(apart).masked_fill(hidden, far).amin(-1, keepdim=True)
    return apart.div_(units, rounding_mode="floor").clamp_(0, most).masked_fill_(hidden, 0)


def interval_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    interval_keys: Tensor,
    interval_values: Tensor,
    intervals: Tensor,
    segments: Tensor,
    *,
    dropout: nn.Module,
) -> Tensor:
    """Computes causal softmax attention with a key and a value for each interval.

        w_ij = softmax over visible j of q_i · (k_j + K[r_ij]) / √D
        out_i = Σ_j w_ij (v_j + V[r_ij])

    Neither sum ever has N · N rows of width D: products with the R intervals are looked up, and
    weights are added up by interval.

    Args:
        queries: (B, H, N, D).
        keys: (B, H, N, D).
        values: (B, H, N, D).
        interval_keys: (H, R, D), K.
        interval_values: (H, R, D), V.
        intervals: (B, N, N) int64, r.
        segments: (B, N).
        dropout: what the weights pass through.

    Returns:
        (B, H, N, D); rows that see nothing are 0.
    """
    by_interval = queries @ interval_keys.transpose(-1, -2)  # (B, H, N, R)
    scores = queries @ keys.transpose(-1, -2)
    index = intervals.unsqueeze(1).expand_as(scores)
    scores = (scores + by_interval.gather(-1, index)) / queries.shape[-1] ** 0.5
    # A softmax over nothing is not a number: padding sees itself and is put out after.
    own = torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)
    mask = (visibility(segments) | own).unsqueeze(1)  # (B, 1, N, N)
    weights = dropout(scores.masked_fill(~mask, -torch.inf).softmax(-1))
    weights = weights * (segments > 0)[:, None, :, None]
    shares = weights.new_zeros(by_interval.shape).scatter_add(-1, index, weights)
    return torch.matmul(weights, values) + torch.matmul(shares, interval_values)


class IntervalAttention(nn.Module):
    """Multi-head attention with keys and values of items, of positions and of intervals.

    Args:
        dim: width D of the input and the output.
        num_heads: number of heads; divides ``dim``.
        dropout: probability of dropping an attention weight while training.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        segments: Tensor,
        intervals: Tensor,
        position_keys: Tensor,
        position_values: Tensor,
        interval_keys: Tensor,
        interval_values: Tensor,
    ) -> Tensor:
        """Maps (B, N, D) to (B, N, D).

        Args:
            x: (B, N, D).
            segments: (B, N).
            intervals: (B, N, N) int64, below R.
            position_keys: (B, N, D), added to the keys.
            position_values: (B, N, D), added to the values.
            interval_keys: (R, D).
            interval_values: (R, D).
        """
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        tables = split_heads(torch.stack([interval_keys, interval_values]), self.num_heads)
        out = interval_attention(
            split_heads(queries, self.num_heads),
            split_heads(keys + position_keys, self.num_heads),
            split_heads(values + position_values, self.num_heads),
            tables[0],
            tables[1],
            intervals,
            segments,
            dropout=self.dropout,
        )
        return merge_heads(out)
