"""The metrics against other people's: ``ir_measures``, which runs trec_eval, and ``ranx``.

They know nothing of held-out items: they are given what every user could be shown, with scores, and
the one item that is relevant. They break ties in ways of their own, so the scores have none.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from blin import evaluate
from blin.data.dataset import Dataset
from blin.evaluation.metrics import metrics_of, user_values
from evaluation.logs import temporal_dataset
from evaluation.scorers import Fixed

Run = dict[str, dict[str, float]]
Relevant = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def ranx() -> ModuleType:
    """Without its compiler, which takes longer than all that it would compile here."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        import ranx

        return ranx


def run_of(ranks: list[int], length: int) -> tuple[Run, Relevant]:
    """Lists in which the relevant item has the given rank, or is missing if they are too short."""
    run, relevant = {}, {}
    for number, rank in enumerate(ranks):
        run[f"q{number}"] = {f"d{place}": 1.0 + length - place for place in range(1, length + 1)}
        relevant[f"q{number}"] = {f"d{rank}": 1}
    return run, relevant


def by_trec(run: Run, relevant: Relevant, k: int) -> dict[str, dict[str, float]]:
    """Each metric of each query; HR@k under both of its names."""
    names = {Success @ k: f"HR@{k}", R @ k: f"Recall@{k}", nDCG @ k: f"NDCG@{k}", RR: "MRR"}
    found: dict[str, dict[str, float]] = {name: {} for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), relevant, run):
        found[names[metric.measure]][metric.query_id] = metric.value
    return found


def by_ranx(ranx: ModuleType, run: Run, relevant: Relevant, k: int) -> dict[str, float]:
    names = {f"hit_rate@{k}": "HR", f"recall@{k}": "Recall", f"ndcg@{k}": "NDCG", "mrr": "MRR"}
    found = ranx.evaluate(ranx.Qrels(relevant), ranx.Run(run), list(names))
    return {name if name == "MRR" else f"{name}@{k}": found[key] for key, name in names.items()}


@given(ranks=st.lists(st.integers(1, 60), min_size=1, max_size=12), k=st.integers(1, 70))
def test_metrics_are_those_of_trec_eval(ranks: list[int], k: int) -> None:
    expected = by_trec(*run_of(ranks, 60), k)
    found = user_values(np.array(ranks), [k])
    for name in (f"HR@{k}", f"NDCG@{k}", "MRR"):
        in_order = [expected[name][f"q{number}"] for number in range(len(ranks))]
        assert found[name] == pytest.approx(in_order, abs=1e-9)
    assert expected[f"Recall@{k}"] == expected[f"HR@{k}"]


@given(ranks=st.lists(st.integers(1, 30), min_size=1, max_size=6), k=st.integers(1, 35))
def test_metrics_are_those_of_ranx(ranx: ModuleType, ranks: list[int], k: int) -> None:
    expected = by_ranx(ranx, *run_of(ranks, 30), k)
    found = metrics_of(np.array(ranks), [k])
    assert {**found, f"Recall@{k}": found[f"HR@{k}"]} == pytest.approx(expected, abs=1e-9)


def test_a_target_behind_the_end_of_a_list_is_no_hit(ranx: ModuleType) -> None:
    run, relevant = run_of([1, 5, 6], 5)
    expected = by_ranx(ranx, run, relevant, 10)
    found = metrics_of(np.array([1, 5, 2**31 - 1]), [10])
    assert {**found, "Recall@10": found["HR@10"]} == pytest.approx(expected, abs=1e-9)
    trec = by_trec(run, relevant, 10)
    for name in found:
        assert found[name] == pytest.approx(sum(trec[name].values()) / 3, abs=1e-9)


@pytest.mark.parametrize("negatives", [None, 6])
def test_an_evaluation_gives_what_trec_eval_makes_of_its_scores(
    small_dataset: Dataset, ranx: ModuleType, negatives: int | None
) -> None:
    model = untied_model(small_dataset)
    evaluation = evaluate(model, small_dataset, k=[4], negatives=negatives)
    run, relevant = shown(model, small_dataset, evaluation.targets.places, negatives)
    name = "" if negatives is None else f"[uniform-{negatives}]"
    for expected in (
        {
            metric: np.mean(list(each.values()))
            for metric, each in by_trec(run, relevant, 4).items()
        },
        by_ranx(ranx, run, relevant, 4),
    ):
        for metric in ("HR@4", "NDCG@4", "MRR"):
            assert evaluation.metrics[metric + name] == pytest.approx(expected[metric], abs=1e-9)


def test_several_targets_of_a_user_are_queries_of_their_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dataset = temporal_dataset(tmp_path_factory.mktemp("oracle"))
    model = untied_model(dataset)
    evaluation = evaluate(model, dataset, k=[4], targets="all")
    run, relevant = shown(model, dataset, evaluation.targets.places, None)
    for metric, values in by_trec(run, relevant, 4).items():
        of_users: dict[int, list[float]] = {}
        for row, user in enumerate(evaluation.targets.users.tolist()):
            of_users.setdefault(user, []).append(values[str(row)])
        mean = np.mean([np.mean(each) for each in of_users.values()])
        if not metric.startswith("Recall"):
            assert evaluation.metrics[f"{metric}[targets-all]"] == pytest.approx(mean, abs=1e-9)


def untied_model(dataset: Dataset) -> Fixed:
    """No two items have the same score after the same item."""
    size = dataset.num_items + 1
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(size, generator=generator) for _ in range(size)]
    return Fixed(dataset, torch.stack(rows).float())


def shown(
    model: Fixed, dataset: Dataset, places: np.ndarray, negatives: int | None
) -> tuple[Run, Relevant]:
    """All candidates of each target with their scores, and which of them is held out."""
    from blin._core import NegativeSampler

    run, relevant = {}, {}
    sampler = NegativeSampler(dataset.num_items)
    for row, place in enumerate(places.tolist()):
        user = int(np.searchsorted(dataset.offsets, place, side="right")) - 1
        history, target = dataset.items[dataset.offsets[user] : place], int(dataset.items[place])
        if negatives is None:
            candidates = set(range(1, dataset.num_items + 1)) - set(history.tolist())
        else:
            drawn = np.empty((1, negatives), dtype=np.int64)
            bounds = (dataset.offsets[[user]], dataset.offsets[[user + 1]])
            sampler.fill_outside_history(
                dataset.items, *bounds, np.array([user], np.uint32), 0, drawn
            )
            candidates = set(drawn[0].tolist())
        scores = model.table[int(history[-1])].tolist()
        run[str(row)] = {str(item): scores[item] for item in candidates | {target}}
        relevant[str(row)] = {str(target): 1}
    return run, relevant
