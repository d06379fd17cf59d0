"""A row for each prefix of a sequence, to learn its last step alone from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin.batch import Batch, View


def prefixes(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns every prefix of at least two items of every range, the shortest first.

    Returns:
        (P,) three times: whose it is, and where it starts and ends.
    """
    counts = np.maximum(ends - starts - 1, 0)
    owners = np.repeat(np.arange(len(starts)), counts)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, starts[owners], starts[owners] + number + 2


def last_steps(batch: Batch, owners: Tensor) -> Batch:
    """Returns a batch of prefixes in which nothing but their last steps is to be learned.

    A step has its target on the newest copy of its prefix alone.

    Args:
        batch: with a prefix in the place of each user.
        owners: (P,), whose each prefix is.
    """
    users = batch.step_users
    last = torch.ones_like(users, dtype=torch.bool)
    last[:-1] = users[1:] != users[:-1]
    numbers = torch.where(last, last.cumsum(0) - 1, -1)
    own = batch.negatives.dim() > 1
    return replace(
        batch,
        users=owners[batch.users],
        views=tuple(_renumbered(view, numbers) for view in batch.views),
        negatives=batch.negatives[..., last, :] if own else batch.negatives,
        log_q=batch.log_q[..., last, :] if own else batch.log_q,
        step_users=users[last],
        step_places=None if batch.step_places is None else batch.step_places[last],
    )


def _renumbered(view: View, numbers: Tensor) -> View:
    """Returns a view whose steps have other numbers, -1 for those that are none any more."""
    places = (view.steps >= 0) & (view.copies == 1)
    steps = torch.full_like(view.steps, -1)
    steps[places] = numbers[view.steps[places]]
    return replace(view, steps=steps, targets=torch.where(steps >= 0, view.targets, 0))
