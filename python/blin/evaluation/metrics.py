"""Metrics of the ranks of held-out items; rank 1 is the top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import log2

import numpy as np
from numpy.typing import NDArray

MISS = 2**31 - 1
"""The rank of a target that counts as a miss for every k."""


def metrics_of(
    ranks: NDArray[np.integer], ks: Iterable[int], *, users: NDArray[np.int64] | None = None
) -> dict[str, float]:
    """Returns HR@k and NDCG@k for every k, and MRR: the means of :func:`user_values`.

    >>> metrics_of(np.array([1, 3, 11]), [10])
    {'HR@10': 0.6666666666666666, 'NDCG@10': 0.5, 'MRR': 0.4747474747474747}
    """
    ks = list(ks)
    values = user_values(ranks, ks, users=users)
    metrics = {name: float(each.mean()) for name, each in values.items()}
    hr, ndcg = ({k: metrics[f"{name}@{k}"] for k in ks} for name in ("HR", "NDCG"))
    assert possible(hr, ndcg, rounding=1e-9), f"metrics that no ranks have: {metrics}"
    return metrics


def user_values(
    ranks: NDArray[np.integer], ks: Iterable[int], *, users: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Returns each metric of each user, (U,), users in ascending order.

    With one relevant item, HR@k is 1 for a rank ≤ k, NDCG@k is 1/log₂(rank + 1) for a rank ≤ k, and
    MRR 1/rank. The value of a user with several targets is the mean over them.

    Args:
        ranks: (T,) rank of each target, or :data:`MISS`.
        ks: lengths of the lists, below :data:`MISS`.
        users: (T,) number of each target's user; None if each has one target.
    """
    exact = ranks.astype(np.float64)
    gains = 1 / np.log2(exact + 1)
    values = {}
    for k in ks:
        hit = ranks <= k
        values[f"HR@{k}"] = hit.astype(np.float64)
        values[f"NDCG@{k}"] = gains * hit
    values["MRR"] = np.where(ranks == MISS, 0.0, 1 / exact)
    if users is None:
        return values
    _, rows, counts = np.unique(users, return_inverse=True, return_counts=True)
    return {
        name: np.bincount(rows, weights=each, minlength=len(counts)) / counts
        for name, each in values.items()
    }


def possible(hr: Mapping[int, float], ndcg: Mapping[int, float], *, rounding: float) -> bool:
    """Returns whether there can be ranks with these HR@k and NDCG@k.

    A hit between rank j + 1 and rank k adds between 1/log₂(k + 1) and 1/log₂(j + 2) to the NDCG, so
    what NDCG@k is above NDCG@j, or above 0, lies between so many times what HR@k is above HR@j. If
    the answer is no, a number is wrong; if it is yes, they may still all be wrong.

    >>> possible({10: 0.2775, 20: 0.3572}, {10: 0.1752, 20: 0.1961}, rounding=0.00005)
    True
    >>> possible({10: 0.2775, 20: 0.3572}, {10: 0.1752, 20: 0.2161}, rounding=0.00005)
    False

    Args:
        hr: HR@k by k, for at least one k.
        ndcg: NDCG@k for the same k.
        rounding: the most by which each number may be off; half a unit of its last digit.
    """
    if hr.keys() != ndcg.keys():
        raise ValueError(f"expected the same k for both, found {sorted(hr)} and {sorted(ndcg)}")
    for j, k in pairwise([0, *sorted(hr)]):
        # HR@0 and NDCG@0 are 0, and known exactly.
        slack = rounding * (2 if j else 1)
        hits = hr[k] - hr.get(j, 0.0)
        gain = ndcg[k] - ndcg.get(j, 0.0)
        least = max(0.0, hits - slack) / log2(k + 1)
        most = (hits + slack) / log2(j + 2)
        if not (least <= gain + slack and gain - slack <= most and hits >= -slack):
            return False
    return all(-rounding <= value <= 1 + rounding for value in hr.values())
