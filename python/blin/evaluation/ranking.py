"""The rank of each held-out item, by counting what scores above it.

Three things are settled here, for every model alike:

- Padding and the items of the user's history are no candidates. The held-out item itself always
  is, also when the user has had it before.
- Items that score as high as the held-out one are ranked in a random order. The draw belongs to
  the user, so it is the same for every model and every run; a model that scores all items alike
  does as well as chance.
- A score that is not a number is an error, never a rank.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin._core import NegativeSampler
from blin.data.dataset import Dataset
from blin.data.health import tie_luck
from blin.data.loader import flat_histories, history_batch
from blin.errors import BlinError
from blin.models import Scorer

SCORES_AT_ONCE = 1 << 21
"""Scores held at a time, 8 MiB: the allocator hands the same memory out again and again."""

Progress = Callable[[int, int], None]


def full_ranks(
    model: Scorer, dataset: Dataset, split: str, *, on_progress: Progress | None = None
) -> NDArray[np.int64]:
    """Returns the rank of each user's held-out item among the whole catalogue, (users,)."""
    return _ranks(model, dataset, split, None, on_progress)


def sampled_ranks(
    model: Scorer,
    dataset: Dataset,
    split: str,
    *,
    negatives: int,
    sampling: str,
    seed: int,
    on_progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Returns the rank of each user's held-out item among ``negatives`` drawn ones, (users,).

    The negatives are distinct, drawn from the items outside the user's whole sequence, anew for
    each seed and user: each item alike (``uniform``) or in proportion to its number of training
    interactions (``popularity``).
    """
    counts = dataset.training_counts() if sampling == "popularity" else None
    sampler = NegativeSampler(dataset.num_items, counts=counts)

    def draw(users: NDArray[np.int64]) -> Tensor:
        drawn = np.empty((len(users), negatives), dtype=np.int64)
        sampler.fill_outside_history(
            dataset.items,
            dataset.offsets[users],
            dataset.offsets[users + 1],
            users.astype(np.uint32),
            seed,
            drawn,
        )
        return torch.from_numpy(drawn)

    return _ranks(model, dataset, split, draw, on_progress)


def _ranks(
    model: Scorer,
    dataset: Dataset,
    split: str,
    draw: Callable[[NDArray[np.int64]], Tensor] | None,
    on_progress: Progress | None,
) -> NDArray[np.int64]:
    users, places = dataset.held_out(split)
    luck = tie_luck(dataset.num_users)[users]
    size = max(1, min(1024, SCORES_AT_ONCE // (dataset.num_items + 1)))
    ranks = np.empty(len(users), dtype=np.int64)
    # Users with histories of like length go together: a batch is as wide as its longest.
    order = np.argsort(places - dataset.offsets[users], kind="stable")
    for start in range(0, len(users), size):
        part = order[start : start + size]
        starts, ends = dataset.offsets[users[part]], places[part]
        batch = history_batch(dataset.items, starts, ends, model.batch_spec)
        targets = torch.from_numpy(dataset.items[ends].astype(np.int64)).unsqueeze(-1)
        if draw is None:
            scores = model.score(batch)
            targets = targets.to(scores.device)
            own = scores.gather(1, targets)
            _check(scores)
            rows, items = flat_histories(dataset.items, starts, ends)
            scores[:, 0] = -torch.inf
            scores[rows.to(scores.device), items.to(scores.device)] = -torch.inf
            scores.scatter_(1, targets, own)
        else:
            scores = model.score(batch, torch.cat([targets, draw(users[part])], dim=1))
            own = scores[:, :1]
            _check(scores)
        above, level = _above_and_level(scores, own)  # level: the held-out item among them
        ranks[part] = 1 + above + np.floor(luck[part] * level).astype(np.int64)
        if on_progress is not None:
            on_progress(min(start + size, len(users)), len(users))
    return ranks


def _above_and_level(scores: Tensor, own: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many scores of each row are above its own one, and how many equal it."""
    if scores.device.type == "cpu" and scores.dtype != torch.bfloat16:
        # NumPy compares and counts five times as fast as torch does, and knows no bfloat16.
        rows, mine = scores.numpy(), own.numpy()
        return _count(rows > mine), _count(rows == mine)
    # Summing booleans as bytes is many times faster than as booleans.
    above, level = (
        marks.view(torch.int8).sum(1, dtype=torch.int64).cpu().numpy()
        for marks in (scores > own, scores == own)
    )
    return above, level


def _count(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.fromiter(map(np.count_nonzero, marks), dtype=np.int64, count=len(marks))


def _check(scores: Tensor) -> None:
    if not torch.isfinite(scores.sum()):
        raise BlinError("the model's scores are not finite: it diverged, and cannot be ranked by")
