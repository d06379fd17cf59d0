"""The baselines by their definitions, over lists of training sequences; index 0 is padding."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

Sequences = list[list[int]]


def popularity(sequences: Sequences, num_items: int) -> list[float]:
    counts = Counter(item for sequence in sequences for item in sequence)
    return [float(counts[item]) for item in range(num_items + 1)]


def shares(sequences: Sequences, num_items: int) -> list[float]:
    """What decides between items that are otherwise equal: below 1 for all."""
    counts = popularity(sequences, num_items)
    return [count / (sum(counts) + 1) for count in counts]


def recent_popularity(
    sequences: Sequences, times: Sequences, num_items: int, *, window: float
) -> list[float]:
    moments = [time for row in times for time in row]
    since = max(moments) - int(window * (max(moments) - min(moments)))
    recent = [
        [item for item, time in zip(items, moments, strict=True) if time >= since]
        for items, moments in zip(sequences, times, strict=True)
    ]
    scores = popularity(recent, num_items)
    return [
        score + share for score, share in zip(scores, shares(sequences, num_items), strict=True)
    ]


def markov(sequences: Sequences, num_items: int, history: list[int]) -> list[float]:
    pairs = Counter(pair for sequence in sequences for pair in pairwise(sequence))
    scores = shares(sequences, num_items)
    if history:
        for item in range(num_items + 1):
            scores[item] += pairs[history[-1], item]
    return scores


def similarities(
    sequences: Sequences,
    num_items: int,
    *,
    neighbours: int,
    max_distance: int,
    distance_decay: float,
    backward: float,
    shrinkage: float,
) -> dict[int, dict[int, float]]:
    """For each item the items kept with it, and how similar they are."""
    counts = popularity(sequences, num_items)
    together: Counter[tuple[int, int]] = Counter()
    for sequence in sequences:
        for p, one in enumerate(sequence):
            for q, other in enumerate(sequence):
                if one != other and 0 < abs(q - p) <= max_distance:
                    weight = distance_decay ** (abs(q - p) - 1) * (1 if q > p else backward)
                    if weight > 0:
                        together[one, other] += weight  # type: ignore[assignment]
    kept: dict[int, dict[int, float]] = {item: {} for item in range(num_items + 1)}
    for (one, other), weight in together.items():
        kept[one][other] = weight / (math.sqrt(counts[one] * counts[other]) + shrinkage)
    for item, row in kept.items():
        best = sorted(row, key=lambda other: (-row[other], other))[:neighbours]
        kept[item] = {other: row[other] for other in best}
    return kept


def item_knn(
    sequences: Sequences,
    num_items: int,
    history: list[int],
    *,
    max_len: int,
    recency_decay: float,
    **settings: float,
) -> list[float]:
    kept = similarities(sequences, num_items, **settings)  # type: ignore[arg-type]
    least = min((value for row in kept.values() for value in row.values()), default=1.0)
    least *= recency_decay ** (max_len - 1) * 2**-24
    scores = [share * least for share in shares(sequences, num_items)]
    for age, item in enumerate(reversed(history[-max_len:])):
        for other, value in kept[item].items():
            scores[other] += value * recency_decay**age
    return scores
