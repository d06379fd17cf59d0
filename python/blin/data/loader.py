"""From a prepared dataset to the batches that models take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from blin._core import Batcher, NegativeSampler, fill_histories, shuffle_users
from blin.batch import Batch, BatchSpec, View
from blin.data.dataset import Dataset
from blin.errors import DataError

PREFETCH = 2
"""Batches made ahead of the one in use."""


@dataclass(frozen=True)
class Rows:
    """How sequences fill the rows of a training batch.

    Attributes:
        padding: copies of a sequence in its row: ``zero`` (one), ``repeat`` (all that fit) or
            ``random-repeat`` (a number drawn for each user, epoch and view).
        fit: ``whole`` copies only, or ``truncate`` the oldest one.
        copies: ``reset`` keeps copies from seeing each other, ``attend`` does not.
        pack: let short sequences share a row.
    """

    padding: str
    fit: str
    copies: str
    pack: bool


class TrainingLoader:
    """The batches of every epoch.

    A batch depends on (seed, epoch, step) and its share of the ranks alone: not on the batches
    before it, the number of threads or the depth of the prefetch. Users with fewer than two
    training items are left out. Where only last positions are learned from, each prefix of a
    sequence counts as a user with that sequence.

    Args:
        dataset: a prepared dataset.
        spec: what the model wants.
        rows: how sequences fill their rows.
        batch_size: users in a batch of one rank.
        seed: of all draws.
        rank: which of the processes that train together this is.
        world_size: how many there are. Each step they share ``world_size * batch_size`` users, and
            in an epoch each user comes once; in the last step some ranks may go empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: BatchSpec,
        rows: Rows,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size}, got {rank}")
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        counts = dataset.training_counts() if spec.sampling == "popularity" else None
        self._sampler = NegativeSampler(dataset.num_items, counts=counts)
        self._log_q = _log_expectation(dataset.num_items, counts, spec.num_negatives)
        starts, ends = dataset.training_ranges()
        self._owners = None
        if spec.loss_positions == "last":
            self._owners, starts, ends = prefixes(starts, ends)
        self.users = np.flatnonzero(ends - starts >= 2).astype(np.uint32)
        if len(self.users) == 0:
            raise DataError(f"{dataset.path}: no user has two items to learn from")
        self._batcher = Batcher(
            dataset.items,
            starts,
            ends,
            max_len=spec.max_len,
            padding=rows.padding,
            fit=rows.fit,
            copies=rows.copies,
            positions=spec.positions,
            pack=rows.pack,
            seed=seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(len(self.users) / (self.batch_size * self.world_size))

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch from a step on, made ahead in the background."""
        order = self.users.copy()
        shuffle_users(order, self.seed, epoch)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="blin-batches") as pool:
            ahead: deque[Future[Batch]] = deque()
            for step in range(first_step, self.steps_per_epoch):
                ahead.append(pool.submit(self.batch, order, epoch, step))
                if len(ahead) > PREFETCH:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def batch(self, order: NDArray[np.uint32], epoch: int, step: int) -> Batch:
        """Returns one batch of an epoch whose users come in the given order."""
        together = self.batch_size * self.world_size
        users = order[step * together : (step + 1) * together]
        users = np.ascontiguousarray(users[self.rank :: self.world_size])
        views = tuple(self._view(users, epoch, view) for view in range(self.spec.views))
        negatives = np.empty(self.spec.num_negatives, dtype=np.int64)
        self._sampler.fill_shared(negatives, self.seed, epoch, step)
        return Batch(
            users=torch.from_numpy(self._owner(users)),
            views=views,
            negatives=torch.from_numpy(negatives),
            log_q=torch.from_numpy(self._log_q[negatives]),
        )

    def _owner(self, users: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Returns whose the sequences are that go by these numbers."""
        return users.astype(np.int64) if self._owners is None else self._owners[users]

    def _view(self, users: NDArray[np.uint32], epoch: int, view: int) -> View:
        shape = (len(users), self.spec.max_len)
        items, targets, segments, positions = (np.empty(shape, dtype=np.int64) for _ in range(4))
        newest = np.empty(shape, dtype=np.bool_)
        rows = self._batcher.fill(users, epoch, view, items, targets, segments, positions, newest)
        if self.spec.loss_positions == "last":
            keep_last(segments, targets, newest)
        return View(
            items=torch.from_numpy(items[:rows]),
            targets=torch.from_numpy(targets[:rows]),
            segments=torch.from_numpy(segments[:rows]),
            positions=torch.from_numpy(positions[:rows]),
            newest=torch.from_numpy(newest[:rows]),
        )


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


def keep_last(
    segments: NDArray[np.int64], targets: NDArray[np.int64], newest: NDArray[np.bool_]
) -> None:
    """Leaves of a view's targets and of ``newest`` the last position of each newest copy."""
    newest[:, :-1] &= segments[:, :-1] != segments[:, 1:]
    targets[~newest] = 0


def _log_expectation(
    num_items: int, counts: NDArray[np.int64] | None, draws: int
) -> NDArray[np.float32]:
    """Returns the logarithm of how often each item is expected among the draws, (V + 1,)."""
    weights = np.ones(num_items) if counts is None else counts.astype(np.float64)
    with np.errstate(divide="ignore"):
        expected = np.log(weights) - np.log(weights.sum()) + np.log(max(1, draws))
    return np.concatenate([[-np.inf], expected]).astype(np.float32)


def history_batch(
    items: NDArray[np.uint32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    spec: BatchSpec,
) -> Batch:
    """Returns rows to score for histories ``items[starts[i]:ends[i]]``, the newest at the right.

    The rows are as wide as the longest history needs, and never wider than ``spec.max_len``.
    """
    longest = int((ends - starts).max(initial=1))
    shape = (len(starts), max(1, min(spec.max_len, longest)))
    rows, segments, positions = (np.empty(shape, dtype=np.int64) for _ in range(3))
    fill_histories(items, starts, ends, spec.max_len, spec.positions, rows, segments, positions)
    view = View(
        items=torch.from_numpy(rows),
        targets=torch.zeros(shape, dtype=torch.int64),
        segments=torch.from_numpy(segments),
        positions=torch.from_numpy(positions),
        newest=torch.from_numpy(segments > 0),
    )
    return Batch(
        users=torch.arange(len(starts)),
        views=(view,),
        negatives=torch.empty(0, dtype=torch.int64),
        log_q=torch.empty(0),
    )


def flat_histories(
    items: NDArray[np.uint32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (rows, items): all pairs of a history's number and an item in it."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(starts, lengths) + steps
    return torch.from_numpy(rows), torch.from_numpy(items[places].astype(np.int64))
