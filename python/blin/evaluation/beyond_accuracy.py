"""What the lists of a model hold, whether it is right or not.

The list of a history holds the k best items that are not in it, as ``blin recommend`` gives them:
of items with the same score the one of lower index comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blin.evaluation.ranking import Progress, unseen_scores
from blin.evaluation.targets import Targets
from blin.models import Scorer
from blin.nn.top import best_items


def beyond_accuracy(
    model: Scorer, targets: Targets, ks: Sequence[int], *, on_progress: Progress | None = None
) -> dict[str, float]:
    """Returns coverage, novelty, popular share and Gini of the lists of length k, for every k.

    They are defined in :func:`measures_of`.

    Args:
        model: anything that scores.
        targets: whose histories the lists are for; what is held out plays no part.
        ks: lengths of the lists.
        on_progress: called with the lists done and the lists to do.
    """
    num_items = targets.dataset.num_items
    counts = {k: np.zeros(num_items + 1, dtype=np.int64) for k in ks}
    longest = min(max(ks), num_items)
    for _, scores, _ in unseen_scores(model, targets, on_progress=on_progress):
        values, items = best_items(scores, longest)
        listed = np.isfinite(values)  # less than k where the history leaves less
        for k, count in counts.items():
            count += np.bincount(items[:, :k][listed[:, :k]], minlength=num_items + 1)
    training = targets.dataset.training_counts()
    return {
        f"{name}@{k}": value
        for k, count in counts.items()
        for name, value in measures_of(count[1:], training).items()
    }


def measures_of(listed: NDArray[np.int64], training: NDArray[np.int64]) -> dict[str, float]:
    """Returns what is measured of lists, by how often each item is in them.

    With c(i) the lists that item i is in, n(i) its training interactions, C and N their sums over
    the V items:

    - coverage: the share of the items with c(i) > 0;
    - novelty: Σ c(i)/C · −log₂((n(i) + 1)/(N + V)), the mean self-information of a place in a list,
      in bits; one interaction more for each item, so that a cold item's is finite;
    - popular-share: Σ c(i)/C over the ⌈V/10⌉ items with the highest n(i), of equal ones those of
      lower index;
    - gini: of the c(i): 0 if all items are in as many lists, 1 − 1/V if one item is in all.

    Without any item in a list there is only the coverage.

    Args:
        listed: (V,) c(i).
        training: (V,) n(i).
    """
    total = int(listed.sum())
    coverage = float((listed > 0).mean())
    if total == 0:
        return {"coverage": coverage}
    size = len(listed)
    shares = (training + 1) / (training.sum() + size)
    popular = np.argsort(-training, kind="stable")[: -(-size // 10)]
    places = np.arange(1, size + 1)
    return {
        "coverage": coverage,
        "novelty": float(-(listed * np.log2(shares)).sum() / total),
        "popular-share": float(listed[popular].sum() / total),
        "gini": float(((2 * places - size - 1) * np.sort(listed)).sum() / (size * total)),
    }
