"""eSASRec, one position after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import View
from blin.models.esasrec import ESASRecConfig
from reference.attention import positions_from_end
from reference.sasrec import Weights, attention, layer_norm, linear, places_by_segment


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def swiglu(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(D,) to (D,)."""
    gate = linear(x, weights, f"{name}.gate")
    hidden = gate * sigmoid(gate) * linear(x, weights, f"{name}.expand")
    return linear(hidden, weights, f"{name}.contract")


def block(rows: Sequence[Tensor], weights: Weights, name: str, num_heads: int) -> list[Tensor]:
    """What comes out of a block, for the positions of one segment."""
    normed = [layer_norm(x, weights, f"{name}.attention_norm") for x in rows]
    attended = attention(normed, weights, f"{name}.attention", num_heads)
    out = []
    for x, found in zip(rows, attended, strict=True):
        x = x + sigmoid(linear(x, weights, f"{name}.attention_gate")) * found
        inner = layer_norm(x, weights, f"{name}.feed_forward_norm")
        fed = swiglu(inner, weights, f"{name}.feed_forward")
        out.append(x + sigmoid(linear(x, weights, f"{name}.feed_forward_gate")) * fed)
    return out


def states(view: View, weights: Weights, config: ESASRecConfig) -> Tensor:
    """(B, N, D), zeros on padding; positions count from the end."""
    found = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, places in places_by_segment(view.segments):
        counted = positions_from_end(view.segments[row].tolist(), view.copies[row].tolist())
        own = [
            weights["item_embedding.weight"][int(view.items[row, place])]
            + weights["position_embedding.weight"][counted[place]]
            for place in places
        ]
        for number in range(config.num_blocks):
            own = block(own, weights, f"blocks.{number}", config.num_heads)
        found[row, places] = torch.stack(own)
    return found
