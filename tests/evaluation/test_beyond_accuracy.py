from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blin import evaluate
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.evaluation import ranking
from blin.evaluation.beyond_accuracy import measures_of
from evaluation.logs import prepared, temporal_dataset
from evaluation.scorers import Fixed, constant_model, random_model
from reference import ranking as reference


def lists_of(model: Fixed, dataset: Dataset, places: list[int], k: int) -> list[list[int]]:
    """The k best items outside each history, the lower index first on a tie."""
    lists = []
    for place in places:
        user = int(np.searchsorted(dataset.offsets, place, side="right")) - 1
        history = dataset.items[dataset.offsets[user] : place].tolist()
        scores = model.table[history[-1]].tolist()
        unseen = [item for item in range(1, len(scores)) if item not in history]
        lists.append(sorted(unseen, key=lambda item: (-scores[item], item))[:k])
    return lists


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("at_once", [1, 500, 1 << 21])
@pytest.mark.parametrize("which", ["first", "all"])
def test_the_measures_are_those_of_the_lists(
    tmp_path: Path, levels: int, at_once: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", at_once)
    dataset = temporal_dataset(tmp_path)
    model = random_model(dataset, levels=levels)
    ks = (1, 5, dataset.num_items + 7)
    found = evaluate(model, dataset, k=ks, targets=which, beyond_accuracy=True)
    starts, ends = dataset.training_ranges()
    training = np.concatenate([dataset.items[a:b] for a, b in zip(starts, ends, strict=True)])
    expected, suffix = {}, "" if which == "first" else "[targets-all]"
    for k in ks:
        lists = lists_of(model, dataset, found.targets.places.tolist(), k)
        measures = reference.list_measures(lists, training.tolist(), dataset.num_items)
        expected |= {f"{name}@{k}{suffix}": value for name, value in measures.items()}
    assert found.beyond_accuracy == pytest.approx(expected, abs=1e-12)
    assert found.metrics == evaluate(model, dataset, k=ks, targets=which).metrics
    record = json.loads(found.save(tmp_path / "eval").read_text())
    assert record["beyond_accuracy"] == found.beyond_accuracy


@given(
    listed=st.lists(st.integers(0, 5), min_size=1, max_size=25).filter(any),
    data=st.data(),
)
def test_the_measures_are_their_definitions(listed: list[int], data: st.DataObject) -> None:
    training = [data.draw(st.integers(0, 5)) for _ in listed]
    found = measures_of(np.array(listed), np.array(training))

    def places(counts: list[int]) -> list[int]:
        return [item for item, count in enumerate(counts, start=1) for _ in range(count)]

    expected = reference.list_measures([places(listed)], places(training), len(listed))
    assert found == pytest.approx(expected, abs=1e-12)


def test_two_lists_by_hand() -> None:
    # Of four items, two lists: (1, 2) and (1, 3). Items 1, 2, 3, 4 train 3, 1, 0 and 0 times.
    found = measures_of(np.array([2, 1, 1, 0]), np.array([3, 1, 0, 0]))
    assert found == pytest.approx(
        {
            "coverage": 3 / 4,
            "novelty": (2 * -math.log2(4 / 8) - math.log2(2 / 8) - math.log2(1 / 8)) / 4,
            "popular-share": 2 / 4,
            "gini": ((-3) * 0 + (-1) * 1 + 1 * 1 + 3 * 2) / (4 * 4),
        }
    )
    assert found["novelty"] == (1 + 1 + 2 + 3) / 4


def test_everybody_gets_the_same_of_a_constant_model(small_dataset: Dataset) -> None:
    found = evaluate(constant_model(small_dataset), small_dataset, k=[1], beyond_accuracy=True)
    assert found.beyond_accuracy is not None
    assert found.beyond_accuracy["coverage@1"] < 0.5 and found.beyond_accuracy["gini@1"] > 0.8


def test_no_list_holds_what_was_had_even_if_it_is_held_out(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,a,4\nv,d,1\nv,e,2\nv,f,3\n")
    dataset = prepared(log)
    table = torch.zeros(7, 7)
    table[:, dataset.item_ids.index_of("a")] = 9
    found = evaluate(Fixed(dataset, table), dataset, k=[1], beyond_accuracy=True)
    assert found.ranks[dataset.user_ids.index_of("u")] == 1
    assert found.beyond_accuracy is not None
    assert found.beyond_accuracy["coverage@1"] == 2 / 6, "a for v, something new for u"


def test_users_who_had_everything_get_empty_lists(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nu,b,2\nu,a,3\n")
    dataset = prepared(log)
    found = evaluate(constant_model(dataset), dataset, k=[1], beyond_accuracy=True)
    assert found.beyond_accuracy == {"coverage@1": 0}
    assert found.ranks.tolist() == [1], "the only candidate is what is held out"


def test_drawn_candidates_make_no_lists(small_dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="beyond_accuracy: expected full ranking, found negat"):
        evaluate(constant_model(small_dataset), small_dataset, negatives=3, beyond_accuracy=True)
