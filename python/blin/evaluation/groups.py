"""Metrics of some targets at a time: by history, by popularity, new items and repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from blin.evaluation.metrics import metrics_of
from blin.evaluation.targets import Targets

EDGES = (0, 1, 5, 10, 20, 50, 100, 500)
"""The first number of each bin, of items before the target and of its training interactions."""


class Group(TypedDict):
    """Some of the targets, as JSON can hold it."""

    users: int
    targets: int
    metrics: dict[str, float]


def groups_of(
    targets: Targets, ranks: NDArray[np.int64], ks: Sequence[int], *, suffix: str = ""
) -> dict[str, dict[str, Group]]:
    """Returns the metrics of each group of targets that has any.

    Args:
        targets: what was ranked.
        ranks: (T,) their ranks.
        ks: lengths of the lists.
        suffix: of the metrics' names.

    Returns:
        By ``history`` (items before the target), by ``popularity`` (training interactions of the
        target; 0 is a cold target) and by ``repeats`` (whether the user has had it before): each
        group, averaged as all metrics are, over the targets of a user in the group, then over the
        users with any.
    """
    bins = {"history": _binned(targets.history), "popularity": _binned(targets.popularity)}
    bins["repeats"] = iter([("new", ~targets.repeats), ("repeat", targets.repeats)])
    found: dict[str, dict[str, Group]] = {kind: {} for kind in bins}
    for kind, groups in bins.items():
        for name, members in groups:
            if not members.any():
                continue
            users = targets.users[members]
            metrics = metrics_of(ranks[members], ks, users=users)
            found[kind][name] = {
                "users": len(np.unique(users)),
                "targets": len(users),
                "metrics": {metric + suffix: value for metric, value in metrics.items()},
            }
    return found


def _binned(numbers: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the name of each bin and which numbers are in it."""
    bins = np.searchsorted(EDGES, numbers, side="right") - 1
    for number, (first, after) in enumerate(pairwise(EDGES)):
        name = str(first) if after == first + 1 else f"{first}-{after - 1}"
        yield name, bins == number
    yield f"{EDGES[-1]}+", numbers >= EDGES[-1]
