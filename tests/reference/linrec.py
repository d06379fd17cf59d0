"""LinRec, one position and one channel after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from blin.models.linrec import LinRecConfig
from reference.attention import visible
from reference.sasrec import activated, layer_norm, linear

Weights = Mapping[str, Tensor]

EPSILON = 1e-6


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.exp(x) - 1)


def linrec_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: list[int], *, causal: bool
) -> Tensor:
    """(N, D) of one row and head to (N, D)."""
    n, dim = queries.shape
    rows = []
    for i in range(n):
        seen = visible(segments, i, causal=causal)
        query = elu(queries[i]) / (sum(elu(x) ** 2 for x in queries[i]) + EPSILON) ** 0.5
        row = torch.zeros(dim, dtype=values.dtype)
        for channel in range(dim):
            length = (sum(elu(keys[j, channel]) ** 2 for j in seen) + EPSILON) ** 0.5
            for j in seen:
                weight = query[channel] * elu(keys[j, channel]) / length
                row = row + weight * values[j] / dim**0.5
        rows.append(row)
    return torch.stack(rows)


def states(
    items: Sequence[int], positions: Sequence[int], weights: Weights, config: LinRecConfig
) -> list[Tensor]:
    """The states of the positions of one segment."""
    width = config.dim // config.num_heads
    rows = []
    for item, position in zip(items, positions, strict=True):
        x = weights["item_embedding.weight"][item] + weights["position_embedding.weight"][position]
        rows.append(layer_norm(x, weights, "embedding_norm"))
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        projected = torch.stack([linear(x, weights, f"{name}.attention.qkv") for x in rows])
        heads = [
            linrec_attention(
                *(
                    part[:, head * width :][:, :width]
                    for part in projected.split(config.dim, dim=1)
                ),
                [1] * len(rows),
                causal=config.causal,
            )
            for head in range(config.num_heads)
        ]
        attended = torch.cat(heads, dim=1)
        for place, (x, mixed) in enumerate(zip(rows, attended, strict=True)):
            summed = x + linear(mixed, weights, f"{name}.attention.out")
            x = layer_norm(summed, weights, f"{name}.attention_norm")
            hidden = activated(linear(x, weights, f"{name}.feed_forward.expand"), config.activation)
            added = x + linear(hidden, weights, f"{name}.feed_forward.contract")
            rows[place] = layer_norm(added, weights, f"{name}.feed_forward_norm")
    return rows
