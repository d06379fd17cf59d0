"""Logs larger than the blocks in which they are read."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from blin import _core
from blin.errors import DataError
from prepared import raw_ids

THREADS = (1, 2, 7)
HEADER = "user,item,time\n"


def lines(count: int, *, quote: bool = False) -> list[str]:
    draw = random.Random(3)
    rows = []
    for _ in range(count):
        user, item = draw.randrange(20_000), draw.randrange(3_000)
        name = f'"item\n{item}"' if quote and draw.random() < 0.1 else f"item-number-{item}"
        rows.append(f"{user},{name},{1_600_000_000 + draw.randrange(10_000)}\n")
    return rows


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = tmp_path_factory.mktemp("blocks") / "plain.csv"
    log.write_text(HEADER + "".join(lines(150_000)))
    return log


@pytest.fixture(scope="module")
def quoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = tmp_path_factory.mktemp("blocks") / "quoted.csv"
    log.write_text(HEADER + "".join(lines(60_000) + lines(60_000, quote=True)))
    return log


def content_of(result: dict[str, Any]) -> tuple[bytes, ...]:
    arrays = [result[key] for key in ("items", "offsets", "timestamps", "splits", "item_counts")]
    arrays += [*result["user_ids"], *result["item_ids"]]
    return tuple(array.tobytes() for array in arrays)


@pytest.mark.parametrize("kind", ["plain", "quoted"])
def test_any_number_of_threads_gives_the_same_bytes(kind, request):
    log = request.getfixturevalue(kind)
    first, *others = (_core.read_log([log], threads=threads) for threads in THREADS)
    for other in others:
        assert content_of(other) == content_of(first)
        assert other["report"] == first["report"]


@pytest.mark.parametrize("threads", THREADS)
def test_the_first_bad_row_of_the_file_is_reported(tmp_path, threads):
    rows = lines(150_000)
    for bad in (149_990, 120_000, 70_001):
        rows[bad] = "u,a\n"
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "".join(rows))
    with pytest.raises(DataError, match=":70003: expected 3 fields"):
        _core.read_log([log], threads=threads)


@pytest.mark.parametrize("threads", THREADS)
def test_bad_rows_after_quoted_newlines_have_the_right_line(tmp_path, threads):
    rows = lines(80_000) + lines(2_000, quote=True)
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "".join(rows) + "u,a,soon\n")
    line = 1 + sum(row.count("\n") for row in rows) + 1
    with pytest.raises(DataError, match=f':{line}: column "time"'):
        _core.read_log([log], threads=threads)


def test_a_quoted_log_holds_what_python_reads_from_it(quoted):
    with quoted.open(newline="") as file:
        _, *rows = csv.reader(file)
    result = _core.read_log([quoted], min_interactions=1)
    assert result["report"]["rows_read"] == len(rows)
    assert raw_ids(result, "item") == list(dict.fromkeys(row[1] for row in rows))


def test_an_integer_time_is_brought_to_the_unit_of_a_decimal_far_behind_it(tmp_path):
    log = tmp_path / "log.csv"
    late = f"u,i,{1_600_000_000.5}\n"
    log.write_text(HEADER + "".join(lines(150_000)) + late)
    result = _core.read_log([log], min_interactions=1)
    assert result["report"]["time"]["unit"] == "ms"
    assert result["report"]["time"]["first"] == 1_600_000_000_000
