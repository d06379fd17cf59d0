"""What a prepared dataset can be trusted with, said before anything is trained on it.

The core counts (``rust/blin-core/src/health.rs``); here the counts become shares, the popularity
baseline's metrics and the sentences that a user should read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blin import _core

QUANTILES = ("min", "p5", "p25", "median", "p75", "p95", "max")

#: From this share on something is worth a warning.
_MUCH = 0.01


def tie_luck(num_users: int) -> NDArray[np.float64]:
    """Returns the number in [0, 1) a user by which items of equal score are ranked, (users,).

    It is the same for ever, for every model and run: raw Philox words are a stable stream.
    """
    words = np.random.Philox(key=0).random_raw(num_users)
    return np.ldexp((words >> np.uint64(11)).astype(np.float64), -53)


def data_health(result: Mapping[str, Any], *, threads: int | None = None) -> dict[str, Any]:
    """Examines the arrays of a prepared dataset, as JSON can hold it.

    The *targets* of a part are what is ranked in it: each user's first item after the cut, if
    there is something before it. A target is

    - *leaking* if some other user has a training interaction with a later time: a model that is
      asked for the target has then learned from its future. Without times nobody knows (None);
      under a temporal split none is, as training ends before the first target.
    - *cold* if it occurs in nobody's training part.

    ``newer_training_share`` is the share of the training interactions that are newer than a
    target, on average over the targets. Newer is what lies in a later one of the 512 to 1,024
    slices into which the time is cut, so the exact share is this or more.

    The popularity baseline scores an item by its number of training interactions and is ranked as
    :mod:`blin.evaluation.ranking` ranks any model: without the history, ties by :func:`tie_luck`.
    Its metrics are exactly those of an evaluation.

    Args:
        result: ``items``, ``offsets``, ``splits``, ``timestamps`` and the core's ``report`` with
            its ``items``, ``repeats`` and ties.
        threads: Threads to use; the result does not depend on it.
    """
    report = result["report"]
    users, interactions = len(result["offsets"]) - 1, len(result["items"])
    counts = _core.data_health(
        result["items"],
        result["offsets"],
        result["splits"],
        result["timestamps"],
        tie_luck(users),
        num_items=report["items"],
        threads=threads,
    )
    top = dict(zip(("top_1_percent_share", "top_10_percent_share"), counts["top"], strict=True))
    return {
        "repeats": report["repeats"],
        "repeats_share": _share(report["repeats"], interactions),
        "ties": _ties(report),
        "valid": _targets(counts["valid"], counts["training"]),
        "test": _targets(counts["test"], counts["training"]),
        "popularity_baseline": _metrics(counts["popularity_ranks"]),
        "sequence_length": {
            "mean": interactions / users,
            **_distribution(counts["lengths"]),
        },
        "item_popularity": {
            "mean": interactions / report["items"],
            **_distribution(counts["popularity"]),
            "gini": counts["gini"],
            **{name: _share(part, interactions) for name, part in top.items()},
            "rank_curve": [list(point) for point in counts["rank_curve"]],
        },
        "over_time": _over_time(counts["periods"]),
    }


def warnings(metadata: Mapping[str, Any]) -> list[str]:
    """Says what of a dataset's health has consequences, one sentence each."""
    health = metadata.get("health")
    if health is None:
        return []
    found = []
    ties, test = health["ties"], health["test"]
    if ties is not None and ties["neighbours_share"] >= _MUCH:
        last_two = percent(ties["users_last_two_share"])
        decides = f"; for {last_two} of users it decides which item is tested"
        found.append(
            f"{percent(ties['neighbours_share'])} of neighbouring interactions have the same time: "
            "their order is that of the log, which may mean nothing"
            + (decides if metadata["split"]["rule"] == "leave-one-out" else "")
        )
    if test["leaking"] is not None and test["leaking_share"] >= _MUCH:
        found.append(
            f"{percent(test['leaking_share'])} of the test items are older than training "
            f"interactions of other users (than {percent(test['newer_training_share'])} of them, "
            "on average): leave-one-out lets a model see the future, --split temporal does not"
        )
    if test["cold_share"] >= _MUCH:
        found.append(
            f"{percent(test['cold_share'])} of the test items never occur in training: a model "
            "that knows items by their ids can hardly find them"
        )
    if test["count"] == 0:
        found.append("no user has a test item: there is nothing to evaluate a model on")
    return found


def percent(share: float) -> str:
    """Returns a share as people read it; what is not all is never ``100.0%``, nor ``0.0%``.

    >>> percent(0.43926), percent(0.99998), percent(0.0001), percent(1.0)
    ('43.9%', '>99.9%', '<0.1%', '100.0%')
    """
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _ties(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Says how often the order is decided by the log and not by the time."""
    if report["time"] is None:
        return None
    neighbours, users = report["tied_neighbours"], report["users_with_tied_last"]
    return {
        "neighbours": neighbours,
        "neighbours_share": _share(neighbours, report["interactions"] - report["users"]),
        "users_last_two": users,
        "users_last_two_share": _share(users, report["users"]),
    }


def _targets(counts: Mapping[str, Any], training: int) -> dict[str, Any]:
    count, leaking, newer = counts["count"], counts["leaking"], counts["newer_pairs"]
    return {
        "count": count,
        "cold": counts["cold"],
        "cold_share": _share(counts["cold"], count),
        "leaking": leaking,
        "leaking_share": None if leaking is None else _share(leaking, count),
        "newer_training_share": None if newer is None else _share(newer, count * training),
    }


def _metrics(ranks: NDArray[np.int64]) -> dict[str, float] | None:
    if len(ranks) == 0:
        return None
    hit = ranks <= 10
    return {
        "HR@10": float(hit.mean()),
        "NDCG@10": float((1 / np.log2(ranks + 1) * hit).mean()),
    }


def _distribution(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **dict(zip(QUANTILES, counts["quantiles"], strict=True)),
        "histogram": [list(bin) for bin in counts["bins"]],
    }


def _over_time(periods: tuple[int, int, list[list[int]]] | None) -> dict[str, Any] | None:
    if periods is None:
        return None
    first, width, counts = periods
    parts = dict(zip(("train", "valid", "test"), map(list, zip(*counts, strict=True)), strict=True))
    return {"first": first, "width": width, **parts}


def _share(part: int, whole: int) -> float:
    return part / max(whole, 1)
