"""Blin (Eq. 5-14), one position and one channel after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from blin.batch import View
from blin.models.blin import BlinConfig
from reference.attention import (
    convolution,
    linear_attention,
    positions_from_end,
    softmax_attention,
)
from reference.sasrec import Weights, block, history_positions, layer_norm, linear

OPERATORS = {"linear": linear_attention, "softmax": softmax_attention}


def attention(
    rows: Sequence[Tensor], segments: list[int], weights: Weights, name: str, config: BlinConfig
) -> list[Tensor]:
    """Eq. 10 and 11: what the heads take, and what the convolution makes of the values."""
    projected = torch.stack([linear(row, weights, f"{name}.qkv") for row in rows])
    queries, keys, values = projected.split(config.dim, dim=1)
    operator = OPERATORS[config.attention]
    width = config.dim // config.num_heads
    heads = []
    for head in range(config.num_heads):
        own = (part[:, head * width :][:, :width] for part in (queries, keys, values))
        heads.append(operator(*own, segments, causal=config.causal))
    mixed = torch.cat(heads, dim=1)
    if config.kernel_size > 0:
        taps, bias = weights[f"{name}.local.weight"], weights[f"{name}.local.bias"]
        mixed = mixed + convolution(values, taps, bias, segments, causal=config.causal)
    return [linear(row, weights, f"{name}.out") for row in mixed]


def row_states(
    items: Sequence[int],
    positions: Sequence[int],
    segments: list[int],
    weights: Weights,
    config: BlinConfig,
) -> list[Tensor]:
    """The states of all places of one row; those of padding mean nothing."""
    rows = []
    for item, position in zip(items, positions, strict=True):
        x = weights["item_embedding.weight"][item]
        if config.positions != "none":
            x = x + weights["position_embedding.weight"][min(position, config.max_len - 1)]
        rows.append(layer_norm(x, weights, "embedding_norm"))
    for number in range(config.num_blocks):
        attend = partial(
            attention,
            segments=segments,
            weights=weights,
            name=f"blocks.{number}.attention",
            config=config,
        )
        rows = block(
            rows,
            weights,
            f"blocks.{number}",
            attend,
            norm_first=config.norm_first,
            activation=config.activation,
        )
    return [layer_norm(x, weights, "final_norm") for x in rows] if config.norm_first else rows


def states(view: View, weights: Weights, config: BlinConfig) -> Tensor:
    """(B, N, D), zeros on padding."""
    found = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, segments in enumerate(view.segments.tolist()):
        positions = view.positions[row].tolist()
        if config.positions == "reversed":
            positions = positions_from_end(segments, view.copies[row].tolist())
        own = row_states(view.items[row].tolist(), positions, segments, weights, config)
        real = [place for place, segment in enumerate(segments) if segment > 0]
        found[row, real] = torch.stack([own[place] for place in real])
    return found


def history_states(history: Sequence[int], weights: Weights, config: BlinConfig) -> list[Tensor]:
    """The states of all items of one history."""
    positions = history_positions(len(history), config)
    return row_states(history, positions, [1] * len(history), weights, config)


def history_scores(history: Sequence[int], weights: Weights, config: BlinConfig) -> list[float]:
    """The scores of all items but padding after one history (Eq. 14)."""
    newest = history_states(history, weights, config)[-1]
    table = weights["item_embedding.weight"]
    return [float(sum(newest * table[item])) for item in range(1, len(table))]
