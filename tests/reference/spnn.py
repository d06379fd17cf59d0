"""SPNN, one head of one position after the other, from the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from blin.batch import View
from blin.models.spnn import SPNNConfig
from reference.attention import positions_from_end
from reference.sasrec import activated, layer_norm, linear, places_by_segment

Weights = Mapping[str, Tensor]


def gap(times: Sequence[int], i: int, places: Sequence[int] | None = None) -> int:
    """How often the time since the item before can be halved, and 1; 0 for none.

    64 where there is no item before, or something lies between the places of the two.
    """
    if i == 0 or (places is not None and places[i] != places[i - 1] + 1):
        return 64
    left, halvings = times[i] - times[i - 1], 0
    while left >= 1:
        left //= 2
        halvings += 1
    return min(halvings, 63)


def span(head: int, num_heads: int, max_len: int, shortest: int) -> int:
    """How many of the newest positions a head sees."""
    if head == num_heads - 1 or shortest >= max_len:
        return max_len
    return int(shortest ** (1 - head / (num_heads - 1)) * max_len ** (head / (num_heads - 1)) + 0.5)


def attention(
    rows: Sequence[Tensor], spans: Sequence[int], weights: Weights, name: str
) -> list[Tensor]:
    """What each of the positions of one segment takes of itself and those before it."""
    projected = [linear(row, weights, f"{name}.qkv") for row in rows]
    return [attended(row, projected[: i + 1], spans, weights, name) for i, row in enumerate(rows)]


def attended(
    newest: Tensor,
    projected: Sequence[Tensor],
    spans: Sequence[int],
    weights: Weights,
    name: str,
) -> Tensor:
    """What the newest of some positions takes."""
    dim, width = len(newest), len(newest) // len(spans)
    logits = linear(newest, weights, f"{name}.gate")
    gates = len(spans) * torch.exp(logits) / torch.exp(logits).sum()
    heads = []
    for head, length in enumerate(spans):
        part = slice(head * width, (head + 1) * width)
        seen = projected[max(0, len(projected) - length) :]
        query = projected[-1][:dim][part]
        shares = [torch.exp((query * row[dim : 2 * dim][part]).sum() / width**0.5) for row in seen]
        taken = torch.zeros_like(query)
        for share, row in zip(shares, seen, strict=True):
            taken = taken + share / sum(shares) * row[2 * dim :][part]
        heads.append(gates[head] * taken)
    return linear(torch.cat(heads), weights, f"{name}.out")


def segment_states(
    items: Sequence[int],
    positions: Sequence[int],
    gaps: Sequence[int],
    weights: Weights,
    config: SPNNConfig,
) -> list[Tensor]:
    """The codes of one segment, the oldest first."""
    sizes = config.num_heads, config.max_len, config.shortest_span
    spans = [span(head, *sizes) for head in range(config.num_heads)]
    rows = []
    for i, item in enumerate(items):
        x = weights["item_embedding.weight"][item]
        x = x + weights["gap_embedding.weight"][gaps[i]]
        if config.positions != "none":
            x = x + weights["position_embedding.weight"][positions[i]]
        rows.append(layer_norm(x, weights, "embedding_norm"))
    for number in range(config.num_blocks):
        name = f"blocks.{number}"
        taken = attention(rows, spans, weights, f"{name}.attention")
        out = []
        for x, a in zip(rows, taken, strict=True):
            x = layer_norm(x + a, weights, f"{name}.attention_norm")
            hidden = activated(linear(x, weights, f"{name}.feed_forward.expand"), config.activation)
            x = x + linear(hidden, weights, f"{name}.feed_forward.contract")
            out.append(layer_norm(x, weights, f"{name}.feed_forward_norm"))
        rows = out
    return [linear(x, weights, "code") for x in rows]


def states(view: View, weights: Weights, config: SPNNConfig) -> Tensor:
    """(B, N, D), zeros on padding; a view without times has an item every moment."""
    found = torch.zeros(*view.items.shape, config.dim, dtype=torch.float64)
    for row, places in places_by_segment(view.segments):
        positions = view.positions[row].tolist()
        if config.positions == "reversed":
            positions = positions_from_end(view.segments[row].tolist(), view.copies[row].tolist())
        items = [int(view.items[row, place]) for place in places]
        times = list(range(len(places)))
        if view.times is not None:
            times = [int(view.times[row, place]) for place in places]
        gaps = [gap(times, i, places) for i in range(len(places))]
        own = segment_states(items, [positions[place] for place in places], gaps, weights, config)
        found[row, places] = torch.stack(own)
    return found


def history_scores(
    history: Sequence[int], times: Sequence[int], weights: Weights, config: SPNNConfig
) -> list[float]:
    """The scores of all items but padding after one history, positions counted in the row."""
    first = config.max_len - len(history)
    positions = [first + step for step in range(len(history))]
    gaps = [gap(times, i) for i in range(len(times))]
    newest = segment_states(history, positions, gaps, weights, config)[-1]
    table = weights["item_embedding.weight"]
    return [float(sum(newest * table[item])) for item in range(1, len(table))]
