"""What the core makes of rows, against the slow twin."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core
from blin.errors import DataError
from prepared import raw_ids, raw_sequences, raw_timestamps
from reference import ingest, kcore
from strategies import plain_ids, rows
from strategies import raw_ids as any_ids


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.csv"


def read(log: Path, interactions: list[tuple[Any, ...]], **options: Any) -> dict[str, Any]:
    lines = [",".join(map(str, row)) for row in interactions]
    log.write_bytes("\n".join(["user,item,time", *lines]).encode())
    return _core.read_log([log], **options)


@given(
    interactions=rows(),
    k=st.integers(0, 4),
    duplicates=st.sampled_from(["keep", "first", "last"]),
    threads=st.sampled_from([1, 2, 7]),
)
def test_a_log_becomes_what_the_slow_twin_makes_of_it(log, interactions, k, duplicates, threads):
    expected = ingest.prepare(interactions, k=k, duplicates=duplicates)
    options = {"min_interactions": k, "duplicates": duplicates, "threads": threads}
    if not expected.sequences:
        with pytest.raises(DataError, match="no interaction is left"):
            read(log, interactions, **options)
        return
    result = read(log, interactions, **options)
    report = result["report"]
    assert raw_ids(result, "user") == expected.user_ids
    assert raw_ids(result, "item") == expected.item_ids
    assert raw_sequences(result) == expected.sequences
    assert raw_timestamps(result) == expected.timestamps
    assert result["splits"].tolist() == expected.splits
    assert [report["before_k_core"], *report["k_core_rounds"]] == expected.rounds
    assert report["repeats"] == expected.repeats
    assert report["tied_neighbours"] == expected.tied_neighbours
    assert report["users_with_tied_last"] == expected.users_with_tied_last
    assert result["item_counts"].tolist() == np.bincount(result["items"])[1:].tolist()


@given(
    interactions=rows(),
    seconds=st.lists(st.integers(-3, 3), min_size=60, max_size=60),
    duplicates=st.sampled_from(["keep", "first", "last"]),
    thresholds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_two_times_and_two_thresholds_are_those_of_the_slow_twin(
    log, interactions, seconds, duplicates, thresholds
):
    timed = [(*row, second) for row, second in zip(interactions, seconds, strict=False)]
    user_k, item_k = thresholds
    expected = ingest.prepare(timed, k=user_k, item_k=item_k, duplicates=duplicates)
    lines = "".join(",".join(map(str, row)) + "\n" for row in timed)
    log.write_text("user,item,day,moment\n" + lines)
    options = {
        "time_column": "day,moment",
        "min_user_interactions": user_k,
        "min_item_interactions": item_k,
        "duplicates": duplicates,
    }
    if not expected.sequences:
        with pytest.raises(DataError, match="no interaction is left"):
            _core.read_log([log], **options)
        return
    result = _core.read_log([log], **options)
    report = result["report"]
    assert raw_sequences(result) == expected.sequences
    assert raw_timestamps(result) == expected.timestamps
    assert [report["before_k_core"], *report["k_core_rounds"]] == expected.rounds
    assert report["layout"]["tie_break_column"] == "moment"


def test_a_threshold_of_one_side_leaves_the_other_at_the_common_one(log):
    interactions = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3)]
    result = read(log, interactions, min_interactions=1, min_item_interactions=2)
    assert raw_sequences(result) == {"u": ["a"], "v": ["a"]}
    result = read(log, interactions, min_interactions=1, min_user_interactions=2)
    assert raw_sequences(result) == {"u": ["a", "b"]}
    with pytest.raises(DataError, match=r"left by the core \(2 per user, 3 per item\) of 3 inter"):
        read(log, interactions, min_user_interactions=2, min_item_interactions=3)


def test_dates_with_a_second_column_need_not_be_sorted_in_the_file(log):
    log.write_text(
        "session;item;moment;day\n1;c;900;2016-05-09\n1;a;7;2016-05-09\n1;z;3;2016-05-10\n"
        "1;b;7;2016-05-09\n"
    )
    result = _core.read_log([log], min_interactions=1, time_column="day, moment")
    assert raw_sequences(result) == {"1": ["a", "b", "c", "z"]}
    assert result["report"]["time"]["unit"] == "s"


def test_a_comma_in_the_name_of_a_column_is_no_second_column(log):
    log.write_text('user;item;"day,moment"\nu;b;2\nu;a;1\n')
    result = _core.read_log([log], min_interactions=1, time_column="day,moment")
    assert raw_sequences(result) == {"u": ["a", "b"]}
    assert result["report"]["layout"]["tie_break_column"] is None


def test_a_second_time_that_is_none_is_named(log):
    log.write_text("user,item,day,moment\nu,a,1,2\nu,a,1,noon\n")
    with pytest.raises(DataError, match=r':3: column "moment": expected a time such as'):
        _core.read_log([log], min_interactions=1, time_column="day,moment")
    with pytest.raises(DataError, match=r'expected a column "hour" \(--time-column\)'):
        _core.read_log([log], min_interactions=1, time_column="day,hour")


def test_a_log_that_unravels_slowly_takes_as_many_rounds_as_by_definition(log):
    """User n meets items n and n + 1: with k = 2 only the two ends fall in every round."""
    chain = [(f"u{n}", f"i{n + step}", n) for n in range(100) for step in range(2)]
    square = [(f"v{n}", f"j{m}", n) for n in range(2) for m in range(2)]
    expected, rounds = kcore.k_core(chain + square, 2)
    result = read(log, chain + square, min_interactions=2)
    report = result["report"]
    assert len(rounds) > 50
    assert [report["before_k_core"], *report["k_core_rounds"]] == rounds
    assert raw_sequences(result) == {"v0": ["j0", "j1"], "v1": ["j0", "j1"]}
    assert len(expected) == 4


def test_the_k_core_of_a_core_is_itself(log):
    square = [(f"u{n}", f"i{m}", n) for n in range(5) for m in range(5)]
    report = read(log, square, min_interactions=5)["report"]
    assert report["k_core_rounds"] == []
    assert report["interactions"] == 25


@given(ids=st.lists(any_ids(), min_size=1, max_size=20))
def test_any_id_comes_back_exactly_from_a_quoted_log(log, ids):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["user", "item", "time"])
    writer.writerows((name, name + "!", place) for place, name in enumerate(ids))
    log.write_bytes(text.getvalue().encode())
    result = _core.read_log([log], min_interactions=1)
    distinct = list(dict.fromkeys(ids))
    assert raw_ids(result, "user") == distinct
    assert raw_ids(result, "item") == [name + "!" for name in distinct]


@given(ids=st.lists(plain_ids(), min_size=1, max_size=20))
def test_plain_ids_come_back_exactly(log, ids):
    interactions = [(name, name, place) for place, name in enumerate(ids)]
    result = read(log, interactions, min_interactions=1, delimiter=",")
    assert raw_ids(result, "user") == list(dict.fromkeys(ids))
    assert raw_ids(result, "item") == list(dict.fromkeys(ids))


def test_events_at_the_same_time_keep_the_order_of_the_file(log):
    result = read(log, [("u", "c", 2), ("u", "b", 1), ("u", "a", 1)], min_interactions=1)
    assert raw_sequences(result) == {"u": ["b", "a", "c"]}


def test_indices_are_given_by_first_appearance_among_the_rows_that_survive(log):
    interactions = [("x", "z", 0), ("u", "b", 3), ("u", "a", 1), ("v", "a", 2), ("v", "b", 4)]
    result = read(log, interactions, min_interactions=2)
    assert raw_ids(result, "user") == ["u", "v"]
    assert raw_ids(result, "item") == ["b", "a"]
    assert result["items"].tolist() == [2, 1, 2, 1]


def test_a_user_too_short_to_hold_anything_out_only_trains(log):
    lengths = {"one": 1, "two": 2, "three": 3}
    interactions = [(user, f"i{n}", n) for user, size in lengths.items() for n in range(size)]
    result = read(log, interactions, min_interactions=1)
    assert result["splits"].tolist() == [[1, 1], [2, 2], [1, 2]]


def test_the_arrays_have_the_types_of_the_format(log):
    result = read(log, [("u", "a", 1)], min_interactions=1)
    types = {key: result[key].dtype for key in ("items", "offsets", "timestamps", "splits")}
    assert types == {"items": "u4", "offsets": "i8", "timestamps": "i8", "splits": "i8"}


def test_rows_below_the_rating_are_left_out_and_counted(log):
    log.write_text("user,item,rating,time\nu,a,4,1\nu,b,3.5,2\nu,c,5,3\n")
    result = _core.read_log([log], min_interactions=1, min_rating=4)
    assert raw_sequences(result) == {"u": ["a", "c"]}
    assert result["report"]["rows_below_rating"] == 1
    assert result["report"]["rows_read"] == 3


@pytest.mark.parametrize("user", ["", "NA", "NaN", "nan", "null", "NULL", "None", r"\N"])
def test_rows_without_a_user_are_left_out_and_counted_whatever_else_they_hold(log, user):
    result = read(log, [("u", "a", 1), (user, "a", "soon"), ("u", "b", 2)], min_interactions=1)
    assert raw_sequences(result) == {"u": ["a", "b"]}
    assert result["report"]["rows_without_user"] == 1
    assert result["report"]["rows_read"] == 3


def test_rows_without_an_item_are_left_out_and_an_item_may_have_any_name(log):
    result = read(log, [("u", "NA", 1), ("u", "", 2), ("v", "null", 3)], min_interactions=1)
    assert raw_sequences(result) == {"u": ["NA"], "v": ["null"]}
    assert result["report"]["rows_without_item"] == 1
    assert result["report"]["rows_without_user"] == 0


@pytest.mark.parametrize("user", ["Na", "none", " NA", "0", "-"])
def test_a_user_of_another_spelling_is_a_user(log, user):
    assert raw_sequences(read(log, [(user, "a", 1)], min_interactions=1)) == {user: ["a"]}


def test_a_sequence_without_a_user_is_left_out(log):
    log.write_text("u a b\nNA a b c\nv b\n")
    result = _core.read_log([log], min_interactions=1)
    assert raw_sequences(result) == {"u": ["a", "b"], "v": ["b"]}
    assert result["report"]["rows_without_user"] == 3


def test_a_list_of_files_is_one_log_and_may_repeat_the_header(log, tmp_path):
    parts = [tmp_path / f"part-{n}.csv" for n in range(3)]
    parts[0].write_text("user,item,time\nu,a,3\n")
    parts[1].write_text("user,item,time\nu,b,2\n")
    parts[2].write_text("u,c,1\n")
    result = _core.read_log(parts, min_interactions=1)
    assert raw_sequences(result) == {"u": ["c", "b", "a"]}
    assert len(result["report"]["sources"]) == 3
