"""The k-core filter by its definition: whole rounds, until one changes nothing."""

from __future__ import annotations

from collections import Counter

Row = tuple[str, str, object]


def k_core(
    rows: list[Row], k: int, item_k: int | None = None
) -> tuple[list[Row], list[dict[str, int]]]:
    """Returns what survives, and the counts before and after every round that removed something.

    The threshold of the items is that of the users unless it is given.
    """
    item_k = k if item_k is None else item_k
    rounds = [counts(rows)]
    while True:
        users = Counter(row[0] for row in rows)
        items = Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= k and items[row[1]] >= item_k]
        if len(kept) == len(rows):
            return rows, rounds
        rows = kept
        rounds.append(counts(rows))


def counts(rows: list[Row]) -> dict[str, int]:
    return {
        "users": len({row[0] for row in rows}),
        "items": len({row[1] for row in rows}),
        "interactions": len(rows),
    }
