"""Paired tests written from their definitions, for a handful of users."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product


def exact_permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p-value over all ways to exchange the two runs of a user."""
    observed = sum(differences)
    below = above = total = 0
    for signs in product((1, -1), repeat=len(differences)):
        changed = sum(sign * value for sign, value in zip(signs, differences, strict=True))
        total += 1
        below += changed <= observed + 1e-8
        above += changed >= observed - 1e-8
    return min(1.0, 2 * min(below, above) / total)


def holm(p: Sequence[float]) -> list[float]:
    """Each p-value times the number of hypotheses not yet rejected, in order of size."""
    corrected = [0.0] * len(p)
    largest = 0.0
    for step, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - step) * p[place]))
        corrected[place] = largest
    return corrected


def user_means(users: Sequence[str], values: Sequence[float]) -> list[float]:
    """The mean of each user's values, users in order of first appearance."""
    by_user: dict[str, list[float]] = {}
    for user, value in zip(users, values, strict=True):
        by_user.setdefault(user, []).append(value)
    return [sum(v) / len(v) for v in by_user.values()]
