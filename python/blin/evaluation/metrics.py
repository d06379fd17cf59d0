"""Metrics of the rank of one held-out item per user; rank 1 is the top."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def metrics_of(ranks: NDArray[np.int64], ks: Iterable[int]) -> dict[str, float]:
    """Returns HR@k and NDCG@k for every k, and MRR, averaged over the users.

    With one relevant item, HR@k is the share of ranks ≤ k, NDCG@k the mean of 1/log₂(rank + 1)
    over them, and MRR the mean of 1/rank over all users.

    >>> metrics_of(np.array([1, 3, 11]), [10])
    {'HR@10': 0.6666666666666666, 'NDCG@10': 0.5, 'MRR': 0.4747474747474747}
    """
    gains = 1 / np.log2(ranks + 1)
    metrics = {}
    for k in ks:
        hit = ranks <= k
        metrics[f"HR@{k}"] = float(hit.mean())
        metrics[f"NDCG@{k}"] = float((gains * hit).mean())
    metrics["MRR"] = float((1 / ranks).mean())
    return metrics
