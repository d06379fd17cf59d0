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
from blin.data.prefixes import last_steps, prefixes
from blin.errors import DataError

PREFETCH = 2
"""Batches made ahead of the one in use."""

_Arrays = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.float32] | None,
]
"""The arrays of a view, in its order."""


@dataclass(frozen=True)
class Rows:
    """How sequences fill the rows of a training batch.

    Attributes:
        padding: copies of a sequence in its row: ``zero`` (one), ``repeat`` (all that fit) or
            ``random-repeat`` (a number drawn for each user, epoch and view).
        fit: ``whole`` copies only, or ``truncate`` the oldest one.
        copies: ``reset`` keeps copies from seeing each other, ``attend`` does not; ``weight`` puts
            one copy into the row, whose targets weigh as often as they would stand there.
        pack: let short sequences share a row.
        crop: learn from a random stretch of each training sequence, drawn for each user, epoch and
            view before anything else: first its length, from this share of the sequence on (at
            least two items), then its place. 0 for the whole sequence.
    """

    padding: str
    fit: str
    copies: str
    pack: bool
    crop: float = 0.0


class TrainingLoader:
    """The batches of every epoch.

    A batch depends on (seed, epoch, step) and its share of the ranks alone: not on the batches
    before it, the number of threads or the depth of the prefetch. Users with fewer than two
    training items are left out. Where only last steps are learned from, each prefix of a training
    sequence takes the place of a user with that sequence.

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
            owners, starts, ends = prefixes(starts, ends)
            self._owners = torch.from_numpy(owners)
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
            crop=rows.crop,
            seed=seed,
        )
        self._rows = rows
        self._mask_token = dataset.num_items + 1

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
        spec = self.spec
        shape = (len(users), spec.max_len)
        views = [self._buffers(shape) for _ in range(spec.views)]
        # Without crops, the views hold the same steps.
        most = len(users) * spec.max_len * (spec.views if self._rows.crop > 0 else 1)
        step_users = np.empty(most, dtype=np.int64)
        rows, steps = self._batcher.fill(users, epoch, views, step_users)
        negatives, log_q, excluded = self._negatives(users, epoch, step, steps)
        batch = Batch(
            users=torch.from_numpy(users.astype(np.int64)),
            views=tuple(_view(*pair) for pair in zip(views, rows, strict=True)),
            negatives=torch.from_numpy(negatives),
            log_q=torch.from_numpy(log_q),
            step_users=torch.from_numpy(step_users[:steps]),
            excluded=None if excluded is None else torch.from_numpy(excluded),
            augmented=self._augmented(users, epoch),
        )
        return batch if self._owners is None else last_steps(batch, self._owners)

    def _negatives(
        self, users: NDArray[np.uint32], epoch: int, step: int, steps: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]:
        """Returns the negatives, their log_q, and which of them to exclude for which user."""
        spec, sampler = self.spec, self._sampler
        if spec.negatives_per == "position":
            own = np.empty((steps, spec.num_negatives), dtype=np.int64)
            log_q = np.empty((steps, spec.num_negatives), dtype=np.float32)
            self._batcher.fill_negatives(
                sampler, users, epoch, spec.views, spec.exclude_history, own, log_q
            )
            return own, log_q, None
        negatives = np.empty(spec.num_negatives, dtype=np.int64)
        sampler.fill_shared(negatives, self.seed, epoch, step)
        if not spec.exclude_history:
            return negatives, self._log_q[negatives], None
        excluded = np.empty((len(users), spec.num_negatives), dtype=np.bool_)
        self._batcher.mark_history(sampler, users, negatives, excluded)
        return negatives, self._log_q[negatives], excluded

    def _augmented(self, users: NDArray[np.uint32], epoch: int) -> tuple[View, ...]:
        if not self.spec.augmentations:
            return ()
        pairs = [(one.operator, one.ratio) for one in self.spec.augmentations]
        first, second = (self._buffers((len(users), self.spec.max_len)) for _ in range(2))
        rows = self._batcher.fill_augmented(users, epoch, pairs, self._mask_token, first, second)
        return (_view(first, rows[0]), _view(second, rows[1]))

    def _buffers(self, shape: tuple[int, int]) -> _Arrays:
        weigh = self._rows.copies == "weight"
        return (
            np.empty(shape, dtype=np.int64),
            np.empty(shape, dtype=np.int64),
            np.empty(shape, dtype=np.int32),
            np.empty(shape, dtype=np.int32),
            np.empty(shape, dtype=np.int32),
            np.empty(shape, dtype=np.int64),
            np.empty(shape, dtype=np.float32) if weigh else None,
        )


def _view(arrays: _Arrays, rows: int) -> View:
    items, targets, segments, positions, copies, steps, weights = arrays
    return View(
        items=torch.from_numpy(items[:rows]),
        targets=torch.from_numpy(targets[:rows]),
        segments=torch.from_numpy(segments[:rows]),
        positions=torch.from_numpy(positions[:rows]),
        copies=torch.from_numpy(copies[:rows]),
        steps=torch.from_numpy(steps[:rows]),
        weights=None if weights is None else torch.from_numpy(weights[:rows]),
    )


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
    rows = np.empty(shape, dtype=np.int64)
    segments, positions = (np.empty(shape, dtype=np.int32) for _ in range(2))
    fill_histories(items, starts, ends, spec.max_len, spec.positions, rows, segments, positions)
    view = View(
        items=torch.from_numpy(rows),
        targets=torch.zeros(shape, dtype=torch.int64),
        segments=torch.from_numpy(segments),
        positions=torch.from_numpy(positions),
        copies=torch.from_numpy((segments > 0).astype(np.int32)),
        steps=torch.full(shape, -1),
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
