"""MStein, one Gaussian after the other, from its weights by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from blin.batch import Batch, View
from blin.models.mstein import MSteinConfig

Weights = Mapping[str, Tensor]
Gaussian = tuple[Tensor, Tensor]
"""A mean and the diagonal of a covariance, (D,) each."""


def positive(x: Tensor) -> Tensor:
    """The exponential linear unit, plus 1: e^x below 0, x + 1 above."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def distance(one: Gaussian, other: Gaussian) -> Tensor:
    """W², from its definition."""
    means, roots = one[0] - other[0], one[1].sqrt() - other[1].sqrt()
    return (means**2).sum() + (roots**2).sum()


def item(weights: Weights, number: int) -> Gaussian:
    return (
        weights["item_embedding.weight"][number],
        positive(weights["item_covariance.weight"][number]),
    )


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.sum() / len(x)
    scaled = centred / ((centred**2).sum() / len(x) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def states(
    weights: Weights, config: MSteinConfig, items: list[int], positions: list[int]
) -> list[Gaussian]:
    """The states of one sequence."""
    x = []
    for number, position in zip(items, positions, strict=True):
        mean = weights["item_embedding.weight"][number]
        mean = norm(
            weights, "embedding_norms.0", mean + weights["position_embedding.weight"][position]
        )
        cov = weights["item_covariance.weight"][number]
        cov = norm(
            weights, "embedding_norms.1", cov + weights["position_covariance.weight"][position]
        )
        x.append((positive(mean) - 1, positive(cov)))
    for block in range(config.num_blocks):
        x = block_states(weights, f"blocks.{block}", x, config)
    return x


def block_states(
    weights: Weights, name: str, x: list[Gaussian], config: MSteinConfig
) -> list[Gaussian]:
    dim, width = config.dim, config.dim // config.num_heads
    projected = []
    for mean, cov in x:
        means = linear(weights, f"{name}.attention.mean_qkv", mean)
        covs = positive(linear(weights, f"{name}.attention.covariance_qkv", cov))
        thirds = [slice(third * dim, (third + 1) * dim) for third in range(3)]
        projected.append([(means[third], covs[third]) for third in thirds])
    out = []
    for i, before in enumerate(x):
        heads: list[Gaussian] = []
        for head in range(config.num_heads):
            part = slice(head * width, (head + 1) * width)
            query, keys, values = (
                [(mean[part], cov[part]) for mean, cov in (own[p] for own in projected[: i + 1])]
                for p in range(3)
            )
            logits = [-distance(query[i], key) / width**0.5 for key in keys]
            total = sum(logit.exp() for logit in logits)
            shares = [logit.exp() / total for logit in logits]
            heads.append(
                (
                    torch.as_tensor(sum(a * v[0] for a, v in zip(shares, values, strict=True))),
                    torch.as_tensor(sum(a**2 * v[1] for a, v in zip(shares, values, strict=True))),
                )
            )
        streams = []
        for stream, kind in enumerate(("mean", "covariance")):
            attended = torch.cat([head[stream] for head in heads])
            change = linear(weights, f"{name}.attention.{kind}_out", attended)
            y = norm(weights, f"{name}.attention_norms.{stream}", before[stream] + change)
            inner = positive(linear(weights, f"{name}.feed_forwards.{stream}.0", y)) - 1
            change = linear(weights, f"{name}.feed_forwards.{stream}.2", inner)
            streams.append(norm(weights, f"{name}.feed_forward_norms.{stream}", y + change))
        out.append((streams[0], positive(streams[1])))
    return out


def sequences(
    weights: Weights, config: MSteinConfig, view: View
) -> dict[tuple[int, int], Gaussian]:
    """The states of all places of a view that are not padding, row by row."""
    found = {}
    for row, segments in enumerate(view.segments.tolist()):
        for segment in dict.fromkeys(number for number in segments if number > 0):
            places = [place for place, number in enumerate(segments) if number == segment]
            items = [int(view.items[row, place]) for place in places]
            positions = [int(view.positions[row, place]) for place in places]
            for place, state in zip(places, states(weights, config, items, positions), strict=True):
                found[row, place] = state
    return found


def losses(weights: Weights, config: MSteinConfig, batch: Batch) -> dict[str, Tensor]:
    """The parts of the loss of a batch."""
    view = batch.views[0]
    found = sequences(weights, config, view)
    nearer, triangle, total = [], [], 0.0
    for place, state in found.items():
        target = int(view.targets[place])
        if target == 0:
            continue
        weight = 1.0 if view.weights is None else float(view.weights[place])
        total += weight
        for negative in batch.negatives[view.steps[place]].tolist():
            right = distance(state, item(weights, target))
            wrong = distance(state, item(weights, negative))
            apart = distance(item(weights, target), item(weights, negative))
            share = weight / config.num_negatives
            nearer.append(-share * (1 / (1 + (right - wrong).exp())).log())
            triangle.append(share * (right - apart).clamp(min=0))
    parts = {"sequence": torch.stack(nearer).sum() / total}
    parts["pvn"] = torch.stack(triangle).sum() / total
    if batch.augmented:
        parts["contrast"] = contrast(weights, config, batch.augmented)
    return parts


def contrast(weights: Weights, config: MSteinConfig, views: tuple[View, ...]) -> Tensor:
    """InfoNCE of all sequences of two views, one pair after the other."""
    rows: list[list[Gaussian]] = []
    for view in views:
        own: dict[tuple[int, int], list[Gaussian]] = {}
        for (row, place), state in sequences(weights, config, view).items():
            own.setdefault((row, int(view.segments[row, place])), []).append(state)
        rows += own.values()
    terms = []
    for i, one in enumerate(rows):
        logits = {}
        for j, other in enumerate(rows):
            if i == j:
                continue
            apart = torch.zeros((), dtype=torch.float64)
            for offset in range(1, max(len(one), len(other)) + 1):
                here = [row[-offset] for row in (one, other) if offset <= len(row)]
                if len(here) == 2:
                    apart = apart + distance(here[0], here[1])
                else:
                    apart = apart + (here[0][0] ** 2).sum() + here[0][1].sum()
            logits[j] = 1 / (1 + apart) / config.temperature
        partner = (i + len(rows) // 2) % len(rows)
        terms.append(torch.stack(list(logits.values())).logsumexp(0) - logits[partner])
    return torch.stack(terms).mean()
