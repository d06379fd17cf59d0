"""Attention, gated convolution and positions, one scalar at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KEY_CAP = 20.0


def visible(segments: list[int], i: int, *, causal: bool) -> list[int]:
    return [
        j for j in range(len(segments)) if segments[i] == segments[j] > 0 and (j <= i or not causal)
    ]


def linear_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: list[int], *, causal: bool
) -> Tensor:
    """(N, D) of one row and head to (N, D)."""
    n, dim = queries.shape
    capped = KEY_CAP * torch.tanh(keys / KEY_CAP)
    rows = []
    for i in range(n):
        seen = visible(segments, i, causal=causal)
        row = torch.zeros(dim, dtype=values.dtype)
        for channel in range(dim):
            if not seen:
                continue
            query = queries[i].softmax(-1)[channel]
            weights = torch.stack([capped[j, channel] for j in seen]).softmax(-1)
            for weight, j in zip(weights, seen, strict=True):
                row = row + query * weight * values[j]
        rows.append(row)
    return torch.stack(rows)


def softmax_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: list[int], *, causal: bool
) -> Tensor:
    """(N, D) of one row and head to (N, D)."""
    n, dim = queries.shape
    rows = []
    for i in range(n):
        seen = visible(segments, i, causal=causal)
        row = torch.zeros(dim, dtype=values.dtype)
        if seen:
            logits = [(queries[i] * keys[j]).sum() / dim**0.5 for j in seen]
            for weight, j in zip(torch.stack(logits).softmax(-1), seen, strict=True):
                row = row + weight * values[j]
        rows.append(row)
    return torch.stack(rows)


def by_row_and_head(
    attention: Callable[..., Tensor],
    heads: list[Tensor],
    segments: list[list[int]],
    *,
    causal: bool,
) -> Tensor:
    """(B, H, N, D) heads and (B, N) segments to (B, H, N, D)."""
    return torch.stack(
        [
            torch.stack(
                [
                    attention(*(part[row, head] for part in heads), marks, causal=causal)
                    for head in range(heads[0].shape[1])
                ]
            )
            for row, marks in enumerate(segments)
        ]
    )


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor, segments: list[int], *, causal: bool
) -> Tensor:
    """(N, D) of one row to (N, D); ``weight`` is (K, D)."""
    ahead = 0 if causal else (len(weight) - 1) // 2
    rows = []
    for i in range(len(x)):
        row = torch.zeros_like(bias)
        if segments[i] > 0:
            row = row + bias
            for tap in range(len(weight)):
                j = i + ahead - tap
                if 0 <= j < len(x) and segments[j] == segments[i]:
                    row = row + weight[tap] * x[j]
        rows.append(row)
    return torch.stack(rows)


def positions_from_end(segments: list[int], copies: list[int]) -> list[int]:
    """(N,) segments and copies of one row to (N,)."""
    marks = list(zip(segments, copies, strict=True))
    return [
        sum(later == own for later in marks[place + 1 :]) if own[0] > 0 else 0
        for place, own in enumerate(marks)
    ]
