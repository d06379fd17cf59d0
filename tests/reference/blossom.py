"""BlossomRec, from the mask of all pairs that each path sees, one position after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blin.batch import View
from blin.models.blossomrec import BlossomRecConfig
from reference.sasrec import activated, layer_norm, linear, places_by_segment

Weights = Mapping[str, Tensor]


class Sizes(NamedTuple):
    num_heads: int
    num_kv_heads: int
    block_size: int
    chosen_blocks: int
    window: int


def rotated(x: Tensor, step: int) -> Tensor:
    """(D,) to (D,), channel by channel."""
    half = len(x) // 2
    out = [x[0]] * len(x)
    for c in range(half):
        angle = step * 10_000.0 ** (-c / half)
        out[c] = x[c] * math.cos(angle) - x[c + half] * math.sin(angle)
        out[c + half] = x[c + half] * math.cos(angle) + x[c] * math.sin(angle)
    return torch.stack(out)


def compressed(
    keys: Sequence[Tensor], block: int, group: int, weights: Weights, name: str, sizes: Sizes
) -> Tensor:
    """The key of a block: of the positions that it and the block before it hold."""
    positions = weights[f"{name}.block_positions"][group]
    inputs = []
    for place, position in enumerate(positions):
        step = (block - 1) * sizes.block_size + place
        inputs.append(position if step < 0 else keys[step].detach() + position)
    hidden = linear(torch.cat(inputs), weights, f"{name}.compress.0")
    return linear(activated(hidden, "relu"), weights, f"{name}.compress.2")


def long_mask(scores: Mapping[int, float], i: int, sizes: Sizes) -> list[bool]:
    """What position i sees on the long path, from the scores of the blocks that are over."""
    best = sorted(scores, key=lambda block: (-scores[block], block))[: sizes.chosen_blocks]
    own = i // sizes.block_size
    return [j // sizes.block_size in {*best, own} for j in range(i + 1)]


def short_mask(i: int, sizes: Sizes) -> list[bool]:
    """What position i sees on the short path."""
    return [
        i - j < sizes.window or any(i - j == 2**power for power in range(20)) for j in range(i + 1)
    ]


def weighed(logits: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    shares = torch.stack(list(logits)).softmax(0)
    return sum((w * v for w, v in zip(shares, values, strict=True)), torch.zeros_like(values[0]))


def attention(rows: Sequence[Tensor], weights: Weights, name: str, sizes: Sizes) -> list[Tensor]:
    """What the positions of one segment take from those before them: (D,) each, after the output.

    Without a local branch.
    """
    dim = len(rows[0])
    width = dim // sizes.num_heads
    shared = sizes.num_heads // sizes.num_kv_heads
    projected = [linear(row, weights, f"{name}.qkv") for row in rows]
    memory_keys, memory_values = weights[f"{name}.memory"]
    mixed = [torch.zeros(0, dtype=rows[0].dtype) for _ in rows]
    for head in range(sizes.num_heads):
        group = head // shared

        def queries_of(i: int, which: int) -> Tensor:
            return projected[i][which * width :][:width]

        keys = [
            rotated(row[dim + group * width :][:width], step) for step, row in enumerate(projected)
        ]
        begin = dim + (sizes.num_kv_heads + group) * width
        values = [row[begin:][:width] for row in projected]
        closed = [
            compressed(keys, block, group, weights, name, sizes)
            for block in range((len(rows) - 1) // sizes.block_size)
        ]
        for i, row in enumerate(rows):
            query = rotated(queries_of(i, head), i)
            team = [
                rotated(queries_of(i, which), i)
                for which in range(group * shared, (group + 1) * shared)
            ]
            mean = (sum(team[1:], team[0]) / shared).detach()
            scores = {
                block: (mean * closed[block]).sum() / width**0.5
                for block in range(i // sizes.block_size)
            }
            seen = long_mask({block: float(s.detach()) for block, s in scores.items()}, i, sizes)
            logits = [(queries_of(i, head) * memory_keys[group]).sum() / width**0.5]
            found = [memory_values[group]]
            for j in range(i + 1):
                if seen[j]:
                    logit = (query * keys[j]).sum() / width**0.5
                    score = scores.get(j // sizes.block_size)
                    # Nothing is added; but the score is given the gradient.
                    logits.append(logit if score is None else logit + (score - score.detach()))
                    found.append(values[j])
            long = weighed(logits, found)
            near = [j for j, sees in enumerate(short_mask(i, sizes)) if sees]
            short = weighed(
                [(query * keys[j]).sum() / width**0.5 for j in near], [values[j] for j in near]
            )
            gates = [
                torch.sigmoid(
                    (weights[f"{name}.gate_weight"][place] * row).sum()
                    + weights[f"{name}.gate_bias"][place]
                )
                for place in (head, sizes.num_heads + head)
            ]
            mixed[i] = torch.cat([mixed[i], gates[0] * long + gates[1] * short])
    return [linear(row, weights, f"{name}.out") for row in mixed]


def attended(x: Tensor, segments: Tensor, weights: Weights, name: str, sizes: Sizes) -> Tensor:
    """(B, N, D) of a batch to (B, N, D), zeros on padding."""
    found = torch.zeros_like(x)
    for row, places in places_by_segment(segments):
        own = attention([x[row, place] for place in places], weights, name, sizes)
        found[row, places] = torch.stack(own)
    return found


def segment_states(
    items: Sequence[int], weights: Weights, config: BlossomRecConfig
) -> list[Tensor]:
    """The states of one segment, the oldest first; without a position embedding."""
    sizes = Sizes(
        config.num_heads,
        config.num_kv_heads,
        config.block_size,
        config.chosen_blocks,
        config.window,
    )
    table = weights["item_embedding.weight"]
    rows = [layer_norm(table[item], weights, "embedding_norm") for item in items]
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        taken = attention(rows, weights, f"{name}.attention", sizes)
        rows = [
            layer_norm(x + a, weights, f"{name}.attention_norm")
            for x, a in zip(rows, taken, strict=True)
        ]
        hidden = [
            activated(linear(x, weights, f"{name}.feed_forward.expand"), config.activation)
            for x in rows
        ]
        rows = [
            layer_norm(
                x + linear(h, weights, f"{name}.feed_forward.contract"),
                weights,
                f"{name}.feed_forward_norm",
            )
            for x, h in zip(rows, hidden, strict=True)
        ]
    return rows


def states(view: View, weights: Weights, config: BlossomRecConfig) -> Tensor:
    """(B, N, D), zeros on padding."""
    found = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, places in places_by_segment(view.segments):
        own = segment_states([int(view.items[row, place]) for place in places], weights, config)
        found[row, places] = torch.stack(own)
    return found
