from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blin import evaluate
from blin.data.dataset import Dataset
from blin.data.health import tie_luck
from blin.errors import DataError
from blin.evaluation import targets as targets_module
from blin.evaluation.metrics import MISS
from blin.evaluation.targets import Targets
from evaluation.logs import prepared, temporal_dataset
from evaluation.scorers import constant_model, random_model
from reference import ranking as reference


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return temporal_dataset(tmp_path_factory.mktemp("temporal"))


def expected_targets(dataset: Dataset, split: str, which: str) -> list[tuple[int, int]]:
    """(user, step) of each target."""
    return [
        (user, step)
        for user in range(dataset.num_users)
        for step in reference.held_out(
            dataset.sequence(user).tolist(), tuple(dataset.splits[user].tolist()), split, which
        )
    ]


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("which", ["first", "last", "all"])
@pytest.mark.parametrize("levels", [2, 50])
def test_each_target_is_ranked_after_all_that_comes_before(
    temporal: Dataset, split: str, which: str, levels: int
) -> None:
    model = random_model(temporal, levels=levels)
    luck = tie_luck(temporal.num_users)
    found = evaluate(model, temporal, k=[3], split=split, targets=which)
    pairs = expected_targets(temporal, split, which)
    assert found.targets.users.tolist() == [user for user, _ in pairs]
    assert found.targets.history.tolist() == [step for _, step in pairs]
    training = [
        item
        for user in range(temporal.num_users)
        for item in temporal.sequence(user)[: temporal.splits[user, 0]].tolist()
    ]
    for row, (user, step) in enumerate(pairs):
        sequence = temporal.sequence(user).tolist()
        history, target = sequence[:step], sequence[step]
        scores = model.table[history[-1]].tolist()
        assert found.ranks[row] == reference.rank(scores, set(history), target, luck[user])
        assert found.targets.repeats[row] == (target in history)
        assert found.targets.popularity[row] == training.count(target)
    assert (found.targets.popularity == 0).any(), "the log has cold targets"
    assert found.protocol["ranked"] == len(pairs)
    assert found.users == found.protocol["users"] == len({user for user, _ in pairs})
    suffix = "" if which == "first" else f"[targets-{which}]"
    hits = [float(rank <= 3) for rank in found.ranks]
    mean = reference.mean_over_users(hits, [user for user, _ in pairs])
    assert found.metrics[f"HR@3{suffix}"] == pytest.approx(mean, abs=1e-12)


def test_under_leave_one_out_all_targets_are_the_same(small_dataset: Dataset) -> None:
    model = random_model(small_dataset, levels=50)
    first, last, every = (
        evaluate(model, small_dataset, targets=which) for which in ("first", "last", "all")
    )
    assert first.protocol == last.protocol == every.protocol
    assert first.metrics == last.metrics == every.metrics
    assert every.name == "test"


def test_what_is_held_out_is_asked_for_by_name(small_dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="targets must be one of first, last, all, got 'random'"):
        small_dataset.held_out("test", "random")


@pytest.mark.parametrize("at_once", [1, 7, 1 << 22])
def test_repeats_are_found_some_at_a_time(
    temporal: Dataset, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_module, "_STEPS_AT_ONCE", at_once)
    targets = Targets(temporal, *temporal.held_out("test", "all"))
    expected = [
        temporal.items[place] in temporal.items[start:place]
        for start, place in zip(targets.starts, targets.places, strict=True)
    ]
    assert targets.repeats.tolist() == expected
    assert any(expected) and not all(expected)


@pytest.mark.parametrize("negatives", [None, 4])
def test_repeats_are_candidates_misses_or_left_out(
    temporal: Dataset, negatives: int | None
) -> None:
    model = random_model(temporal, levels=50)
    options = {"targets": "all", "negatives": negatives, "k": [3]}
    usual, miss, skip = (
        evaluate(model, temporal, repeats=rule, **options) for rule in ("candidate", "miss", "skip")
    )
    repeats = usual.targets.repeats
    assert 0 < repeats.sum() < len(repeats)
    assert miss.ranks.tolist() == np.where(repeats, MISS, usual.ranks).tolist()
    assert skip.ranks.tolist() == usual.ranks[~repeats].tolist()
    assert skip.protocol["ranked"] == (~repeats).sum()
    drawn = [] if negatives is None else ["uniform-4"]
    for evaluation, rule in ((usual, []), (miss, ["repeats-miss"]), (skip, ["repeats-skip"])):
        unusual = [*drawn, "targets-all", *rule]
        assert f"HR@3[{','.join(unusual)}]" in evaluation.metrics
        assert evaluation.name == "-".join(["test", *unusual, *(["s0"] if drawn else [])])
        assert evaluation.protocol["repeats"] == (rule[0][8:] if rule else "candidate")


def test_all_targets_of_a_user_are_ranked_among_the_same_negatives(temporal: Dataset) -> None:
    first = evaluate(random_model(temporal, levels=1000), temporal, negatives=5)
    every = evaluate(random_model(temporal, levels=1000), temporal, negatives=5, targets="all")
    _, rows = np.unique(every.targets.users, return_index=True)
    shared = np.isin(every.targets.users[rows], first.targets.users)
    same = np.isin(every.targets.places[rows][shared], first.targets.places)
    assert every.ranks[rows][shared][same].tolist() == first.ranks.tolist()


def test_nothing_to_rank_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n" + "".join(f"u{n % 3},i{n % 3},{n}\n" for n in range(12)))
    again = prepared(log)
    assert evaluate(constant_model(again), again).users == 3
    with pytest.raises(DataError, match="no user has a test item that they have not had before"):
        evaluate(constant_model(again), again, repeats="skip")
