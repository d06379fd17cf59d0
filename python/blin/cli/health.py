"""A dataset's health as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blin.cli.output import Output
from blin.data.health import percent, warnings


def show_health(metadata: Mapping[str, Any], output: Output) -> None:
    """Prints what is known of a dataset before training, and warns of what has consequences."""
    health = metadata["health"]
    output.facts(
        {
            "repeats": f"{health['repeats']:,} interactions with an item that the user had before "
            f"({percent(health['repeats_share'])})",
            "ties": _ties(health["ties"]),
            "lengths": _spread(health["sequence_length"], "interactions per user"),
            "popularity": f"{_spread(health['item_popularity'], 'per item')}; the top 10% of items "
            f"have {percent(health['item_popularity']['top_10_percent_share'])}",
            "leakage": _leakage(health["test"]),
            "cold": _cold(health),
            "baseline": _baseline(health["popularity_baseline"]),
        }
    )
    for warning in warnings(metadata):
        output.warn(warning)


def _ties(ties: Mapping[str, Any] | None) -> str:
    if ties is None:
        return "unknown without times"
    if ties["neighbours"] == 0:
        return "none: no user has two interactions at the same time"
    return (
        f"{percent(ties['neighbours_share'])} of neighbours have the same time (the last two "
        f"of {percent(ties['users_last_two_share'])} of users): they stay in the order of the log"
    )


def _spread(numbers: Mapping[str, Any], what: str) -> str:
    return (
        f"{numbers['min']:,} to {numbers['max']:,} {what}, "
        f"median {numbers['median']:,}, mean {numbers['mean']:,.1f}"
    )


def _leakage(test: Mapping[str, Any]) -> str | None:
    if test["count"] == 0:
        return None
    if test["leaking"] is None:
        return "unknown without times"
    share = percent(test["leaking_share"])
    return f"{share} of test items are older than somebody else's last training interaction"


def _cold(health: Mapping[str, Any]) -> str | None:
    if health["test"]["count"] == 0:
        return None
    shares = (
        f"{percent(health[part]['cold_share'])} of {part} items" for part in ("valid", "test")
    )
    return f"{' and '.join(shares)} never occur in training"


def _baseline(metrics: Mapping[str, float] | None) -> str | None:
    if metrics is None:
        return None
    return "popularity reaches " + ", ".join(f"{name} {x:.4f}" for name, x in metrics.items())
