"""TiSASRec, one pair of positions after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import View
from blin.models.tisasrec import TiSASRecConfig
from reference.attention import positions_from_end
from reference.sasrec import Weights, layer_norm, linear


def interval(times: Sequence[int], i: int, j: int, *, most: int) -> int:
    """How many of the shortest gaps up to i fit between i and an earlier j."""
    gaps = [abs(a - b) for a in times[: i + 1] for b in times[: i + 1] if a != b]
    return min(abs(times[i] - times[j]) // min(gaps), most) if gaps else 0


def segment_states(
    items: Sequence[int],
    positions: Sequence[int],
    times: Sequence[int],
    weights: Weights,
    config: TiSASRecConfig,
) -> list[Tensor]:
    """The states of one segment."""
    table = weights["item_embedding.weight"]
    rows = [table[item] * config.dim**0.5 for item in items]
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        normed = [layer_norm(row, weights, f"{name}.attention_norm") for row in rows]
        projected = [linear(row, weights, f"{name}.attention.qkv") for row in normed]
        out = []
        for i, row in enumerate(rows):
            heads = [
                attended(projected, positions, times, i, head, weights, config)
                for head in range(config.num_heads)
            ]
            x = row + torch.cat(heads)
            inner = layer_norm(x, weights, f"{name}.feed_forward_norm")
            hidden = linear(inner, weights, f"{name}.feed_forward.expand").clamp(min=0)
            out.append(x + linear(hidden, weights, f"{name}.feed_forward.contract"))
        rows = out
    return [layer_norm(row, weights, "final_norm") for row in rows]


def attended(
    projected: Sequence[Tensor],
    positions: Sequence[int],
    times: Sequence[int],
    i: int,
    head: int,
    weights: Weights,
    config: TiSASRecConfig,
) -> Tensor:
    """What one head of position i takes from itself and those before it."""
    dim, width = config.dim, config.dim // config.num_heads
    part = slice(head * width, (head + 1) * width)
    query = projected[i][:dim][part]
    logits, values = [], []
    for j in range(i + 1):
        r = interval(times, i, j, most=config.max_interval)
        key = projected[j][dim : 2 * dim][part]
        position_key = weights["position_keys.weight"][positions[j]][part]
        interval_key = weights["interval_keys.weight"][r][part]
        products = (query * key).sum() + (query * position_key).sum() + (query * interval_key).sum()
        logits.append(products / width**0.5)
        value = projected[j][2 * dim :][part]
        position_value = weights["position_values.weight"][positions[j]][part]
        values.append(value + position_value + weights["interval_values.weight"][r][part])
    shares = torch.stack(logits).softmax(0)
    return torch.stack([w * value for w, value in zip(shares, values, strict=True)]).sum(0)


def states(view: View, weights: Weights, config: TiSASRecConfig) -> Tensor:
    """(B, N, D): those of each segment by itself, 0 for padding."""
    assert view.times is not None
    rows = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, segments in enumerate(view.segments.tolist()):
        for segment in sorted({number for number in segments if number > 0}):
            places = [place for place, number in enumerate(segments) if number == segment]
            items, positions, times = (
                [int(part[row, place]) for place in places]
                for part in (view.items, view.positions, view.times)
            )
            if config.positions == "reversed":
                copies = [int(view.copies[row, place]) for place in places]
                positions = positions_from_end([segment] * len(places), copies)
            found = segment_states(items, positions, times, weights, config)
            for place, state in zip(places, found, strict=True):
                rows[row, place] = state
    return rows
