"""Whether two evaluations of the same users differ by more than chance.

The unit is the user: all comparisons are paired, a user's value under one run against the same
user's value under the other. Statistical tests are SciPy's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from blin.errors import CheckpointError, ConfigError
from blin.evaluation.metrics import user_values
from blin.evaluation.per_user import PerUser

_GRID = float(1 << 30)
"""What differs by less than 2⁻³⁰ or so is level: it may be equal and computed in another way, as
1/20 - 1/21 and 1/28 - 1/30 are. Means are taken as multiples of it in the permutation test."""

_VALUES_AT_ONCE = 1 << 21
"""Values drawn at a time by a resampling, 16 MiB."""


@dataclass(frozen=True)
class Comparison:
    """How much better evaluation B is than evaluation A by one metric, over the same users.

    Attributes:
        first: name of A.
        second: name of B.
        metric: such as ``NDCG@10``.
        difference: mean over the users of B minus A.
        low: lower end of its bootstrap interval.
        high: upper end of its bootstrap interval.
        p: two-sided p-value of the paired permutation test: how often a difference at least this
            large comes about when, for each user, it is left to chance which run is which.
        p_holm: ``p`` corrected by Holm for the number of comparisons made at once.
        effect: the difference in standard deviations of the paired differences (Cohen's d_z);
            None where these do not vary.
        wins: users for whom B does better.
        losses: users for whom B does worse.
        ties: users for whom both do equally well.
    """

    first: str
    second: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float | None
    wins: int
    losses: int
    ties: int


Evaluations = Mapping[str, PerUser | Sequence[PerUser]]
"""By name: an evaluation; or those of several seeds, which stand for one whose value for each user
is the mean over them."""


def compare(
    evaluations: Evaluations,
    *,
    metrics: Sequence[str] = ("HR@10", "NDCG@10"),
    all_pairs: bool = False,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> list[Comparison]:
    """Compares evaluations pair by pair, user by user.

    Args:
        evaluations: two or more by name, of one protocol, on the same users and items.
        metrics: names such as ``HR@10``, ``NDCG@20``, ``MRR``.
        all_pairs: compare each with each; otherwise the others with the first.
        confidence: of the intervals, in (0, 1).
        resamples: of each bootstrap and of each permutation test; a smallest p-value of
            2 / (``resamples`` + 1) can be found.
        seed: of the resampling.

    Returns:
        For each pair, its metrics; by pair, then metric.

    Raises:
        CheckpointError: The protocols, users or targets differ.
        ConfigError: An argument is out of range.
    """
    if len(evaluations) < 2:
        raise ConfigError(f"expected two or more evaluations, found {len(evaluations)}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence: expected a number between 0 and 1, found {confidence}")
    if resamples < 99:
        raise ConfigError(f"resamples: expected at least 99, found {resamples}")
    _check_all_alike(evaluations)
    metrics = list(dict.fromkeys(metrics))
    names = list(evaluations)
    values = {m: {n: values_of(e, m) for n, e in evaluations.items()} for m in metrics}
    pairs = combinations(names, 2) if all_pairs else ((names[0], name) for name in names[1:])
    found = [
        _compare(a, b, metric, values[metric], confidence, resamples, seed)
        for a, b in pairs
        for metric in metrics
    ]
    corrected = holm(np.array([comparison.p for comparison in found]))
    return [replace(c, p_holm=float(p)) for c, p in zip(found, corrected, strict=True)]


def clearly_best(
    evaluations: Evaluations,
    metric: str,
    *,
    level: float = 0.05,
    resamples: int = 9999,
    seed: int = 0,
) -> str | None:
    """Returns the evaluation that does better than each of the others by more than chance.

    The one with the highest mean is compared with all others, as :func:`compare` does it for one
    metric; all of the p-values, corrected by Holm for the number of the others, must be at most
    ``level``.

    Args:
        evaluations: two or more by name, of one protocol, on the same users and items.
        metric: such as ``NDCG@10``.
        level: of significance.
        resamples: of each permutation test.
        seed: of the resampling.

    Returns:
        Its name; None if no evaluation is clearly the best.

    Raises:
        CheckpointError: The protocols, users or targets differ.
        ConfigError: There is no such metric.
    """
    _check_all_alike(evaluations)
    names = list(evaluations)
    values = {name: values_of(evaluations[name], metric) for name in names}
    means = {name: float(each.mean()) for name, each in values.items()}
    best, *others = sorted(names, key=lambda name: -means[name])
    found: list[float] = []
    # The closest first: where even one is too close, the tests of the others are spared.
    for name in others:
        found.append(_paired_p(_differences(values[name], values[best]), resamples, seed))
        if found[-1] > level:
            return None
    return best if found and (holm(np.array(found)) <= level).all() else None


def values_of(evaluation: PerUser | Sequence[PerUser], metric: str) -> NDArray[np.float64]:
    """Returns the metric of each user, (U,), such as ``NDCG@10``; see :func:`user_values`.

    Of several evaluations it is the mean of each user's values.

    Raises:
        ConfigError: There is no such metric.
    """
    if not isinstance(evaluation, PerUser):
        found = [values_of(each, metric) for each in evaluation]
        return np.mean(found, axis=0)  # type: ignore[no-any-return]
    match = re.fullmatch(r"MRR|(?:HR|NDCG)@([1-9]\d{0,8})", metric)
    if match is None:
        raise ConfigError(f'expected a metric such as HR@10, NDCG@20 or MRR, found "{metric}"')
    ks = [int(match[1])] if match[1] else []
    return user_values(evaluation.ranks, ks, users=evaluation.users)[metric]


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns p-values corrected for their number (Holm 1979, step-down)."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def _compare(
    a: str,
    b: str,
    metric: str,
    values: Mapping[str, NDArray[np.float64]],
    confidence: float,
    resamples: int,
    seed: int,
) -> Comparison:
    differences = _differences(values[a], values[b])
    p = _paired_p(differences, resamples, seed)
    mean = float(differences.mean())
    low, high, effect = mean, mean, None
    # The mean of equal numbers may be off by the last digit, and so their spread not be 0.
    if len(differences) > 1 and np.ptp(differences) > 1 / _GRID:
        effect = mean / float(differences.std(ddof=1))
        interval = stats.bootstrap(
            (differences,),
            _mean,
            method="percentile",
            vectorized=True,
            n_resamples=resamples,
            confidence_level=confidence,
            batch=max(1, _VALUES_AT_ONCE // len(differences)),
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Comparison(
        first=a,
        second=b,
        metric=metric,
        difference=mean,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        effect=effect,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def _differences(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    differences = after - before
    return np.where(np.abs(differences) < 1 / _GRID, 0.0, differences)


def _paired_p(differences: NDArray[np.float64], resamples: int, seed: int) -> float:
    """Returns the two-sided p-value of the paired permutation test."""
    # Exchanging equal values changes nothing: those users need no permutation. Of one user alone
    # either order is as likely, so p is 1.
    unequal = differences[differences != 0]
    if len(unequal) < 2:
        return 1.0
    test = stats.permutation_test(
        (unequal,),
        _rounded_mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _VALUES_AT_ONCE // len(unequal)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _rounded_mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.round(values.mean(axis=axis) * _GRID) / _GRID  # type: ignore[no-any-return]


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return values.mean(axis=axis)  # type: ignore[no-any-return]


def _check_all_alike(evaluations: Evaluations) -> None:
    members = [
        (name, each)
        for name, found in evaluations.items()
        for each in ([found] if isinstance(found, PerUser) else found)
    ]
    for name, each in members[1:]:
        _check_alike(*members[0], name, each)


def _check_alike(name: str, first: PerUser, other: str, second: PerUser) -> None:
    for key in sorted(first.protocol.keys() | second.protocol.keys()):
        here, there = first.protocol.get(key), second.protocol.get(key)
        if here != there:
            raise CheckpointError(
                f"{other}: it cannot be compared with {name}: {key}: expected {_named(here)}, as "
                f"there, found {_named(there)}"
            )
    for what, here, there in (
        ("users", first.user_ids, second.user_ids),
        ("targets", first.target_ids, second.target_ids),
    ):
        if not here.equals(there):
            raise CheckpointError(
                f"{other}: it cannot be compared with {name}: it has other {what}"
            )


def _named(value: object) -> str:
    return "nothing" if value is None else str(value)
