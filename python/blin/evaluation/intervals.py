"""How far a metric would have moved with other users of the same kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000


def bootstrap_intervals(
    values: Mapping[str, NDArray[np.float64]], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns the percentile bootstrap interval of each mean over users.

    Users are drawn with replacement, as many as there are, :data:`RESAMPLES` times; between the
    ends lie :data:`LEVEL` of the means. All metrics share the draws. Of a single user nothing is
    known about others: there is no interval.

    Args:
        values: (U,) values by metric.
        seed: of the draws.
    """
    table = np.stack(list(values.values()))
    count = table.shape[1]
    if count < 2:
        return {}
    generator = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, len(table)))
    for number in range(RESAMPLES):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        # Not a matrix product: its last bits depend on the number of threads.
        means[number] = (table * drawn).sum(axis=1) / count
    tail = (1 - LEVEL) / 2
    ends = np.quantile(means, [tail, 1 - tail], axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(values, *ends, strict=True)}
