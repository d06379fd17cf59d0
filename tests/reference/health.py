"""The health of a dataset in plain Python, straight from the definitions."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

Sequences = list[list[int]]


def targets_of(sequences: Sequences, splits: list[list[int]], part: int) -> list[tuple[int, int]]:
    """(user, step) of each user's first item of validation (0) or test (1) with a history."""
    found = []
    for user, sequence in enumerate(sequences):
        cuts = [*splits[user], len(sequence)]
        if 0 < cuts[part] < cuts[part + 1]:
            found.append((user, cuts[part]))
    return found


def health(
    sequences: Sequences,
    splits: list[list[int]],
    times: list[list[int]] | None,
    luck: list[float],
    num_items: int,
) -> dict[str, Any]:
    training = [(user, step) for user in range(len(sequences)) for step in range(splits[user][0])]
    trained = Counter(sequences[user][step] for user, step in training)

    def summary(part: int) -> dict[str, Any]:
        targets = targets_of(sequences, splits, part)
        leaking = newer = None
        if times is not None:
            leaking = newer = 0
            for user, step in targets:
                time = times[user][step]
                others = [times[other][at] for other, at in training if other != user]
                leaking += any(other > time for other in others)
                newer += sum(slice_of(other, times) > slice_of(time, times) for other in others)
        return {
            "count": len(targets),
            "cold": sum(sequences[user][step] not in trained for user, step in targets),
            "leaking": leaking,
            "newer_pairs": newer,
        }

    ranks = []
    for user, step in targets_of(sequences, splits, 1):
        target, history = sequences[user][step], set(sequences[user][:step])
        others = [item for item in range(1, num_items + 1) if item not in history | {target}]
        above = sum(trained[item] > trained[target] for item in others)
        level = sum(trained[item] == trained[target] for item in others)
        ranks.append(1 + above + math.floor(luck[user] * (level + 1)))

    counts = Counter(item for sequence in sequences for item in sequence)
    popularity = sorted(counts[item] for item in range(1, num_items + 1))
    differences = sum(abs(a - b) for a in popularity for b in popularity)
    return {
        "training": len(training),
        "valid": summary(0),
        "test": summary(1),
        "popularity_ranks": ranks,
        "lengths": distribution([len(sequence) for sequence in sequences]),
        "popularity": distribution(popularity),
        "gini": differences / (2 * num_items * sum(popularity)),
        "top": [sum(popularity[-math.ceil(num_items / share) :]) for share in (100, 10)],
    }


def slice_of(time: int, times: list[list[int]]) -> int:
    """The time is cut into slices as wide as the smallest power of two that makes at most 1,024."""
    moments = [moment for history in times for moment in history]
    width = 1
    while (max(moments) - min(moments)) // width >= 1024:
        width *= 2
    return (time - min(moments)) // width


def distribution(numbers: list[int]) -> list[int]:
    """The smallest, the largest, and the smallest that is not below a share of all, between."""
    ordered = sorted(numbers)
    shares = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    return [
        next(
            x
            for x in ordered
            if 1000 * sum(y <= x for y in ordered) >= round(1000 * q) * len(ordered)
        )
        for q in shares
    ]
