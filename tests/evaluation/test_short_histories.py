"""Models that are shown the newest few items of a history only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blin import Evaluation, evaluate
from blin.checkpoint import TrainedModel
from blin.config import build
from blin.data.dataset import Dataset
from blin.data.health import tie_luck
from blin.data.loader import history_batch, training_interactions
from blin.errors import CheckpointError, ConfigError
from blin.evaluation.per_user import SUFFIX, read_per_user
from blin.evaluation.significance import compare
from blin.models import BASELINES, MODELS, Counted
from evaluation.logs import temporal_dataset
from evaluation.scorers import random_model
from learned import LEARNED, lively, module_of
from reference import ranking as reference


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return temporal_dataset(tmp_path_factory.mktemp("temporal"))


def model_of(name: str, dataset: Dataset) -> TrainedModel:
    if name in LEARNED:
        return TrainedModel(name, lively(module_of(name, dataset.num_items)), dataset.item_ids)
    module = MODELS[name].module(dataset.num_items, build(MODELS[name].config, {}))
    assert isinstance(module, Counted)
    module.count(training_interactions(dataset))
    return TrainedModel(name, module, dataset.item_ids)


@pytest.mark.parametrize("name", [*LEARNED, *BASELINES])
def test_ranks_are_those_of_histories_that_were_cut(temporal: Dataset, name: str) -> None:
    model = model_of(name, temporal)
    luck = tie_luck(temporal.num_users)
    found = evaluate(model, temporal, targets="all", last=2)
    assert (found.targets.history > 2).any() and (found.targets.history < 2).any()
    for row in range(0, len(found.ranks), 9):
        user, step = int(found.targets.users[row]), int(found.targets.history[row])
        sequence = temporal.sequence(user)
        cut = slice(max(0, step - 2), step)
        times = temporal.timestamps[temporal.offsets[user] : temporal.offsets[user + 1]][cut]
        shown = np.ascontiguousarray(sequence[cut])
        bounds = np.array([0, len(shown)])
        batch = history_batch(shown, bounds[:1], bounds[1:], model.batch_spec, timestamps=times)
        with torch.inference_mode():
            scores = model.score(batch)[0].tolist()
        history, target = set(sequence[:step].tolist()), int(sequence[step])
        assert found.ranks[row] == reference.rank(scores, history, target, luck[user])
    alone, whole = (evaluate(model, temporal, targets="all", last=last) for last in (1, None))
    looks_back = name not in ("popularity", "recent-popularity", "markov")
    assert (alone.ranks != whole.ranks).any() == looks_back


@pytest.mark.parametrize("negatives", [None, 3])
def test_who_is_ranked_among_what_is_that_of_the_whole_history(
    temporal: Dataset, negatives: int | None
) -> None:
    # What a model makes of the newest item alone does not change, so nothing else may.
    model = random_model(temporal, levels=4)
    options = {"targets": "all", "repeats": "skip", "negatives": negatives}
    whole = evaluate(model, temporal, **options)
    for last in (1, 2, 1000):
        found = evaluate(model, temporal, **options, last=last)
        assert found.ranks.tolist() == whole.ranks.tolist()
        assert found.protocol == {**whole.protocol, "history": f"last-{last}"}
        assert found.groups["history"].keys() == whole.groups["history"].keys()


def test_lists_are_those_of_what_was_shown_without_the_whole_history(temporal: Dataset) -> None:
    whole, found = (
        evaluate(random_model(temporal, levels=50), temporal, last=last, beyond_accuracy=True)
        for last in (None, 1)
    )
    assert found.beyond_accuracy == named(whole)
    knn = model_of("item-knn", temporal)
    whole, found = (evaluate(knn, temporal, last=last, beyond_accuracy=True) for last in (None, 1))
    assert found.beyond_accuracy is not None and found.beyond_accuracy.keys() == named(whole).keys()
    assert found.beyond_accuracy != named(whole)


def named(whole: Evaluation) -> dict[str, float]:
    """The measures of the lists by the names that they have where histories are cut to one item."""
    assert whole.beyond_accuracy is not None
    return {f"{name}[last-1]": value for name, value in whole.beyond_accuracy.items()}


def test_no_user_has_more_than_the_longest_history(temporal: Dataset) -> None:
    model = model_of("item-knn", temporal)
    found = evaluate(model, temporal, last=int(np.diff(temporal.offsets).max()))
    assert found.ranks.tolist() == evaluate(model, temporal).ranks.tolist()


def test_cut_histories_have_names_of_their_own(temporal: Dataset, tmp_path: Path) -> None:
    model = random_model(temporal, levels=50)
    found = evaluate(model, temporal, k=[5], last=3)
    assert set(found.metrics) == {"HR@5[last-3]", "NDCG@5[last-3]", "MRR[last-3]"}
    assert found.intervals.keys() == found.metrics.keys()
    assert found.save(tmp_path / "eval").name == "test-last-3.json"
    sampled = evaluate(model, temporal, k=[5], last=3, negatives=4, split="valid", repeats="miss")
    assert "HR@5[uniform-4,last-3,repeats-miss]" in sampled.metrics
    assert sampled.save(tmp_path / "eval").name == "valid-uniform-4-last-3-repeats-miss-s0.json"
    record = json.loads((tmp_path / "eval" / "test-last-3.json").read_text())
    assert record["protocol"]["history"] == "last-3"
    assert record["per_user"]["file"] == f"test-last-3{SUFFIX}"
    assert "history" not in evaluate(model, temporal).protocol


def test_ranks_by_cut_histories_are_not_compared_with_others(
    temporal: Dataset, tmp_path: Path
) -> None:
    model = random_model(temporal, levels=50)
    files = {
        last: evaluate(model, temporal, last=last).save(tmp_path / "eval").with_suffix("")
        for last in (None, 1, 2)
    }
    ranks = {last: read_per_user(Path(f"{file}{SUFFIX}")) for last, file in files.items()}
    for one, other in ((None, 1), (1, None), (1, 2)):
        with pytest.raises(CheckpointError, match="cannot be compared with a: history: expected"):
            compare({"a": ranks[one], "b": ranks[other]}, resamples=99)


@pytest.mark.parametrize("last", [0, -1, 2**31, 1.5, "3", True])
def test_what_is_no_number_of_items_is_refused(temporal: Dataset, last: object) -> None:
    message = f"last: expected .*, found {last!r}$"
    with pytest.raises(ConfigError, match=message):
        evaluate(random_model(temporal, levels=3), temporal, last=last)
