from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blin import evaluate
from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError
from blin.evaluation import ranking
from evaluation.scorers import Fixed, random_model
from reference import ranking as reference


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("at_once", [1, 500, 1 << 21])
def test_ranks_are_those_of_a_sort(
    small_dataset: Dataset,
    split: str,
    levels: int,
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", at_once)
    model = random_model(small_dataset, levels=levels)
    ranks = evaluate(model, small_dataset, split=split).ranks
    cut = -1 if split == "test" else -2
    for user, rank in enumerate(ranks.tolist()):
        sequence = small_dataset.sequence(user).tolist()
        history, target = sequence[:cut], sequence[cut]
        scores = model.table[history[-1]].tolist()
        assert rank in reference.possible_ranks(scores, set(history), target)


class Largest(TorchDispatchMode):
    """Measures every tensor that torch makes: how many numbers the largest has."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = call(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("negatives", [None, 9])
@pytest.mark.parametrize("at_once", [1, 500])
def test_no_tensor_is_larger_than_the_scores_held_at_a_time(
    small_dataset: Dataset, at_once: int, negatives: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or than a row of them. All users together have 120 rows of 41."""
    model = random_model(small_dataset, levels=100)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", at_once)
    with Largest() as largest:
        evaluate(model, small_dataset, negatives=negatives, beyond_accuracy=negatives is None)
    row = small_dataset.num_items + 1
    assert row <= largest.numbers <= max(at_once, row)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 1 << 21)
    with Largest() as largest:
        evaluate(model, small_dataset)
    assert largest.numbers >= 120 * row  # what it would be without the bound


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_ranks_are_the_same_for_every_kind_of_floats(
    small_dataset: Dataset, kind: torch.dtype
) -> None:
    model = random_model(small_dataset, levels=100)
    expected = evaluate(model, small_dataset).ranks
    model.table = model.table.to(kind)
    assert evaluate(model, small_dataset).ranks.tolist() == expected.tolist()


def test_a_constant_model_does_as_well_as_chance(small_dataset: Dataset) -> None:
    size = small_dataset.num_items + 1
    metrics = evaluate(Fixed(small_dataset, torch.ones(size, size)), small_dataset, k=[10]).metrics
    unseen = np.mean(
        [
            small_dataset.num_items - len(set(small_dataset.sequence(user)[:-1].tolist()))
            for user in range(small_dataset.num_users)
        ]
    )
    assert abs(metrics["HR@10"] - 10 / unseen) < 0.1


def test_ties_are_broken_the_same_way_every_time(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=2)
    first, second = (evaluate(model, small_dataset).ranks for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(small_dataset: Dataset, bad: float) -> None:
    model = random_model(small_dataset, levels=9)
    model.table[:, 3] = bad
    with pytest.raises(BlinError, match="not finite"):
        evaluate(model, small_dataset)


def test_a_target_in_its_own_history_can_be_ranked(small_dataset: Dataset) -> None:
    size = small_dataset.num_items + 1
    best = {}
    for user in range(small_dataset.num_users):
        sequence = small_dataset.sequence(user).tolist()
        if sequence[-1] in sequence[:-1]:
            best[user] = sequence[-1]
    assert best, "the log has repeats"
    for user, target in best.items():
        table = torch.zeros(size, size)
        table[:, target] = 1
        assert evaluate(Fixed(small_dataset, table), small_dataset).ranks[user] == 1


def test_sampled_ranks_are_among_the_drawn_and_have_their_own_name(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=1000)
    sampled = evaluate(model, small_dataset, k=[5], negatives=10, seed=3)
    assert set(sampled.metrics) == {"HR@5[uniform-10]", "NDCG@5[uniform-10]", "MRR[uniform-10]"}
    assert sampled.protocol["ranking"] == "uniform-10"
    assert sampled.ranks.min() >= 1 and sampled.ranks.max() <= 11
    again = evaluate(model, small_dataset, k=[5], negatives=10, seed=3)
    other = evaluate(model, small_dataset, k=[5], negatives=10, seed=4)
    assert sampled.ranks.tolist() == again.ranks.tolist() != other.ranks.tolist()
    popular = evaluate(model, small_dataset, k=[5], negatives=10, sampling="popularity")
    assert set(popular.metrics) >= {"HR@5[popularity-10]"}
    full = evaluate(model, small_dataset, k=[5])
    assert sampled.metrics["HR@5[uniform-10]"] > full.metrics["HR@5"]


def test_an_evaluation_is_kept_under_the_name_of_its_protocol(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    model = random_model(small_dataset, levels=1000)
    first = evaluate(model, small_dataset, k=[5])
    assert first.save(tmp_path / "eval").name == "test.json"
    (tmp_path / "eval" / "valid.json").write_text("{")
    assert (
        evaluate(model, small_dataset, split="valid").save(tmp_path / "eval").name == "valid.json"
    )
    sampled = evaluate(model, small_dataset, negatives=10, seed=3)
    assert sampled.save(tmp_path / "eval").name == "test-uniform-10-s3.json"
    second = evaluate(model, small_dataset, k=[7])
    kept = json.loads(second.save(tmp_path / "eval").read_text())
    assert kept["protocol"] == first.protocol
    assert kept["metrics"] == {**first.metrics, **second.metrics}
    assert kept["intervals"].keys() == kept["metrics"].keys()
    assert kept["groups"]["repeats"]["new"]["metrics"].keys() == kept["metrics"].keys()


def test_metrics_of_other_weights_are_not_kept(small_dataset: Dataset, tmp_path: Path) -> None:
    evaluate(random_model(small_dataset, levels=1000), small_dataset, k=[5]).save(tmp_path / "eval")
    model = random_model(small_dataset, levels=999)
    other = evaluate(model, small_dataset, k=[7])
    record = json.loads(other.save(tmp_path / "eval").read_text())
    both = evaluate(model, small_dataset, k=[5, 7])
    assert record["metrics"] == both.metrics
    assert record["intervals"] == {name: list(ends) for name, ends in both.intervals.items()}


def test_a_record_says_where_its_numbers_come_from(small_dataset: Dataset, tmp_path: Path) -> None:
    model = random_model(small_dataset, levels=1000)
    model.name = "dice"
    found = evaluate(model, small_dataset, negatives=10, seed=3, repeats="miss")
    (tmp_path / "some-run").mkdir()
    record = json.loads(found.save(tmp_path / "some-run" / "eval").read_text())
    assert record["protocol"] == {
        "dataset": "small",
        "fingerprint": small_dataset.fingerprint,
        "split": "test",
        "targets": "first",
        "repeats": "miss",
        "ranking": "uniform-10",
        "masked": "whole sequence",
        "ties": "random",
        "users": small_dataset.num_users,
        "ranked": small_dataset.num_users,
        "seed": 3,
    }
    assert (record["model"], record["run"]) == ("dice", "some-run")
    assert record["versions"].keys() == {"blin", "torch", "numpy"}
    assert record["date"].endswith("+00:00")
    assert record["per_user"]["file"] == "test-uniform-10-repeats-miss-s3.per_user.parquet"
    assert [list(ends) for ends in found.intervals.values()] == list(record["intervals"].values())


def test_wrong_arguments_are_named(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=3)
    with pytest.raises(ConfigError, match=r"k: expected whole numbers of at least 1, below"):
        evaluate(model, small_dataset, k=[0])
    with pytest.raises(ConfigError, match="split: expected one of valid, test, found 'train'"):
        evaluate(model, small_dataset, split="train")
    with pytest.raises(ConfigError, match="negatives: expected 1 to 39, fewer than there are"):
        evaluate(model, small_dataset, negatives=40)
    with pytest.raises(ConfigError, match="sampling: expected one of uniform, popularity, found"):
        evaluate(model, small_dataset, negatives=3, sampling="x")
    model.num_items = 7
    with pytest.raises(ConfigError, match="expected a dataset of 7 items, found 40"):
        evaluate(model, small_dataset)
