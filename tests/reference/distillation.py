"""What a distilled student learns by, one user, step and layer after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def sparsemax(scores: Sequence[float]) -> list[float]:
    """The nearest point of the simplex: by trying every set of what may be above 0."""
    best: list[float] | None = None
    least = math.inf
    for count in range(1, len(scores) + 1):
        for chosen in itertools.combinations(range(len(scores)), count):
            threshold = (sum(scores[i] for i in chosen) - 1) / count
            point = [scores[i] - threshold if i in chosen else 0.0 for i in range(len(scores))]
            apart = sum((p - z) ** 2 for p, z in zip(point, scores, strict=True))
            if min(point) >= 0 and apart < least:
                best, least = point, apart
    assert best is not None
    return best


def sparse_weights(scores: Tensor) -> Tensor:
    """Sparsemax of (N,) scores, with its gradient: the highest that stay above their threshold."""
    values = scores.tolist()
    order = sorted(range(len(values)), key=lambda i: -values[i])
    for count in range(len(order), 0, -1):
        chosen = order[:count]
        threshold = (sum(scores[i] for i in chosen) - 1) / count
        if values[chosen[-1]] > threshold.item():
            return torch.stack(
                [scores[i] - threshold if i in chosen else 0 * scores[i] for i in range(len(order))]
            )
    raise AssertionError("nothing is chosen")


def normed(x: Tensor) -> Tensor:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / (variance + 1e-5) ** 0.5


def mapped(x: Tensor, weights: Mapping[str, Tensor], name: str, layer: int) -> Tensor:
    matrix, bias = weights[f"{name}.weight"][layer], weights[f"{name}.bias"][layer]
    row = normed(x)
    return torch.stack([(row * matrix[:, k]).sum() + bias[k] for k in range(matrix.shape[1])])


def losses(
    teacher: Sequence[Sequence[Sequence[Tensor]]],
    student: Sequence[Sequence[Sequence[Tensor]]],
    targets: Sequence[int],
    items: Tensor,
    weights: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """The distance and the loss of the detector.

    Args:
        teacher: for each user, step and layer the feature.
        student: for each user, step and layer of the student its feature.
        targets: of each user the newest.
        items: (V + 1, D), the teacher's embeddings.
        weights: of the wrapper, by name.
    """
    layers = len(teacher[0][0])
    own_layers = len(student[0][0])
    keys = [
        torch.stack(
            [
                (weights["detector.items.weight"][k] * items[target]).sum()
                + weights["detector.items.bias"][k]
                for k in range(len(weights["detector.items.bias"]))
            ]
        )
        for target in targets
    ]
    distance = told = torch.zeros((), dtype=torch.float64)
    for user, steps in enumerate(teacher):
        places = [(step, layer) for step in range(len(steps)) for layer in range(layers)]
        scores = []
        for step, layer in places:
            hidden = torch.tanh(mapped(steps[step][layer], weights, "detector.hidden", layer))
            scores.append((weights["detector.score"][layer] * hidden).sum())
        shares = sparse_weights(torch.stack(scores))
        pooled = torch.zeros_like(keys[0])
        for share, (step, layer) in zip(shares, places, strict=True):
            known = mapped(steps[step][layer], weights, "detector.knowledge", layer)
            pooled = pooled + share * known
            depth = own_layers - 1
            if layers > 1:
                depth = math.floor(layer * (own_layers - 1) / (layers - 1) + 0.5)
            learned = mapped(student[user][step][depth], weights, "embeddings", layer)
            constant = known.detach()
            gap = learned / learned.norm() - constant / constant.norm()
            distance = distance + share.detach() * (gap * gap).sum() / len(teacher)
        others = [
            (pooled * key).sum()
            for other, key in enumerate(keys)
            if other == user or targets[other] != targets[user]
        ]
        chance = torch.exp((pooled * keys[user]).sum()) / sum(torch.exp(each) for each in others)
        told = told - torch.log(chance) / len(teacher)
    return distance, told


def cut(
    row: Mapping[str, Sequence[int]],
    cut_steps: Sequence[bool],
    begins: Sequence[bool],
    *,
    max_len: int,
    positions: str,
) -> list[tuple[int, int]]:
    """Of a row, for each place the number of its piece, 0 for padding, and its position."""
    pieces: list[list[int]] = []
    before = 0
    for place, (segment, step) in enumerate(zip(row["segments"], row["steps"], strict=True)):
        if segment == 0:
            before = 0
            continue
        if segment != before or (cut_steps[step] and begins[step]):
            pieces.append([])
        pieces[-1].append(place)
        before = segment
    found = [(0, row["positions"][place]) for place in range(len(row["segments"]))]
    for number, piece in enumerate(pieces):
        for nth, place in enumerate(piece):
            position = row["positions"][place]
            if cut_steps[row["steps"][place]]:
                position = nth if positions == "per-copy" else max_len - len(piece) + nth
            found[place] = (number + 1, position)
    return found
