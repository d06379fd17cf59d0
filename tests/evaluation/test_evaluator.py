from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blin import evaluate
from blin.batch import Batch, BatchSpec
from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError
from blin.evaluation import ranking
from blin.evaluation.metrics import metrics_of
from reference import ranking as reference


class Fixed:
    """Scores by a function of the batch's last items."""

    def __init__(self, dataset: Dataset, table: Tensor) -> None:
        self.num_items = dataset.num_items
        self.table = table  # (V + 1, V + 1): the scores after each last item

    @property
    def batch_spec(self) -> BatchSpec:
        return BatchSpec(max_len=3, positions="absolute", views=1, num_negatives=0)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        scores = self.table[batch.views[0].items[:, -1]].clone()
        return scores if candidates is None else scores.gather(1, candidates)


def random_model(dataset: Dataset, *, levels: int) -> Fixed:
    size = dataset.num_items + 1
    generator = torch.Generator().manual_seed(levels)
    return Fixed(dataset, torch.randint(0, levels, (size, size), generator=generator).float())


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


@given(ranks=st.lists(st.integers(1, 60), min_size=1), k=st.integers(1, 50))
def test_metrics_are_their_definitions(ranks: list[int], k: int) -> None:
    found = metrics_of(np.array(ranks), [k])
    expected = reference.metrics(ranks, k)
    assert [found[f"HR@{k}"], found[f"NDCG@{k}"], found["MRR"]] == pytest.approx(expected)


def test_metrics_of_three_users_by_hand() -> None:
    found = metrics_of(np.array([1, 3, 11]), [10, 20])
    assert found["HR@10"] == pytest.approx(2 / 3)
    assert found["NDCG@10"] == pytest.approx((1 + 1 / 2) / 3)
    assert found["HR@20"] == 1
    assert found["NDCG@20"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(12)) / 3)
    assert found["MRR"] == pytest.approx((1 + 1 / 3 + 1 / 11) / 3)


def test_wrong_arguments_are_named(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=3)
    with pytest.raises(ConfigError, match=r"k: expected lengths of at least 1, found \[0\]"):
        evaluate(model, small_dataset, k=[0])
    with pytest.raises(ConfigError, match="split: expected one of valid, test, found 'train'"):
        evaluate(model, small_dataset, split="train")
    with pytest.raises(ConfigError, match="negatives: expected 1 to 39, fewer than there are"):
        evaluate(model, small_dataset, negatives=40)
    with pytest.raises(ConfigError, match="sampling: expected uniform or popularity, found 'x'"):
        evaluate(model, small_dataset, negatives=3, sampling="x")
    model.num_items = 7
    with pytest.raises(ConfigError, match="expected a dataset of 7 items, found 40"):
        evaluate(model, small_dataset)
