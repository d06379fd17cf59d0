from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin.evaluation.metrics import MISS, metrics_of, possible, user_values
from reference import ranking as reference

RANKS = st.lists(st.integers(1, 60), min_size=1)


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


@given(ranks=RANKS, k=st.integers(1, 50), data=st.data())
def test_the_targets_of_a_user_are_averaged_first(
    ranks: list[int], k: int, data: st.DataObject
) -> None:
    users = [data.draw(st.integers(0, 5)) for _ in ranks]
    found = metrics_of(np.array(ranks), [k], users=np.array(users))
    for name, column in ((f"HR@{k}", 0), (f"NDCG@{k}", 1), ("MRR", 2)):
        values = [reference.metrics([rank], k)[column] for rank in ranks]
        assert found[name] == pytest.approx(reference.mean_over_users(values, users), abs=1e-12)


def test_several_targets_by_hand() -> None:
    # The first user has ranks 1 and 3, the second rank 11.
    found = metrics_of(np.array([1, 3, 11]), [10], users=np.array([4, 4, 9]))
    assert found["HR@10"] == (1 + 0) / 2
    assert found["NDCG@10"] == ((1 + 1 / 2) / 2 + 0) / 2
    assert found["MRR"] == pytest.approx(((1 + 1 / 3) / 2 + 1 / 11) / 2)


@given(ranks=RANKS)
def test_one_target_a_user_is_the_plain_mean(ranks: list[int]) -> None:
    found = metrics_of(np.array(ranks), [10], users=np.arange(len(ranks)))
    assert found == metrics_of(np.array(ranks), [10])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_miss_is_never_a_hit(dtype: type[np.integer]) -> None:
    found = metrics_of(np.array([1, MISS], dtype), [MISS - 1])
    assert found == {f"HR@{MISS - 1}": 0.5, f"NDCG@{MISS - 1}": 0.5, "MRR": 0.5}
    values = user_values(np.array([1, MISS], dtype), [10])
    assert values["NDCG@10"].tolist() == values["MRR"].tolist() == [1, 0]


@given(ranks=st.lists(st.integers(1, 40) | st.just(MISS), min_size=1), data=st.data())
def test_metrics_of_ranks_are_possible(ranks: list[int], data: st.DataObject) -> None:
    ks = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True))
    found = metrics_of(np.array(ranks), ks)
    hr, ndcg = ({k: round(found[f"{name}@{k}"], 3) for k in ks} for name in ("HR", "NDCG"))
    assert possible(hr, ndcg, rounding=0.0005 + 1e-12)


@given(st.integers(1, 9), st.integers(10, 40), st.floats(0, 1), st.sampled_from([-1, 1]))
def test_gains_outside_the_bounds_are_impossible(
    shorter: int, longer: int, share: float, side: int
) -> None:
    """All hits are between the two k: the gain of one is that of some rank between them."""
    low, high = 1 / np.log2(longer + 1), 1 / np.log2(shorter + 2)
    hr = {shorter: 0.0, longer: 0.5}
    inside = 0.5 * (low + share * (high - low))
    assert possible(hr, {shorter: 0.0, longer: inside}, rounding=1e-12)
    outside = 0.5 * (high if side > 0 else low) + side * 0.001
    assert not possible(hr, {shorter: 0.0, longer: outside}, rounding=0.0001)


def test_published_numbers_are_audited() -> None:
    """SASRec on Beauty: two tables of real evaluations, and one whose NDCG@20 is too high."""
    real = [
        ({10: 0.2775, 20: 0.3572}, {10: 0.1752, 20: 0.1961}),
        ({10: 0.0591, 20: 0.0919}, {10: 0.0312, 20: 0.0394}),
        ({10: 0.2828, 20: 0.3562}, {10: 0.1743, 20: 0.1928}),
        ({10: 0.3456, 20: 0.4539}, {10: 0.2128, 20: 0.2400}),
    ]
    for hr, ndcg in real:
        assert possible(hr, ndcg, rounding=0.00005)
    # Blin's row of Beauty: a place of 11 to 20 would add .311 for each hit, more than rank 11 can.
    hr, ndcg = {10: 0.3319, 20: 0.4051}, {10: 0.2218, 20: 0.2446}
    assert not possible(hr, ndcg, rounding=0.00005)
    assert possible(hr, ndcg, rounding=0.005), "two digits would have hidden it"


@pytest.mark.parametrize(
    ("hr", "ndcg"),
    [
        ({10: 0.3, 20: 0.2}, {10: 0.2, 20: 0.2}),  # fewer hits in a longer list
        ({10: 0.3}, {10: 0.31}),  # more gain than hits
        ({10: 0.3}, {10: 0.05}),  # all hits at rank 10 would give more
        ({1: 0.3}, {1: 0.25}),  # at rank 1 they are equal
        ({10: 1.2}, {10: 0.9}),
        ({10: -0.1}, {10: 0.0}),
    ],
)
def test_impossible_numbers_are_recognised(hr: dict[int, float], ndcg: dict[int, float]) -> None:
    assert not possible(hr, ndcg, rounding=0.0005)


def test_an_audit_needs_both_metrics_at_the_same_k() -> None:
    with pytest.raises(ValueError, match=r"expected the same k for both, found \[10\] and \[20\]"):
        possible({10: 0.3}, {20: 0.2}, rounding=0.0005)
