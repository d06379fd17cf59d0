"""Causal linear attention and gated convolution, one scalar at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from blin.nn.attention.linear import KEY_CAP


def visible(segments: list[int], i: int, j: int) -> bool:
    return j <= i and segments[i] == segments[j] and segments[i] > 0


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor, segments: list[int]) -> Tensor:
    """(N, D) of one row and head to (N, D)."""
    n, dim = queries.shape
    capped = KEY_CAP * torch.tanh(keys / KEY_CAP)
    rows = []
    for i in range(n):
        seen = [j for j in range(n) if visible(segments, i, j)]
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


def convolution(x: Tensor, weight: Tensor, bias: Tensor, segments: list[int]) -> Tensor:
    """(N, D) of one row to (N, D); ``weight`` is (K, D)."""
    rows = []
    for i in range(len(x)):
        row = torch.zeros_like(bias)
        if segments[i] > 0:
            row = row + bias
            for lag in range(len(weight)):
                if i >= lag and segments[i - lag] == segments[i]:
                    row = row + weight[lag] * x[i - lag]
        rows.append(row)
    return torch.stack(rows)
