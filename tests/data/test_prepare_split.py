"""Temporal splits: two points in time for everybody, two cut points for each user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core
from blin.data.dataset import Dataset
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError
from prepared import raw_ids
from reference import ingest
from strategies import rows


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.csv"


def read(log: Path, interactions: list[tuple[Any, ...]], **options: Any) -> dict[str, Any]:
    lines = [",".join(map(str, row)) for row in interactions]
    log.write_text("\n".join(["user,item,time", *lines]))
    return _core.read_log([log], min_interactions=1, split="temporal", **options)


def days(*numbers: int) -> list[tuple[str, str, str]]:
    return [("u", "a", f"2024-05-{day:02}") for day in numbers]


def splits(log: Path, interactions: list[tuple[Any, ...]], **options: Any) -> list[list[int]]:
    return read(log, interactions, **options)["splits"].tolist()


@given(
    interactions=rows(),
    test_share=st.floats(0.01, 0.99),
    valid_share=st.none() | st.floats(0.01, 0.99),
)
def test_shares_cut_where_the_slow_twin_cuts(log, interactions, test_share, valid_share):
    expected = ingest.prepare(interactions, k=1)
    times = [time for history in expected.timestamps.values() for time in history]
    options = {"test_from": str(test_share)}
    if valid_share is not None:
        options["valid_from"] = str(valid_share)
    cuts = ingest.cuts(times, valid_share, test_share) if times else (0, 0)
    if not times or not min(times) < cuts[0] < cuts[1]:
        with pytest.raises((ConfigError, DataError)):
            read(log, interactions, **options)
        return
    result = read(log, interactions, **options)
    assert result["report"]["cuts"] == cuts
    histories = [expected.timestamps[user] for user in raw_ids(result, "user")]
    assert result["splits"].tolist() == [ingest.temporal(history, *cuts) for history in histories]


@given(
    interactions=rows(),
    cuts=st.tuples(st.integers(-1, 11), st.integers(-1, 11)),
    style=st.sampled_from(["{}", "{}.0", "{}000", "{}000000"]),
)
def test_times_cut_where_the_slow_twin_cuts(log, interactions, cuts, style):
    expected = ingest.prepare(interactions, k=1)
    valid_from, test_from = (1_700_000_000 + cut for cut in cuts)
    options = {"valid_from": style.format(valid_from), "test_from": style.format(test_from)}
    times = [time for history in expected.timestamps.values() for time in history]
    if not times or not min(times) < valid_from < test_from <= max(times):
        with pytest.raises((ConfigError, DataError)):
            read(log, interactions, **options)
        return
    result = read(log, interactions, **options)
    histories = [expected.timestamps[user] for user in raw_ids(result, "user")]
    assert result["splits"].tolist() == [
        ingest.temporal(history, valid_from, test_from) for history in histories
    ]


def test_the_test_takes_a_tenth_and_the_validation_as_much_by_default(log):
    assert splits(log, days(*range(1, 21))) == [[16, 18]]
    assert splits(log, days(*range(1, 21)), test_from="0.8") == [[12, 16]]
    assert splits(log, days(*range(1, 21)), test_from="2024-05-20") == [[18, 19]]


def test_a_cut_in_another_unit_falls_before_the_next_moment(log):
    interactions = [("u", "a", 1_700_000_000 + second) for second in range(5)]
    options = {"valid_from": "1700000001.5", "test_from": "2023-11-14T22:13:23.000000001Z"}
    assert splits(log, interactions, **options) == [[2, 4]]


def test_what_happens_at_the_time_of_a_cut_is_after_it(log):
    options = {"valid_from": "2024-05-03", "test_from": "2024-05-04"}
    assert splits(log, days(1, 3, 3, 4, 4), **options) == [[1, 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_from": "soon"}, 'test_from: expected a time such as 2024-05-31 or a share such as '
         '0.9, found "soon"'),
        ({"test_from": "2024-06-01"}, "test_from: expected a test that begins before the newest "
         "interaction is over, found 1717200000"),
        ({"valid_from": "2024-05-01"}, "valid_from: expected a validation that leaves older "
         "interactions to train on, found 1714521600"),
        ({"valid_from": "0.8", "test_from": "0.5"}, "valid_from: expected a validation that begins "
         "before the test (1714780800), found 1714867200"),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_is_one_line(log, options, message):
    with pytest.raises(ConfigError) as caught:
        read(log, days(1, 2, 3, 4, 5), **options)
    assert str(caught.value) == message


def test_without_times_there_is_no_temporal_split(log):
    log.write_text("user,item\nu,a\nu,b\n")
    with pytest.raises(DataError, match="expected times for a temporal split, found none; choose"):
        _core.read_log([log], min_interactions=1, split="temporal")


def test_a_cut_needs_a_temporal_split(log):
    log.write_text("user,item\nu,a\nu,b\n")
    with pytest.raises(ConfigError, match='split: expected "temporal", to cut at a time, found'):
        _core.read_log([log], test_from="0.5")
    with pytest.raises(ConfigError, match='expected "leave-one-out" or "temporal", found "random"'):
        _core.read_log([log], split="random")


def test_the_dataset_says_where_it_is_cut_and_ranks_users_with_a_history(tmp_path):
    interactions = [("old", f"i{day}", f"2024-05-{day:02}") for day in range(1, 11)]
    interactions += [("new", "i1", "2024-05-10"), ("new", "i2", "2024-05-10")]
    log = tmp_path / "visits.csv"
    log.write_text("".join(",".join(row) + "\n" for row in interactions))
    cuts = {"valid_from": "2024-05-08", "test_from": 0.75}
    report = preprocess(log, data_dir=tmp_path, min_interactions=1, split="temporal", **cuts)
    assert report.metadata["split"] == {
        "rule": "temporal",
        "valid_from": 1715126400,
        "test_from": 1715299200,
        "valid_from_date": "2024-05-08T00:00:00Z",
        "test_from_date": "2024-05-10T00:00:00Z",
        "train": 7,
        "valid": 2,
        "test": 3,
    }
    dataset = Dataset(report.path)
    assert dataset.splits.tolist() == [[7, 9], [0, 0]]
    for split, place in (("valid", 7), ("test", 9)):
        users, places = dataset.held_out(split)
        np.testing.assert_array_equal(users, [0])
        np.testing.assert_array_equal(places, [place])
    again = preprocess(log, data_dir=tmp_path, min_interactions=1, split="temporal", **cuts)
    assert again.reused
