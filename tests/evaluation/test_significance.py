"""Paired comparisons against their definitions, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blin.errors import CheckpointError, ConfigError
from blin.evaluation.metrics import metrics_of
from blin.evaluation.per_user import PerUser
from blin.evaluation.significance import clearly_best, compare, holm, values_of
from reference import significance as reference

PROTOCOL = {"dataset": "shop", "fingerprint": "f", "split": "test", "ranking": "full"}


def evaluation(ranks: list[int], *, users: list[str] | None = None) -> PerUser:
    users = users or [f"u{place}" for place in range(len(ranks))]
    return PerUser(
        protocol=dict(PROTOCOL),
        user_ids=pa.array(users),
        target_ids=pa.array([f"i{place}" for place in range(len(ranks))]),
        ranks=np.array(ranks, dtype=np.int32),
        history=np.full(len(ranks), 3, dtype=np.int32),
        popularity=np.ones(len(ranks), dtype=np.int64),
    )


ranks = st.lists(st.integers(1, 30), min_size=8, max_size=8)


@settings(deadline=None)
@given(ranks, ranks)
@example([1, 1, 1, 1, 1, 20, 1, 30], [1, 1, 1, 1, 1, 21, 2, 28])  # 1/20 - 1/21 = 1/28 - 1/30
@example([1, 1, 1, 1, 1, 1, 20, 30], [1, 1, 1, 1, 2, 21, 28, 1])
def test_p_values_of_few_users_are_those_of_all_exchanges(first, second):
    a, b = evaluation(first), evaluation(second)
    for found in compare({"a": a, "b": b}, metrics=["HR@10", "NDCG@10", "MRR"], resamples=999):
        before = [_gain(rank, found.metric) for rank in first]
        after = [_gain(rank, found.metric) for rank in second]
        differences = [y - x for x, y in zip(before, after, strict=True)]
        assert found.difference == pytest.approx(sum(differences) / 8, abs=1e-9)
        assert found.p == pytest.approx(reference.exact_permutation_p(differences), abs=1e-12)
        assert found.wins == sum(d > 0 for d in differences)
        assert found.losses == sum(d < 0 for d in differences)
        assert found.wins + found.losses + found.ties == 8
        assert found.low <= found.high


def _gain(rank, metric):
    if metric == "MRR":
        return 1 / rank
    if rank > 10:
        return 0.0
    return 1.0 if metric == "HR@10" else 1 / np.log2(rank + 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p):
    assert holm(np.array(p)).tolist() == pytest.approx(reference.holm(p))


@settings(deadline=None, max_examples=40)
@given(st.lists(ranks, min_size=2, max_size=4), st.sampled_from([0.05, 0.2, 0.6]))
def test_the_best_is_clear_where_every_corrected_comparison_says_so(all_ranks, level):
    evaluations = {f"r{place}": evaluation(each) for place, each in enumerate(all_ranks)}
    found = clearly_best(evaluations, "MRR", level=level, resamples=999)
    means = {name: values_of(each, "MRR").mean() for name, each in evaluations.items()}
    best = max(means, key=lambda name: means[name])
    first = {best: evaluations[best]} | evaluations
    clear = all(each.p_holm <= level for each in compare(first, metrics=["MRR"], resamples=999))
    assert found == (best if clear else None)


def test_the_best_is_sought_among_comparable_evaluations_only():
    other = replace(evaluation([1, 2]), protocol=PROTOCOL | {"ranking": "uniform-5"})
    with pytest.raises(CheckpointError, match="it cannot be compared"):
        clearly_best({"a": evaluation([1, 2]), "b": other}, "MRR")


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_comparisons_are_corrected_together():
    draw = np.random.default_rng(0)
    a, b, c = (evaluation(draw.integers(1, 30, 200).tolist()) for _ in range(3))
    found = compare({"a": a, "b": b, "c": c}, metrics=["HR@10", "MRR"], resamples=199)
    assert [(f.first, f.second, f.metric) for f in found] == [
        ("a", "b", "HR@10"),
        ("a", "b", "MRR"),
        ("a", "c", "HR@10"),
        ("a", "c", "MRR"),
    ]
    assert [f.p_holm for f in found] == pytest.approx(reference.holm([f.p for f in found]))
    pairs = {
        (f.first, f.second)
        for f in compare({"a": a, "b": b, "c": c}, all_pairs=True, resamples=199)
    }
    assert pairs == {("a", "b"), ("a", "c"), ("b", "c")}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=12))
def test_a_user_with_several_targets_counts_once(rows):
    users, found = [user for user, _ in rows], [rank for _, rank in rows]
    values = values_of(evaluation(found, users=users), "NDCG@10")
    wanted = reference.user_means(users, [_gain(rank, "NDCG@10") for rank in found])
    assert values.tolist() == pytest.approx(wanted, abs=1e-9)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_the_gains_average_to_the_metrics(found):
    for name, value in metrics_of(np.array(found, dtype=np.int32), [1, 10]).items():
        assert values_of(evaluation(found), name).mean() == pytest.approx(value, abs=1e-9)


def test_a_run_against_its_equal_shows_nothing():
    a = evaluation([1, 5, 20, 3])
    (found,) = compare({"a": a, "b": a}, metrics=["NDCG@10"], resamples=99)
    assert (found.difference, found.p, found.p_holm, found.ties) == (0.0, 1.0, 1.0, 4)
    assert (found.low, found.high, found.effect) == (0.0, 0.0, None)


@pytest.mark.parametrize("users", range(2, 12))
def test_a_gain_that_is_the_same_for_all_has_no_effect_size(users):
    worse, better = evaluation([2] * users), evaluation([1] * users)
    (found,) = compare({"a": worse, "b": better}, metrics=["NDCG@10"], resamples=99)
    assert found.low == found.high == found.difference == pytest.approx(1 - 1 / np.log2(3))
    assert found.effect is None


def test_chance_alone_is_seldom_significant_and_a_real_gain_is():
    draw = np.random.default_rng(1)
    better = 0
    for _ in range(40):
        a, b = (evaluation(draw.integers(1, 40, 300).tolist()) for _ in range(2))
        (found,) = compare({"a": a, "b": b}, metrics=["HR@10"], resamples=199)
        better += found.p < 0.05
    assert better <= 7
    base = draw.integers(2, 40, 300)
    (found,) = compare(
        {"a": evaluation(base.tolist()), "b": evaluation((base // 2).tolist())},
        metrics=["NDCG@10"],
        resamples=999,
    )
    assert found.p == pytest.approx(2 / 1000)
    assert 0 < found.low < found.difference < found.high
    assert found.wins > 0 == found.losses


def test_the_same_seed_gives_the_same_intervals():
    draw = np.random.default_rng(2)
    a, b = (evaluation(draw.integers(1, 40, 100).tolist()) for _ in range(2))
    assert compare({"a": a, "b": b}, resamples=199, seed=3) == compare(
        {"a": a, "b": b}, resamples=199, seed=3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranking": "uniform-500"}, "ranking: expected full, as there, found uniform-500"),
        ({"fingerprint": "g"}, "fingerprint: expected f, as there, found g"),
        ({"repeats": "miss"}, "repeats: expected nothing, as there, found miss"),
    ],
)
def test_unlike_protocols_are_refused(change, message):
    a, b = evaluation([1, 2]), evaluation([2, 1])
    b = replace(b, protocol={**b.protocol, **change})
    with pytest.raises(CheckpointError, match=f"b: it cannot be compared with a: {message}"):
        compare({"a": a, "b": b})


def test_other_users_and_other_targets_are_refused():
    a = evaluation([1, 2])
    with pytest.raises(CheckpointError, match="it has other users"):
        compare({"a": a, "b": evaluation([1, 2], users=["u0", "u7"])})
    with pytest.raises(CheckpointError, match="it has other targets"):
        compare({"a": a, "b": replace(a, target_ids=pa.array(["i0", "i7"]))})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["HR"]}, 'expected a metric such as HR@10, NDCG@20 or MRR, found "HR"'),
        ({"metrics": ["HR@0"]}, 'found "HR@0"'),
        ({"confidence": 1.0}, "confidence: expected a number between 0 and 1, found 1.0"),
        ({"resamples": 5}, "resamples: expected at least 99, found 5"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    a = evaluation([1, 2])
    with pytest.raises(ConfigError, match=message):
        compare({"a": a, "b": a}, **arguments)


def test_one_run_is_no_comparison():
    with pytest.raises(ConfigError, match="expected two or more evaluations, found 1"):
        compare({"a": evaluation([1])})


def test_seeds_of_one_model_stand_for_it_by_the_mean_of_each_user():
    first = [evaluation([1, 5, 30, 2, 9]), evaluation([3, 1, 40, 2, 50])]
    second = [
        evaluation([1, 1, 2, 30, 9]),
        evaluation([2, 2, 2, 2, 2]),
        evaluation([9, 9, 9, 9, 9]),
    ]
    means = [
        np.mean([values_of(each, "MRR") for each in found], axis=0) for found in (first, second)
    ]
    (found,) = compare({"a": first, "b": second}, metrics=["MRR"], resamples=999)
    differences = (means[1] - means[0]).tolist()
    assert found.difference == pytest.approx(np.mean(differences), abs=1e-12)
    assert found.p == pytest.approx(reference.exact_permutation_p(differences), abs=1e-12)
    assert found.wins == sum(d > 0 for d in differences)
    (alone,) = compare({"a": first[0], "b": second[0]}, metrics=["MRR"], resamples=999)
    (single,) = compare({"a": first[:1], "b": second[:1]}, metrics=["MRR"], resamples=999)
    assert alone == single
    assert clearly_best({"a": first, "b": second}, "MRR", level=1.0) == "b"


def test_a_seed_by_another_protocol_is_refused():
    other = replace(evaluation([1, 2]), protocol=PROTOCOL | {"ranking": "uniform-5"})
    with pytest.raises(CheckpointError, match="it cannot be compared"):
        compare({"a": evaluation([1, 2]), "b": [evaluation([1, 2]), other]})
