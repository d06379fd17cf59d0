"""One meaning of ±."""

from __future__ import annotations

import pytest
from scipy import stats

from blin.experiments.seeds import Interval, interval_note


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    # Of two values the half-width is t(0.975; 1) = 12.706 times half of their distance.
    found = Interval.of([0.1, 0.2], 0.95)
    assert found.mean == pytest.approx(0.15)
    assert found.low == pytest.approx(0.15 - 12.7062 * 0.05, abs=1e-5)
    assert found.high == pytest.approx(0.15 + 12.7062 * 0.05, abs=1e-5)
    assert str(Interval.of([0.1, 0.1, 0.1], 0.9)) == "0.1000 ± 0.0000"
    assert Interval.of([0.1], 0.95) == Interval(0.1, None, None)


@pytest.mark.parametrize(("count", "confidence"), [(2, 0.9), (3, 0.95), (30, 0.99)])
def test_half_of_it_is_what_scipy_makes_of_the_values(count: int, confidence: float) -> None:
    values = [0.1 + 0.01 * (number % 3) for number in range(count)]
    mean, error = sum(values) / count, float(stats.sem(values))
    low, high = stats.t.interval(confidence, count - 1, loc=mean, scale=error)
    found = Interval.of(values, confidence)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.half == pytest.approx((high - low) / 2)
    assert interval_note(confidence).endswith(f"{100 * confidence:g} % interval")
