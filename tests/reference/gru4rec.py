"""GRU4Rec, one position, one gate and one unit after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def unit(x: Tensor, h: Tensor, weight_x: Tensor, weight_h: Tensor) -> Tensor:
    """The next state of a GRU without biases (Cho et al. 2014, with the reset after the product).

    r = σ(W_r x + U_r h), z = σ(W_z x + U_z h), n = tanh(W_n x + r ⊙ U_n h), h' = (1 - z) n + z h.
    """
    size = len(h)
    following = []
    for i in range(size):
        reset = torch.sigmoid(weight_x[i] @ x + weight_h[i] @ h)
        update = torch.sigmoid(weight_x[size + i] @ x + weight_h[size + i] @ h)
        new = torch.tanh(weight_x[2 * size + i] @ x + reset * (weight_h[2 * size + i] @ h))
        following.append((1 - update) * new + update * h[i])
    return torch.stack(following)


def encode(weights: Mapping[str, Tensor], items: Tensor, segments: Tensor) -> Tensor:
    """(B, N) items and segments to (B, N, D), each state from the beginning of its segment."""
    layers = sum(name.startswith("gru.weight_hh") for name in weights)
    table = weights["item_embedding.weight"]
    rows = []
    for row, marks in zip(items.tolist(), segments.tolist(), strict=True):
        states = []
        for place, mark in enumerate(marks):
            read = [item for item, own in zip(row[: place + 1], marks, strict=False) if own == mark]
            hidden = [table.new_zeros(weights["out.weight"].shape[1]) for _ in range(layers)]
            for item in read if mark > 0 else []:
                x = table[item]
                for layer in range(layers):
                    sides = (weights[f"gru.weight_{side}_l{layer}"] for side in ("ih", "hh"))
                    x = hidden[layer] = unit(x, hidden[layer], *sides)
            states.append(weights["out.weight"] @ hidden[-1] + weights["out.bias"])
        rows.append(torch.stack(states))
    return torch.stack(rows)
