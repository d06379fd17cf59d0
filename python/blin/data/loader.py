"""From a prepared dataset to the batches that models take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin._core import Batcher, NegativeSampler, fill_histories, shuffle_users
from blin.batch import Batch, BatchSpec, Interactions, View
from blin.data.buffers import Buffers
from blin.data.dataset import Dataset
from blin.data.prefixes import last_steps, prefixes
from blin.data.windows import windows
from blin.errors import ConfigError, DataError

PREFETCH = 2
"""Batches made ahead of the one in use."""

_ARRAYS = {
    "items": np.int64,
    "targets": np.int64,
    "segments": np.int32,
    "positions": np.int32,
    "copies": np.int32,
    "steps": np.int64,
    "weights": np.float32,
}
"""The arrays of a view, in the order in which the core takes them."""


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
        long_sequences: what is learned from a sequence that does not fit into a row: its
            ``newest`` part, or all of it, in ``windows``.
    """

    padding: str = "zero"
    fit: str = "whole"
    copies: str = "reset"
    pack: bool = True
    crop: float = 0.0
    long_sequences: str = "newest"


class TrainingLoader:
    """The batches of every epoch.

    A batch depends on (seed, epoch, step) and its share of the ranks alone: not on the batches
    before it, the number of threads or the depth of the prefetch. Users with fewer than two
    training items are left out. Where only last steps are learned from, each prefix of a training
    sequence takes the place of a user with that sequence; otherwise each window does where long
    sequences are to be learned from whole. Such a place has a batch's share and random numbers of
    its own.

    Args:
        dataset: a prepared dataset.
        spec: what the model wants.
        rows: how sequences fill their rows.
        batch_size: users in a batch of one rank.
        seed: of all draws.
        rank: which of the processes that train together this is.
        world_size: how many there are. Each step they share ``world_size * batch_size`` users, and
            in an epoch each user comes once; in the last step some ranks may go empty.
        pin_memory: make batches in page-locked memory, from which they go to a GPU in the
            background.

    Attributes:
        unit: what an epoch goes through: ``users``, or ``prefixes`` or ``windows`` of their
            sequences.
        waited: seconds that :meth:`epoch` has kept its caller waiting, until somebody sets it back.
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
        pin_memory: bool = False,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size}, got {rank}")
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.waited = 0.0
        # What is being made, what waits, what is in use, and what its user is done with last.
        self._buffers = Buffers(pin=pin_memory, keep=PREFETCH + 3)
        counts = dataset.training_counts() if spec.sampling == "popularity" else None
        self._sampler = NegativeSampler(dataset.num_items, counts=counts)
        self._log_q = _log_expectation(dataset.num_items, counts, spec.num_negatives)
        starts, ends = dataset.training_ranges()
        self._owners = None
        self.unit = "users"
        if spec.loss_positions == "last":
            self.unit = "prefixes"
            owners, starts, ends = prefixes(starts, ends)
            self._owners = torch.from_numpy(owners)
        elif rows.long_sequences == "windows":
            self.unit = "windows"
            # Neighbours share an item, the last target of the older and first input of the newer.
            owners, starts, ends = windows(starts, ends, size=spec.max_len + 1, stride=spec.max_len)
            self._owners = torch.from_numpy(owners)
        self.users = np.flatnonzero(ends - starts >= 2).astype(np.uint32)
        if len(self.users) == 0:
            raise DataError(f"{dataset.path}: no user has two items to learn from")
        if spec.negatives_per != "batch" and spec.num_negatives > 0:
            self._require_negatives(dataset, starts, ends, counts)
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
        if (spec.times or spec.places) and rows.crop > 0:
            who = "a model that looks at times" if spec.times else "a student that is distilled"
            raise ConfigError(f"crop: expected 0 for {who}, found {rows.crop}")
        self._starts, self._ends = starts, ends
        self._timestamps = dataset.timestamps

    def _require_negatives(
        self,
        dataset: Dataset,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        counts: NDArray[np.int64] | None,
    ) -> None:
        """Raises DataError where a sequence leaves no item that could be a negative of its own.

        An item that is drawn by popularity and that nobody has had is never drawn.
        """
        drawn = dataset.num_items if counts is None else int(np.count_nonzero(counts))
        if drawn == 1:
            raise DataError(
                f"{dataset.path}: expected two items or more to draw negatives from, found one; "
                "with negatives_per = batch, where the model has it, one is enough"
            )
        if not self.spec.exclude_history:
            return
        longest = self.users
        if self._owners is not None and self.unit == "prefixes":
            # The last prefix of a user holds all others.
            longest = longest[np.diff(self._owners.numpy()[longest], append=-1) != 0]
        for sequence in longest[(ends - starts)[longest] >= drawn]:
            if len(np.unique(dataset.items[starts[sequence] : ends[sequence]])) >= drawn:
                user = sequence if self._owners is None else int(self._owners[sequence])
                what = "items" if counts is None else "items that can be drawn"
                raise DataError(
                    f'{dataset.path}: user "{dataset.user_ids.raw(int(user))}" has had all {drawn} '
                    f"{what}, and none is left to be a negative; with negatives_per = batch or "
                    "exclude_history = false, where the model has these, none is needed"
                )

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(len(self.users) / (self.batch_size * self.world_size))

    @property
    def left_out(self) -> float:
        """The share of the steps that are never learned from: older than what a row holds."""
        steps = np.maximum(self._ends - self._starts - 1, 0)
        if self.unit == "prefixes" or self._rows.crop > 0:
            return 0.0
        return 1 - float(np.minimum(steps, self.spec.max_len).sum() / steps.sum())

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch from a step on, made ahead in the background.

        The memory of a batch is used again when nothing refers to it any more: keep as many
        batches as you like for as long as you like.
        """
        begin = time.perf_counter()
        order = self.users.copy()
        shuffle_users(order, self.seed, epoch)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="blin-batches") as pool:
            ahead: deque[Future[Batch]] = deque()
            next_step = first_step
            for _ in range(first_step, self.steps_per_epoch):
                while next_step < self.steps_per_epoch and len(ahead) <= PREFETCH:
                    ahead.append(pool.submit(self.batch, order, epoch, next_step))
                    next_step += 1
                batch = ahead.popleft().result()
                self.waited += time.perf_counter() - begin
                yield batch
                del batch
                begin = time.perf_counter()

    def batch(self, order: NDArray[np.uint32], epoch: int, step: int) -> Batch:
        """Returns one batch of an epoch whose users come in the given order."""
        together = self.batch_size * self.world_size
        users = order[step * together : (step + 1) * together]
        users = np.ascontiguousarray(users[self.rank :: self.world_size])
        spec = self.spec
        views = [self._view_buffers(f"view {number}") for number in range(spec.views)]
        # Without crops, the views hold the same steps.
        most = self.batch_size * spec.max_len * (spec.views if self._rows.crop > 0 else 1)
        step_users = self._buffers.take("step users", (most,), np.int64)
        rows, steps = self._batcher.fill(
            users, epoch, [_arrays(view) for view in views], step_users.numpy()
        )
        indices = self._buffers.take("users", (self.batch_size,), np.int64)[: len(users)]
        indices.numpy()[:] = users
        filled = tuple(_cut(view, count) for view, count in zip(views, rows, strict=True))
        negatives, log_q, excluded = self._negatives(users, epoch, step, steps, filled)
        owners = step_users[:steps].numpy()
        if spec.times:
            filled = self._timed(filled, users, owners)
        batch = Batch(
            users=indices,
            views=filled,
            negatives=negatives,
            log_q=log_q,
            step_users=step_users[:steps],
            excluded=excluded,
            augmented=self._augmented(users, epoch),
            step_places=torch.from_numpy(self._places(users, owners)) if spec.places else None,
        )
        if self._owners is None:
            return batch
        if self.unit == "prefixes":
            return last_steps(batch, self._owners)
        return replace(batch, users=self._owners[batch.users])

    def _negatives(
        self,
        users: NDArray[np.uint32],
        epoch: int,
        step: int,
        steps: int,
        views: tuple[View, ...],
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the negatives, their log_q, and which of them to exclude for which user."""
        spec, count = self.spec, self.spec.num_negatives
        if spec.negatives_per != "batch":
            copies = 1
            if spec.negatives_per == "copy":
                copies = max(
                    (int(view.copies.max()) for view in views if len(view.copies)), default=1
                )
            # A power of two, so that batches of about as many steps share their memory.
            most = 1 << max(0, steps - 1).bit_length()
            negatives = self._buffers.take("negatives", (copies, most, count), np.int64)
            log_q = self._buffers.take("log_q", (copies, most, count), np.float32)
            negatives, log_q = negatives[:, :steps], log_q[:, :steps]
            for copy in range(copies):
                self._batcher.fill_negatives(
                    self._sampler,
                    users,
                    epoch,
                    spec.views,
                    spec.exclude_history,
                    copy,
                    negatives[copy].numpy(),
                    log_q[copy].numpy(),
                )
            if spec.negatives_per == "position":
                negatives, log_q = negatives[0], log_q[0]
            return negatives, log_q, None
        negatives = self._buffers.take("negatives", (count,), np.int64)
        log_q = self._buffers.take("log_q", (count,), np.float32)
        self._sampler.fill_shared(negatives.numpy(), self.seed, epoch, step)
        np.take(self._log_q, negatives.numpy(), out=log_q.numpy())
        if not spec.exclude_history:
            return negatives, log_q, None
        excluded = self._buffers.take("excluded", (self.batch_size, count), np.bool_)
        excluded = excluded[: len(users)]
        self._batcher.mark_history(self._sampler, users, negatives.numpy(), excluded.numpy())
        return negatives, log_q, excluded

    def _places(
        self, users: NDArray[np.uint32], step_users: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Returns where in the items of the dataset the newest input of each step stands."""
        # The steps of a user are the last of its sequence, whose last item is a target only.
        counts = np.bincount(step_users, minlength=len(users))
        numbers = np.arange(len(step_users)) - (np.cumsum(counts) - counts)[step_users]
        return self._ends[users[step_users]] - 1 - counts[step_users] + numbers

    def _timed(
        self, views: tuple[View, ...], users: NDArray[np.uint32], step_users: NDArray[np.int64]
    ) -> tuple[View, ...]:
        """Returns the views with the times of their inputs."""
        places = self._places(users, step_users)
        times = places - self._starts[users[step_users]]
        if self._timestamps is not None:
            times = self._timestamps[places]
        timed = []
        for number, view in enumerate(views):
            shape = (self.batch_size, self.spec.max_len)
            own = self._buffers.take(f"times of view {number}", shape, np.int64)
            own = own[: len(view.steps)]
            steps = view.steps.numpy()
            own.numpy()[:] = 0
            own.numpy()[steps >= 0] = times[steps[steps >= 0]]
            timed.append(replace(view, times=own))
        return tuple(timed)

    def _augmented(self, users: NDArray[np.uint32], epoch: int) -> tuple[View, ...]:
        if not self.spec.augmentations:
            return ()
        pairs = [(one.operator, one.ratio) for one in self.spec.augmentations]
        views = [self._view_buffers(f"augmented {number}") for number in range(2)]
        rows = self._batcher.fill_augmented(
            users, epoch, pairs, self._mask_token, _arrays(views[0]), _arrays(views[1])
        )
        return tuple(_cut(view, count) for view, count in zip(views, rows, strict=True))

    def _view_buffers(self, name: str) -> View:
        """Returns a view with a row for each user, of any content."""
        shape = (self.batch_size, self.spec.max_len)
        return View(
            **{
                array: self._buffers.take(f"{array} of {name}", shape, dtype)
                for array, dtype in _ARRAYS.items()
                if array != "weights" or self._rows.copies == "weight"
            }
        )


def _arrays(view: View) -> Any:
    """Returns the arrays of a view as the core takes them."""
    tensors = (getattr(view, name) for name in _ARRAYS)
    return tuple(None if tensor is None else tensor.numpy() for tensor in tensors)


def _cut(view: View, rows: int) -> View:
    """Returns the first rows of a view."""
    tensors = ((name, getattr(view, name)) for name in _ARRAYS)
    return View(**{name: tensor[:rows] for name, tensor in tensors if tensor is not None})


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
    *,
    timestamps: NDArray[np.int64] | None = None,
) -> Batch:
    """Returns rows to score for histories ``items[starts[i]:ends[i]]``, the newest at the right.

    The rows are as wide as the longest history needs, and never wider than ``spec.max_len``.

    Args:
        items: of all histories.
        starts: where each history begins.
        ends: where it ends.
        spec: what the model wants.
        timestamps: the time of each of the items, if it is known.
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
        times=_history_times(starts, ends, segments, timestamps) if spec.times else None,
    )
    return Batch(
        users=torch.arange(len(starts)),
        views=(view,),
        negatives=torch.empty(0, dtype=torch.int64),
        log_q=torch.empty(0),
    )


def _history_times(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    segments: NDArray[np.int32],
    timestamps: NDArray[np.int64] | None,
) -> Tensor:
    """Returns the times of the items in the rows of histories, 0 at padding."""
    rows, columns = np.nonzero(segments)
    places = ends[rows] - segments.shape[1] + columns
    times = np.zeros(segments.shape, dtype=np.int64)
    times[rows, columns] = places - starts[rows] if timestamps is None else timestamps[places]
    return torch.from_numpy(times)


def flat_histories(
    items: NDArray[np.uint32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (rows, items): all pairs of a history's number and an item in it."""
    rows, places = _flat_places(starts, ends)
    return torch.from_numpy(rows), torch.from_numpy(items[places].astype(np.int64))


def training_interactions(dataset: Dataset) -> Interactions:
    """Returns all that may be counted of a dataset: nothing that is held out.

    Raises:
        DataError: Everything is held out.
    """
    users, places = _flat_places(*dataset.training_ranges())
    if len(places) == 0:
        raise DataError(f"{dataset.path}: expected interactions to train with, found none")
    times = None if dataset.timestamps is None else torch.from_numpy(dataset.timestamps[places])
    items = torch.from_numpy(dataset.items[places].astype(np.int64))
    return Interactions(items, torch.from_numpy(users), times)


def _flat_places(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (rows, places): the number of a range and a place in it, for all of all ranges."""
    lengths = ends - starts
    rows = np.repeat(np.arange(len(starts)), lengths)
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, np.repeat(starts, lengths) + steps
