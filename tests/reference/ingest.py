"""From rows to sequences in plain Python, one obvious step after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from reference.kcore import k_core

MISSING_USERS = {"", "NA", "NaN", "nan", "null", "NULL", "None", "\\N"}

Row = tuple[str, str, "int | None"]


@dataclass(frozen=True)
class Prepared:
    """What the core should make of a log, in raw ids."""

    user_ids: list[str]
    item_ids: list[str]
    sequences: dict[str, list[str]]
    timestamps: dict[str, list[int | None]]
    splits: list[list[int]]
    rounds: list[dict[str, int]]
    repeats: int
    tied_neighbours: int
    users_with_tied_last: int


def prepare(
    rows: list[Row], *, k: int, item_k: int | None = None, duplicates: str = "keep"
) -> Prepared:
    """Rows may have a fourth field, which orders what has the same time."""
    rows = [row for row in rows if row[0] not in MISSING_USERS and row[1] != ""]
    rows, rounds = k_core(drop_duplicates(rows, duplicates), k, item_k)
    histories: dict[str, list[Row]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(row)
    for history in histories.values():
        history.sort(key=moment)
    times = {user: [row[2] for row in history] for user, history in histories.items()}
    return Prepared(
        user_ids=list(histories),
        item_ids=list(dict.fromkeys(row[1] for row in rows)),
        sequences={user: [row[1] for row in history] for user, history in histories.items()},
        timestamps=times,
        splits=[leave_one_out(len(history)) for history in histories.values()],
        rounds=rounds,
        repeats=len(rows) - len({row[:2] for row in rows}),
        tied_neighbours=sum(a == b for history in times.values() for a, b in pairwise(history)),
        users_with_tied_last=sum(
            len(history) > 1 and history[-1] == history[-2] for history in times.values()
        ),
    )


def moment(row: Row) -> tuple[int, ...]:
    return tuple(time or 0 for time in row[2:])


def drop_duplicates(rows: list[Row], duplicates: str) -> list[Row]:
    if duplicates == "keep":
        return rows
    by_time = sorted(range(len(rows)), key=lambda place: moment(rows[place]))
    if duplicates == "last":
        by_time.reverse()
    survivors: dict[tuple[str, str], int] = {}
    for place in by_time:
        survivors.setdefault(rows[place][:2], place)
    return [rows[place] for place in sorted(survivors.values())]


def cuts(times: list[int], valid_share: float | None, test_share: float) -> tuple[int, int]:
    times = sorted(times)
    test_from = times[min(math.floor(test_share * len(times) + 0.5), len(times) - 1)]
    num_test = sum(time >= test_from for time in times)
    if valid_share is None:
        return times[max(len(times) - 2 * num_test, 0)], test_from
    return times[min(math.floor(valid_share * len(times) + 0.5), len(times) - 1)], test_from


def temporal(history: list[int], valid_from: int, test_from: int) -> list[int]:
    return [sum(time < valid_from for time in history), sum(time < test_from for time in history)]


def leave_one_out(length: int) -> list[int]:
    return [length, length] if length < 3 else [length - 2, length - 1]
