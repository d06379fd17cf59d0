"""The rank of each held-out item, by counting what scores above it.

Three things are settled here, for every model alike:

- Padding and the items of the user's history are no candidates. The held-out item itself always
  is, also when the user has had it before.
- Items that score as high as the held-out one are ranked in a random order. The draw belongs to
  the user, so it is the same for every model and every run; a model that scores all items alike
  does as well as chance.
- A score that is not finite is an error, never a rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin._core import NegativeSampler, count_above
from blin.batch import Batch
from blin.data.health import tie_luck
from blin.data.loader import flat_histories, history_batch
from blin.errors import BlinError
from blin.evaluation.targets import Targets
from blin.models import Scorer

SCORES_AT_ONCE = 1 << 21
"""Scores held at a time, 8 MiB: the allocator hands the same memory out again and again.

A row of scores, one for each item, is the least: 1/D of what the items' embeddings take.
"""

Progress = Callable[[int, int], None]


def full_ranks(
    model: Scorer, targets: Targets, *, on_progress: Progress | None = None
) -> NDArray[np.int64]:
    """Returns the rank of each target among the whole catalogue, (T,)."""
    ranks = np.empty(len(targets), dtype=np.int64)
    luck = tie_luck(targets.dataset.num_users)[targets.users]
    for part, scores, own in unseen_scores(model, targets, on_progress=on_progress):
        items = torch.from_numpy(targets.items[part]).unsqueeze(-1)
        scores.scatter_(1, items.to(scores.device), own)
        ranks[part] = _ranks(scores, own, luck[part])
    return ranks


def sampled_ranks(
    model: Scorer,
    targets: Targets,
    *,
    negatives: int,
    sampling: str,
    seed: int,
    on_progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Returns the rank of each target among ``negatives`` drawn items, (T,).

    The negatives are distinct, drawn from the items outside the user's whole sequence, anew for
    each seed and user: each item alike (``uniform``) or in proportion to its number of training
    interactions (``popularity``). All targets of a user are ranked among the same.
    """
    dataset = targets.dataset
    counts = dataset.training_counts() if sampling == "popularity" else None
    sampler = NegativeSampler(dataset.num_items, counts=counts)
    ranks = np.empty(len(targets), dtype=np.int64)
    luck = tie_luck(dataset.num_users)[targets.users]
    for part, batch in _batches(model, targets, on_progress):
        users = targets.users[part]
        drawn = np.empty((len(users), negatives), dtype=np.int64)
        sampler.fill_outside_history(
            dataset.items,
            dataset.offsets[users],
            dataset.offsets[users + 1],
            users.astype(np.uint32),
            seed,
            drawn,
        )
        candidates = np.concatenate([targets.items[part][:, None], drawn], axis=1)
        scores = model.score(batch, torch.from_numpy(candidates))
        _check_form(scores, candidates.shape)
        _check_finite(scores)
        ranks[part] = _ranks(scores, scores[:, :1], luck[part])
    return ranks


def unseen_scores(
    model: Scorer, targets: Targets, *, on_progress: Progress | None = None
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yields the scores that the catalogue has for each history, some targets at a time.

    Yields:
        (part, scores, own): which targets; (B, V + 1) scores with −∞ for padding and all that the
        user has had, to be overwritten at will; (B, 1) scores of the targets, had before or not.
    """
    dataset = targets.dataset
    for part, batch in _batches(model, targets, on_progress):
        scores = model.score(batch)
        _check_form(scores, (len(part), dataset.num_items + 1))
        scores[:, 0] = 0.0
        _check_finite(scores)
        items = torch.from_numpy(targets.items[part]).unsqueeze(-1)
        own = scores.gather(1, items.to(scores.device))
        rows, seen = flat_histories(dataset.items, targets.starts[part], targets.places[part])
        scores[:, 0] = -torch.inf
        scores[rows.to(scores.device), seen.to(scores.device)] = -torch.inf
        yield part, scores, own


def _batches(
    model: Scorer, targets: Targets, on_progress: Progress | None
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yields all targets with what is shown of their histories, those with as much together."""
    dataset = targets.dataset
    size = max(1, min(1024, SCORES_AT_ONCE // (dataset.num_items + 1)))
    starts, places = targets.shown_from, targets.places
    # A batch is as wide as its longest history.
    order = np.argsort(places - starts, kind="stable")
    for first in range(0, len(order), size):
        part = order[first : first + size]
        batch = history_batch(
            dataset.items,
            starts[part],
            places[part],
            model.batch_spec,
            timestamps=dataset.timestamps,
        )
        yield part, batch
        if on_progress is not None:
            on_progress(min(first + size, len(order)), len(order))


def _ranks(scores: Tensor, own: Tensor, luck: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the rank of what scores ``own``, itself among ``scores``, in each row."""
    above, level = _above_and_level(scores, own)
    return np.int64(1) + above + np.floor(luck * level).astype(np.int64)


def _above_and_level(scores: Tensor, own: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many scores of each row are above its own one, and how many equal it."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.is_contiguous():
        above, level = (np.empty(len(scores), dtype=np.int64) for _ in range(2))
        count_above(scores.numpy(), own.reshape(-1).contiguous().numpy(), above, level)
        return above, level
    # Summing booleans as bytes is many times faster than as booleans.
    above, level = (
        marks.view(torch.int8).sum(1, dtype=torch.int64).cpu().numpy()
        for marks in (scores > own, scores == own)
    )
    return above, level


def _check_form(scores: Tensor, shape: tuple[int, ...]) -> None:
    if scores.shape != shape or not scores.is_floating_point():
        raise BlinError(
            f"the model's scores: expected floats of shape {shape}, "
            f"found {scores.dtype} of {tuple(scores.shape)}"
        )


def _check_finite(scores: Tensor) -> None:
    # The sum is quick, and not finite if a score is not; also if finite ones are too many too high.
    if not torch.isfinite(scores.sum()) and not torch.isfinite(scores).all():
        raise BlinError("the model's scores are not finite: it diverged, and cannot be ranked by")
