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


def metrics(ranks: list[int], k: int) -> tuple[float, float, float]:
    """HR@k, NDCG@k, MRR."""
    hits = [1.0 if rank <= k else 0.0 for rank in ranks]
    gains = [hit / math.log2(rank + 1) for hit, rank in zip(hits, ranks, strict=True)]
    reciprocal = [1 / rank for rank in ranks]
    return tuple(sum(values) / len(values) for values in (hits, gains, reciprocal))  # type: ignore[return-value]
