"""Models, logs and arguments that somebody will come with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blin import evaluate
from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError, DataError
from blin.vocabulary import Vocabulary
from evaluation.logs import prepared, temporal_dataset
from evaluation.scorers import constant_model, random_model


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("negatives", [None, 25])
def test_a_score_that_is_not_finite_is_an_error(
    small_dataset: Dataset, bad: float, negatives: int | None
) -> None:
    model = random_model(small_dataset, levels=9)
    model.table[7, 3] = bad
    with pytest.raises(BlinError, match="not finite"):
        evaluate(model, small_dataset, negatives=negatives)


def test_scores_whose_sum_is_infinite_are_numbers(small_dataset: Dataset) -> None:
    usual = evaluate(constant_model(small_dataset), small_dataset)
    high = evaluate(constant_model(small_dataset, 3e38), small_dataset)
    assert high.ranks.tolist() == usual.ranks.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_what_padding_scores_does_not_matter(small_dataset: Dataset, value: float) -> None:
    model = random_model(small_dataset, levels=9)
    usual = evaluate(model, small_dataset, beyond_accuracy=True)
    model.table[:, 0] = value
    found = evaluate(model, small_dataset, beyond_accuracy=True)
    assert found.ranks.tolist() == usual.ranks.tolist()
    assert found.beyond_accuracy == usual.beyond_accuracy


def test_scores_of_another_form_are_an_error(small_dataset: Dataset) -> None:
    narrow = random_model(small_dataset, levels=9)
    narrow.table = narrow.table[:, 1:]
    message = r"expected floats of shape \(\d+, 41\), found torch.float32 of \(\d+, 40\)"
    with pytest.raises(BlinError, match=message):
        evaluate(narrow, small_dataset)
    counting = random_model(small_dataset, levels=9)
    counting.table = counting.table.long()
    for negatives in (None, 3):
        with pytest.raises(BlinError, match="expected floats of shape .*, found torch.int64 of"):
            evaluate(counting, small_dataset, negatives=negatives)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_scores_may_have_any_precision(small_dataset: Dataset, dtype: torch.dtype) -> None:
    model = random_model(small_dataset, levels=1000)
    usual = evaluate(model, small_dataset)
    model.table = model.table.to(dtype)  # whole numbers below 2,048 are exact in half precision
    assert evaluate(model, small_dataset).ranks.tolist() == usual.ranks.tolist()


def test_lists_may_be_longer_than_the_catalogue(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=1000)
    found = evaluate(model, small_dataset, k=[10**6, 10**6, 5])
    assert list(found.metrics) == ["HR@5", "NDCG@5", "HR@1000000", "NDCG@1000000", "MRR"]
    assert found.metrics["HR@1000000"] == 1
    assert evaluate(model, small_dataset, k=np.array([5, 10**6])).metrics == found.metrics
    missed = evaluate(model, small_dataset, k=[10**6], repeats="miss")
    share = found.targets.repeats.mean()
    assert 0 < share < 1
    assert missed.metrics["HR@1000000[repeats-miss]"] == pytest.approx(1 - share)


def test_who_had_everything_finds_what_is_held_out(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = "u,a,1\nu,a,2\nu,b,3\nu,c,4\nu,a,5\nv,b,1\nv,c,2\nv,a,3\n"
    log.write_text("user,item,time\n" + rows)
    dataset = prepared(log)
    model = random_model(dataset, levels=9)
    found = evaluate(model, dataset, k=[1])
    assert found.ranks.tolist() == [1, 1], "nothing else is left"
    missed = evaluate(model, dataset, k=[1], repeats="miss").metrics
    assert missed == {f"{name}[repeats-miss]": 0.5 for name in ("HR@1", "NDCG@1", "MRR")}
    with pytest.raises(ConfigError, match="negatives: expected at most 0, the items left to draw"):
        evaluate(model, dataset, negatives=1)


def test_cold_targets_are_ranked_like_all_others(tmp_path: Path) -> None:
    """Popularity draws no cold negatives, and a cold target is ranked among those it draws."""
    dataset = temporal_dataset(tmp_path)
    found = evaluate(random_model(dataset, levels=1000), dataset, targets="all")
    cold = found.targets.popularity == 0
    assert cold.any() and (found.ranks[cold] <= 10).any() and (found.ranks[cold] > 10).any()
    drawn = evaluate(
        random_model(dataset, levels=1000), dataset, negatives=1, sampling="popularity"
    )
    assert (drawn.targets.popularity == 0).any()
    assert set(drawn.ranks.tolist()) == {1, 2}
    groups = found.groups["popularity"]
    assert groups["0"]["targets"] == cold.sum()


def test_nobody_to_rank_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nu,b,2\nv,b,1\n")
    dataset = prepared(log)
    with pytest.raises(DataError, match="no user has a test item$"):
        evaluate(constant_model(dataset), dataset)


def test_one_user_is_an_evaluation_without_intervals(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nu,b,2\nu,c,3\n")
    dataset = prepared(log)
    found = evaluate(constant_model(dataset), dataset)
    assert (found.users, found.intervals) == (1, {})
    found.save(tmp_path / "eval")


def test_the_items_must_be_those_of_the_model(small_dataset: Dataset) -> None:
    model: Any = random_model(small_dataset, levels=9)
    ids = small_dataset.item_ids.ids
    model.item_ids = Vocabulary(ids.take(list(reversed(range(len(ids))))), first=1)
    with pytest.raises(ConfigError, match="expected a dataset of the model's items, found"):
        evaluate(model, small_dataset)
    model.item_ids = Vocabulary(ids, first=1)
    assert evaluate(model, small_dataset).users == small_dataset.num_users


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": []}, r"k: expected whole numbers of at least 1, below 2\^31, found \[\]"),
        ({"k": [2**31]}, r"k: expected whole numbers of at least 1, below 2\^31, found"),
        ({"k": 5}, r"k: expected whole numbers of at least 1, below 2\^31, found 5"),
        ({"k": ["5"]}, r"k: expected whole numbers of at least 1, below 2\^31, found \['5'\]"),
        ({"k": [1.5]}, r"k: expected whole numbers of at least 1, below 2\^31, found \[1.5\]"),
        ({"targets": "random"}, "targets: expected one of first, last, all, found 'random'"),
        ({"repeats": "mask"}, "repeats: expected one of candidate, miss, skip, found 'mask'"),
        ({"negatives": 0}, "negatives: expected at least 1, found 0"),
        ({"negatives": 40}, "negatives: expected 1 to 39, fewer than there are items, found 40"),
        ({"negatives": 5.0}, "negatives: expected a whole number, found 5.0"),
        ({"negatives": True}, "negatives: expected a whole number, found True"),
        ({"negatives": 39}, "negatives: expected at most .*, the items left to draw for"),
        ({"seed": -1}, "seed: expected at least 0, found -1"),
        ({"seed": 2**64}, r"seed: expected a number below 2\^64, found 18446744073709551616"),
        ({"seed": "1"}, "seed: expected a whole number, found '1'"),
    ],
)
def test_arguments_out_of_range_are_named(
    small_dataset: Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(random_model(small_dataset, levels=9), small_dataset, **options)
