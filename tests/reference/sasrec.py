"""SASRec, one position after the other, from the weights of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from blin.batch import View
from blin.models.encoder import EncoderConfig
from blin.models.sasrec import SASRecConfig
from reference.attention import positions_from_end, softmax_attention

Weights = Mapping[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(E,) to (D,): W x + b, without b where there is none."""
    out = torch.stack([(row * x).sum() for row in weights[f"{name}.weight"]])
    bias = weights.get(f"{name}.bias")
    return out if bias is None else out + bias


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(D,) to (D,)."""
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return (x - mean) / (variance + 1e-5) ** 0.5 * weights[f"{name}.weight"] + weights[
        f"{name}.bias"
    ]


def activated(x: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return x * (x > 0)
    if activation == "silu":
        return x / (1 + torch.exp(-x))
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(rows: Sequence[Tensor], weights: Weights, name: str, num_heads: int) -> list[Tensor]:
    """What each of the positions of one segment takes from itself and those before it."""
    projected = torch.stack([linear(row, weights, f"{name}.qkv") for row in rows])
    dim = projected.shape[1] // 3
    width = dim // num_heads
    heads = []
    for head in range(num_heads):
        parts = (projected[:, part * dim + head * width :][:, :width] for part in range(3))
        heads.append(softmax_attention(*parts, [1] * len(rows), causal=True))
    return [linear(row, weights, f"{name}.out") for row in torch.cat(heads, dim=1)]


def block(
    rows: Sequence[Tensor],
    weights: Weights,
    name: str,
    attend: Callable[[Sequence[Tensor]], list[Tensor]],
    *,
    norm_first: bool,
    activation: str,
) -> list[Tensor]:
    """What comes out of a residual block around an attention."""

    def norm(x: Tensor, branch: str) -> Tensor:
        return layer_norm(x, weights, f"{name}.{branch}_norm")

    def feed_forward(x: Tensor) -> Tensor:
        hidden = linear(x, weights, f"{name}.feed_forward.expand")
        return linear(activated(hidden, activation), weights, f"{name}.feed_forward.contract")

    entering = [norm(x, "attention") for x in rows] if norm_first else rows
    sums = [x + a for x, a in zip(rows, attend(entering), strict=True)]
    if norm_first:
        return [x + feed_forward(norm(x, "feed_forward")) for x in sums]
    normed = [norm(x, "attention") for x in sums]
    return [norm(x + feed_forward(x), "feed_forward") for x in normed]


def segment_states(
    items: Sequence[int], positions: Sequence[int], weights: Weights, config: SASRecConfig
) -> list[Tensor]:
    """The states of one segment, the oldest first."""
    rows = []
    for item, position in zip(items, positions, strict=True):
        x = weights["item_embedding.weight"][item]
        if config.positions != "none":
            x = x + weights["position_embedding.weight"][position]
        rows.append(layer_norm(x, weights, "embedding_norm"))
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        rows = block(
            rows,
            weights,
            name,
            lambda x, name=name: attention(x, weights, f"{name}.attention", config.num_heads),
            norm_first=config.norm_first,
            activation=config.activation,
        )
    if config.norm_first:
        rows = [layer_norm(x, weights, "final_norm") for x in rows]
    return rows


def places_by_segment(segments: Tensor) -> list[tuple[int, list[int]]]:
    """The row and the places of each segment of a (B, N) view."""
    return [
        (row, [place for place, found in enumerate(marks) if found == mark])
        for row, marks in enumerate(segments.tolist())
        for mark in sorted(set(marks) - {0})
    ]


def states_by_segment(
    view: View,
    config: EncoderConfig,
    states_of: Callable[[list[int], list[int]], Sequence[Tensor]],
) -> Tensor:
    """(B, N, D), zeros on padding; ``states_of`` the items and positions of a segment."""
    found = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, places in places_by_segment(view.segments):
        positions = view.positions[row].tolist()
        if config.positions == "reversed":
            positions = positions_from_end(view.segments[row].tolist(), view.copies[row].tolist())
        items = [int(view.items[row, place]) for place in places]
        own = states_of(items, [positions[place] for place in places])
        found[row, places] = torch.stack(list(own))
    return found


def states(view: View, weights: Weights, config: SASRecConfig) -> Tensor:
    """(B, N, D), zeros on padding."""
    return states_by_segment(view, config, lambda *own: segment_states(*own, weights, config))


def history_positions(length: int, config: EncoderConfig) -> list[int]:
    """The positions of a history that stands at the right end of its row."""
    return {
        "absolute": [config.max_len - length + step for step in range(length)],
        "per-copy": list(range(length)),
        "reversed": [length - 1 - step for step in range(length)],
        "none": [0] * length,
    }[config.positions]


def history_scores(history: Sequence[int], weights: Weights, config: SASRecConfig) -> list[float]:
    """The scores of all items but padding after one history."""
    positions = history_positions(len(history), config)
    newest = segment_states(history, positions, weights, config)[-1]
    table = weights["item_embedding.weight"]
    return [float(sum(newest * table[item])) for item in range(1, len(table))]
