"""Caser, one position, one filter and one place of it after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from blin.models.caser import CaserConfig

Weights = Mapping[str, Tensor]


def image(
    items: list[int], segments: list[int], place: int, weights: Weights, window: int
) -> list[Tensor]:
    """The embeddings of the L positions up to one, the oldest first; zeros for what is not seen."""
    table = weights["item_embedding.weight"]
    rows = []
    for other in range(place - window + 1, place + 1):
        seen = other >= 0 and segments[other] == segments[place] > 0
        rows.append(table[items[other]] if seen else torch.zeros_like(table[0]))
    return rows


def state(rows: list[Tensor], weights: Weights, config: CaserConfig) -> Tensor:
    """The state of one image (section 3.2 of the paper, without the user)."""
    features = []
    for channel in range(config.dim):
        for filter_ in range(config.vertical):
            column = weights["vertical.bias"][filter_]
            for number, row in enumerate(rows):
                column = column + weights["vertical.weight"][filter_, number] * row[channel]
            features.append(column)
    for height in range(1, config.window + 1):
        name = f"horizontal.{height - 1}"
        for filter_ in range(config.horizontal):
            found = []
            for top in range(config.window - height + 1):
                value = weights[f"{name}.bias"][filter_]
                for step in range(height):
                    value = value + weights[f"{name}.weight"][filter_, :, step] @ rows[top + step]
                found.append(torch.clamp(value, min=0.0))
            features.append(torch.stack(found).max())
    joined = torch.stack(features)
    return torch.clamp(weights["out.weight"] @ joined + weights["out.bias"], min=0.0)


def encode(weights: Weights, items: Tensor, segments: Tensor, config: CaserConfig) -> Tensor:
    """(B, N) items and segments to (B, N, D)."""
    return torch.stack(
        [
            torch.stack(
                [
                    state(image(row, marks, place, weights, config.window), weights, config)
                    for place in range(len(row))
                ]
            )
            for row, marks in zip(items.tolist(), segments.tolist(), strict=True)
        ]
    )


def scores(state: Tensor, weights: Weights) -> Tensor:
    """The scores of padding and all items."""
    table, bias = weights["output_embedding.weight"], weights["item_bias"]
    return torch.stack([state @ item + own for item, own in zip(table, bias, strict=True)])
