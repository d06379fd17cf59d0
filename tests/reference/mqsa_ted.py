"""MQSA-TED, one position after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import View
from blin.models.mqsa_ted import MQSATEDConfig
from reference.attention import softmax_attention
from reference.sasrec import Weights, activated, layer_norm, linear, states_by_segment


def means_of_newest(rows: Sequence[Tensor], window: int) -> list[Tensor]:
    """For each position of a segment the mean of itself and those before it, ``window`` in all."""
    means = []
    for place in range(len(rows)):
        newest = rows[max(0, place - window + 1) : place + 1]
        means.append(torch.stack(list(newest)).sum(0) / len(newest))
    return means


def block(
    rows: Sequence[Tensor], weights: Weights, name: str, config: MQSATEDConfig, window: int
) -> list[Tensor]:
    """What comes out of a block, for the positions of one segment."""
    asking = [
        layer_norm(mean, weights, f"{name}.query_norm") for mean in means_of_newest(rows, window)
    ]
    queries = torch.stack([linear(x, weights, f"{name}.query") for x in asking])
    projected = torch.stack([linear(x, weights, f"{name}.key_value") for x in rows])
    keys, values = projected[:, : config.dim], projected[:, config.dim :]
    width = config.dim // config.num_heads
    heads = []
    for head in range(config.num_heads):
        own = slice(head * width, (head + 1) * width)
        parts = (queries[:, own], keys[:, own], values[:, own])
        heads.append(softmax_attention(*parts, [1] * len(rows), causal=True))
    out = []
    for x, attended in zip(asking, torch.cat(heads, dim=1), strict=True):
        inner = layer_norm(x + attended, weights, f"{name}.feed_forward_norm")
        hidden = activated(linear(inner, weights, f"{name}.feed_forward.expand"), "relu")
        out.append(inner + linear(hidden, weights, f"{name}.feed_forward.contract"))
    return out


def segment_states(
    items: Sequence[int], positions: Sequence[int], weights: Weights, config: MQSATEDConfig
) -> list[Tensor]:
    """The states of one segment, the oldest first."""
    embedded = [
        config.dim**0.5 * weights["item_embedding.weight"][item]
        + (weights["position_embedding.weight"][position] if config.positions != "none" else 0)
        for item, position in zip(items, positions, strict=True)
    ]
    short, long = embedded, embedded
    for number in range(config.num_blocks):
        short = block(short, weights, f"blocks.{number}", config, 1)
        long = block(long, weights, f"long_blocks.{number}", config, config.window)
    return [
        config.alpha * layer_norm(one, weights, "final_norm")
        + (1 - config.alpha) * layer_norm(other, weights, "long_final_norm")
        for one, other in zip(short, long, strict=True)
    ]


def states(view: View, weights: Weights, config: MQSATEDConfig) -> Tensor:
    """(B, N, D), zeros on padding."""
    return states_by_segment(view, config, lambda *own: segment_states(*own, weights, config))
