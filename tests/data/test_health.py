"""What is said of a dataset's health is what the definitions say."""

from __future__ import annotations

import json
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core, evaluate
from blin.data.dataset import Dataset
from blin.data.health import data_health, tie_luck, warnings
from blin.data.loader import training_interactions
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError
from blin.models.popularity import Popularity, PopularityConfig
from reference import health as reference
from strategies import rows

Split = tuple[list[list[int]], list[list[int]], "list[list[int]] | None"]


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[list[int]] | None]:
    """Sequences, any cut points, and times with many ties, or none."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(any))
    item = st.integers(1, 9)
    sequences = [draw(st.lists(item, min_size=n, max_size=n)) for n in lengths]
    splits = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in lengths]
    if draw(st.booleans()):
        return sequences, splits, None
    time = st.integers(0, 9) | st.integers(0, 5000) | st.sampled_from([-(2**63), 2**63 - 1])
    return (
        sequences,
        splits,
        [sorted(draw(st.lists(time, min_size=n, max_size=n))) for n in lengths],
    )


def count(
    sequences: list[list[int]],
    splits: list[list[int]],
    times: list[list[int]] | None,
    luck: Any,
    **options: Any,
) -> dict[str, Any]:
    return _core.data_health(
        np.array(list(chain.from_iterable(sequences)), dtype=np.uint32),
        np.array([0, *accumulate(map(len, sequences))], dtype=np.int64),
        np.array(splits, dtype=np.int64).reshape(-1, 2),
        None if times is None else np.array(list(chain.from_iterable(times)), dtype=np.int64),
        np.array(luck, dtype=np.float64),
        **options,
    )


@given(data=datasets(), threads=st.sampled_from([1, 2]), more=st.integers(0, 3))
def test_the_counts_are_those_of_the_slow_twin(data, threads, more):
    sequences, splits, times = data
    num_items = max(map(max, filter(None, sequences))) + more
    luck = tie_luck(len(sequences)).tolist()
    expected = reference.health(sequences, splits, times, luck, num_items)
    found = count(*data, luck, num_items=num_items, threads=threads)
    for key in ("training", "valid", "test", "top"):
        assert found[key] == expected[key], key
    assert found["popularity_ranks"].tolist() == expected["popularity_ranks"]
    for key in ("lengths", "popularity"):
        assert found[key]["quantiles"] == expected[key], key
    assert found["gini"] == pytest.approx(expected["gini"], abs=1e-12)


@given(data=datasets())
def test_histograms_hold_everything_once(data):
    sequences, splits, times = data
    found = count(*data, [0.5] * len(sequences), num_items=9)
    popularity = [list(chain.from_iterable(sequences)).count(item) for item in range(1, 10)]
    for numbers, key in ((list(map(len, sequences)), "lengths"), (popularity, "popularity")):
        bins = found[key]["bins"]
        assert sum(size for *_, size in bins) == len(numbers)
        for first, last, size in bins:
            assert sum(first <= number <= last for number in numbers) == size
    for rank, at_rank in found["rank_curve"]:
        assert sorted(popularity, reverse=True)[rank - 1] == at_rank
    if times is None:
        assert found["periods"] is None
        return
    first, width, periods = found["periods"]
    for part in range(3):
        expected = [0] * len(periods)
        for moments, cuts in zip(times, splits, strict=True):
            bounds = [0, *cuts, len(moments)]
            for time in moments[bounds[part] : bounds[part + 1]]:
                expected[(time - first) // width] += 1
        assert [counts[part] for counts in periods] == expected
    assert 1 <= len(periods) <= 64


@pytest.mark.parametrize("split", ["leave-one-out", "temporal"])
def test_the_baseline_is_what_an_evaluation_of_it_gives(small_log, tmp_path, split):
    dataset = Dataset(preprocess(small_log, data_dir=tmp_path, split=split).path)
    model = Popularity(dataset.num_items, PopularityConfig())
    model.count(training_interactions(dataset))
    metrics = evaluate(model, dataset, k=[10]).metrics
    baseline = dataset.metadata["health"]["popularity_baseline"]
    assert baseline == {name: metrics[name] for name in ("HR@10", "NDCG@10")}


@given(interactions=rows(), test_share=st.floats(0.2, 0.9))
def test_no_target_of_a_temporal_split_leaks(tmp_path_factory, interactions, test_share):
    log = tmp_path_factory.getbasetemp() / "health.csv"
    log.write_text("user,item,time\n" + "\n".join(",".join(map(str, row)) for row in interactions))
    options = {"split": "temporal", "test_from": str(test_share)}
    try:
        result = _core.read_log([log], min_interactions=1, **options)
    except (ConfigError, DataError):
        return
    health = data_health(result)
    for part in ("valid", "test"):
        assert (health[part]["leaking"], health[part]["newer_training_share"]) == (0, 0.0)


def prepared(folder: Path, content: str, **options: Any) -> dict[str, Any]:
    log = folder / "log.csv"
    log.write_text(content)
    return dict(preprocess(log, data_dir=folder, min_interactions=1, **options).metadata)


LOG = "user,item,time\n" + "".join(
    f"{user},{item},{time}\n"
    for user, item, time in [
        # ann's test item is older than bob's training items, bob's is nobody's training item.
        ("ann", "a", 1), ("ann", "b", 2), ("ann", "a", 2), ("ann", "b", 3),
        ("bob", "b", 10), ("bob", "b", 11), ("bob", "a", 12), ("bob", "c", 13),
    ]
)  # fmt: skip


def test_the_figures_of_a_log_that_can_be_counted_by_hand(tmp_path):
    health = prepared(tmp_path, LOG)["health"]
    assert (health["repeats"], health["repeats_share"]) == (3, 3 / 8)
    assert health["ties"] == {
        "neighbours": 1,
        "neighbours_share": pytest.approx(1 / 6),
        "users_last_two": 0,
        "users_last_two_share": 0.0,
    }
    assert health["test"] == {
        "count": 2,
        "cold": 1,
        "cold_share": 0.5,
        "leaking": 1,
        "leaking_share": 0.5,
        # Of the four training interactions two are newer than ann's test item, none than bob's.
        "newer_training_share": 0.25,
    }
    assert health["sequence_length"]["median"] == 4
    assert health["item_popularity"]["mean"] == 8 / 3
    assert health["item_popularity"]["top_1_percent_share"] == 0.5


def test_what_needs_times_is_unknown_without_them(tmp_path):
    metadata = prepared(tmp_path, LOG.replace("time", "x").replace(",1", ",p").replace(",2", ",q"))
    health = metadata["health"]
    assert metadata["time"] is None
    assert (health["ties"], health["over_time"]) == (None, None)
    assert (health["test"]["leaking"], health["test"]["newer_training_share"]) == (None, None)
    assert health["test"]["cold"] == 1


def test_warnings_say_what_follows(tmp_path):
    ties, leak, cold = warnings(prepared(tmp_path, LOG))
    assert "16.7% of neighbouring interactions have the same time" in ties
    assert "for 0.0% of users it decides which item is tested" in ties
    assert "50.0% of the test items are older" in leak and "--split temporal does not" in leak
    assert "can hardly find them" in cold


def test_a_healthy_dataset_warns_of_nothing(tmp_path):
    lines = [f"u{user},i{(user + step) % 9},{step}" for user in range(9) for step in range(9)]
    metadata = prepared(tmp_path, "user,item,time\n" + "\n".join(lines))
    assert warnings(metadata) == []
    (nothing,) = warnings(prepared(tmp_path, "user,item\nann,a\n"))
    assert "no user has a test item" in nothing


def test_a_dataset_that_is_reused_keeps_its_health_and_one_without_is_made_anew(tmp_path):
    (log := tmp_path / "log.csv").write_text(LOG)
    first = preprocess(log, data_dir=tmp_path, min_interactions=1)
    second = preprocess(log, data_dir=tmp_path, min_interactions=1)
    assert second.reused and second.metadata["health"] == first.metadata["health"]
    file = first.path / "dataset.json"
    metadata = json.loads(file.read_text())
    health = metadata.pop("health")
    file.write_text(json.dumps(metadata))
    third = preprocess(log, data_dir=tmp_path, min_interactions=1)
    assert not third.reused and third.metadata["health"] == health


def test_lists_of_numbers_take_one_line_each(tmp_path):
    metadata = prepared(tmp_path, LOG)
    text = (tmp_path / "log" / "dataset.json").read_text()
    assert json.loads(text) == metadata
    train = json.dumps(metadata["health"]["over_time"]["train"])
    assert f'"train": {train},' in text


def test_arrays_that_are_no_dataset_are_refused():
    with pytest.raises(ConfigError, match="expected those of a dataset"):
        count([[1, 5]], [[0, 1]], None, [0.0], num_items=4)
    with pytest.raises(ConfigError, match="expected those of a dataset"):
        count([[1, 2]], [[0, 3]], None, [0.0], num_items=4)
    with pytest.raises(ConfigError, match="expected those of a dataset"):
        count([[1, 2]], [[0, 1]], [[1, 2, 3]], [0.0], num_items=4)
