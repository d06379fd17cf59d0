from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from blin import evaluate
from blin.data.dataset import Dataset
from blin.evaluation import intervals
from blin.evaluation.intervals import bootstrap_intervals
from evaluation.scorers import random_model


def test_intervals_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other draws of the same distribution: the ends agree to what 20,000 draws can say."""
    monkeypatch.setattr(intervals, "RESAMPLES", 20_000)
    values = np.random.default_rng(5).random(50) ** 3
    low, high = bootstrap_intervals({"MRR": values})["MRR"]
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", vectorized=True
    ).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.002)
    assert high == pytest.approx(expected.high, abs=0.002)
    assert expected.high - expected.low > 0.1


def test_intervals_are_quantiles_of_means_of_drawn_users() -> None:
    values = {"HR@1": np.array([0.0, 1.0, 1.0]), "MRR": np.array([0.1, 1.0, 1.0])}
    generator = np.random.default_rng(3)
    means: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(1000):
        drawn = generator.integers(0, 3, 3)
        for name, each in values.items():
            means[name].append(sum(each[user] for user in drawn) / 3)
    found = bootstrap_intervals(values, seed=3)
    for name, each in means.items():
        assert found[name] == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])), abs=1e-12)
    assert found == bootstrap_intervals(values, seed=3), "the same draws every time"


def test_an_interval_needs_two_users() -> None:
    assert bootstrap_intervals({"MRR": np.array([0.5])}) == {}


def test_users_who_fare_alike_leave_no_doubt() -> None:
    assert bootstrap_intervals({"MRR": np.full(9, 0.25)}) == {"MRR": (0.25, 0.25)}


def test_an_evaluation_has_intervals_around_its_metrics(small_dataset: Dataset) -> None:
    found = evaluate(random_model(small_dataset, levels=50), small_dataset, negatives=9, k=[3])
    assert found.intervals.keys() == found.metrics.keys()
    for name, (low, high) in found.intervals.items():
        assert low < found.metrics[name] < high
