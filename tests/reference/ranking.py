"""Ranks by sorting, metrics by their definitions."""

from __future__ import annotations

import math


def candidates(scores: list[float], history: set[int], target: int) -> list[int]:
    return [item for item in range(1, len(scores)) if item == target or item not in history]


def possible_ranks(scores: list[float], history: set[int], target: int) -> set[int]:
    """The ranks that the target can get when items of equal score come in any order."""
    own = scores[target]
    rest = [scores[item] for item in candidates(scores, history, target) if item != target]
    above = sum(score > own for score in rest)
    level = sum(score == own for score in rest)
    return set(range(above + 1, above + level + 2))


def rank(scores: list[float], history: set[int], target: int, luck: float) -> int:
    """The rank of the target when ``luck`` in [0, 1) says where it is among its equals."""
    places = sorted(possible_ranks(scores, history, target))
    return places[int(luck * len(places))]


def metrics(ranks: list[int], k: int) -> tuple[float, float, float]:
    """HR@k, NDCG@k, MRR."""
    hits = [1.0 if rank <= k else 0.0 for rank in ranks]
    gains = [hit / math.log2(rank + 1) for hit, rank in zip(hits, ranks, strict=True)]
    reciprocal = [1 / rank for rank in ranks]
    return tuple(sum(values) / len(values) for values in (hits, gains, reciprocal))  # type: ignore[return-value]


def held_out(sequence: list[int], cuts: tuple[int, int], split: str, which: str) -> list[int]:
    """The steps of a sequence that are ranked: of the part, those with something before them."""
    bounds = (cuts[0], cuts[1]) if split == "valid" else (cuts[1], len(sequence))
    steps = list(range(*bounds))
    if which != "all":
        steps = steps[:1] if which == "first" else steps[-1:]
    return [step for step in steps if step > 0]


def mean_over_users(values: list[float], users: list[int]) -> float:
    """The mean of the users' means."""
    means = []
    for user in set(users):
        own = [value for value, owner in zip(values, users, strict=True) if owner == user]
        means.append(sum(own) / len(own))
    return sum(means) / len(means)


def list_measures(lists: list[list[int]], training: list[int], num_items: int) -> dict[str, float]:
    """What is measured of lists of items 1…V, place by place."""
    places = [item for items in lists for item in items]
    counts = [training.count(item) for item in range(1, num_items + 1)]
    by_popularity = sorted(range(1, num_items + 1), key=lambda item: (-counts[item - 1], item))
    popular = by_popularity[: math.ceil(num_items / 10)]
    information = [
        -math.log2((counts[item - 1] + 1) / (len(training) + num_items)) for item in places
    ]
    listed = [places.count(item) for item in range(1, num_items + 1)]
    differences = sum(abs(one - other) for one in listed for other in listed)
    return {
        "coverage": len(set(places)) / num_items,
        "novelty": sum(information) / len(places),
        "popular-share": sum(item in popular for item in places) / len(places),
        "gini": differences / (2 * num_items * len(places)),
    }
