from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blin.batch import BatchSpec
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader
from blin.data.windows import windows
from blin.models.distillation import Knowledge

SPEC = BatchSpec(4, "absolute", views=2, num_negatives=9)
WINDOWS = Rows(long_sequences="windows")


def slow_windows(length: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Cuts from the newest end on, until the oldest place is in a window."""
    found = []
    end = length
    while True:
        start = max(0, end - size)
        found.append((start, end))
        if start == 0:
            return found
        end -= stride


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    size=st.integers(1, 15),
    data=st.data(),
)
def test_windows_are_cut_from_the_newest_end_on(
    lengths: list[int], size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    expected = [
        (user, starts[user] + start, starts[user] + end)
        for user, length in enumerate(lengths)
        for start, end in slow_windows(length, size, stride)
    ]
    found = windows(starts, ends, size=size, stride=stride)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


def learned(dataset: Dataset, spec: BatchSpec, rows: Rows, epoch: int) -> list[tuple[int, ...]]:
    """(user, input, target) of all that the first view of an epoch teaches, sorted."""
    found = []
    loader = TrainingLoader(dataset, spec, rows, batch_size=23, seed=3)
    for batch in loader.epoch(epoch):
        view = batch.views[0]
        places = view.targets > 0
        users = batch.users[batch.step_users[view.steps[places]]]
        columns = (users, view.items[places], view.targets[places])
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return sorted(found)


def test_windows_teach_every_step_once(small_dataset: Dataset) -> None:
    expected = []
    for user in range(small_dataset.num_users):
        items = small_dataset.sequence(user)[: small_dataset.splits[user, 0]].tolist()
        expected += [(user, *pair) for pair in zip(items, items[1:], strict=False)]
    assert learned(small_dataset, SPEC, WINDOWS, 1) == sorted(expected)
    newest = learned(small_dataset, SPEC, Rows(), 1)
    assert len(newest) < len(expected)
    assert set(newest) < set(expected)


def test_sequences_that_fit_are_as_without_windows(small_dataset: Dataset) -> None:
    spec = replace(SPEC, max_len=int(np.diff(small_dataset.offsets).max()))
    ours, plain = (
        TrainingLoader(small_dataset, spec, rows, batch_size=23, seed=3)
        for rows in (WINDOWS, Rows())
    )
    for one, other in zip(ours.epoch(2), plain.epoch(2), strict=True):
        assert torch.equal(one.users, other.users)
        assert torch.equal(one.negatives, other.negatives)
        for mine, theirs in zip(one.views, other.views, strict=True):
            assert torch.equal(mine.items, theirs.items)
            assert torch.equal(mine.targets, theirs.targets)


def test_what_is_never_learned_from_is_counted(small_dataset: Dataset) -> None:
    def left_out(spec: BatchSpec, rows: Rows) -> float:
        return TrainingLoader(small_dataset, spec, rows, batch_size=9, seed=3).left_out

    whole = len(learned(small_dataset, SPEC, WINDOWS, 0))
    newest = len(learned(small_dataset, SPEC, Rows(), 0))
    assert left_out(SPEC, Rows()) == pytest.approx(1 - newest / whole)
    assert left_out(SPEC, WINDOWS) == 0
    assert left_out(replace(SPEC, loss_positions="last"), Rows()) == 0
    assert left_out(SPEC, Rows(crop=0.5)) == 0


@pytest.mark.parametrize("padding", ["repeat", "random-repeat"])
def test_windows_are_repeated_like_users(small_dataset: Dataset, padding: str) -> None:
    rows = replace(WINDOWS, padding=padding)
    loader = TrainingLoader(small_dataset, replace(SPEC, max_len=20), rows, batch_size=30, seed=3)
    batch = loader.batch(loader.users, 0, 0)
    view = batch.views[0]
    assert view.copies.max() > 1
    for step in range(len(batch.step_users)):
        assert len(set(view.targets[view.steps == step].tolist())) == 1


def test_prefixes_reach_every_step_already(small_dataset: Dataset) -> None:
    spec = replace(SPEC, loss_positions="last")
    assert learned(small_dataset, spec, WINDOWS, 1) == learned(small_dataset, spec, Rows(), 1)


def test_times_are_those_of_the_window(small_dataset: Dataset) -> None:
    spec = replace(SPEC, times=True, places=True, views=1)
    assert small_dataset.timestamps is not None
    loader = TrainingLoader(small_dataset, spec, WINDOWS, batch_size=23, seed=3)
    for batch in loader.epoch(0):
        assert batch.step_places is not None
        items = small_dataset.items[batch.step_places.numpy()]
        view = batch.views[0]
        assert view.times is not None
        for step, (item, place) in enumerate(zip(items, batch.step_places.tolist(), strict=True)):
            here = view.steps == step
            assert view.items[here].tolist() == [int(item)]
            assert view.times[here].tolist() == [int(small_dataset.timestamps[place])]


def test_the_teachers_features_are_those_of_the_step(small_dataset: Dataset) -> None:
    """The features of a step are its number here, counted user by user."""
    spec = replace(SPEC, places=True)
    starts, ends = small_dataset.training_ranges()
    steps = np.maximum(ends - starts - 1, 0)
    shifts = starts - (np.cumsum(steps) - steps)
    numbers = torch.arange(int(steps.sum()), dtype=torch.float32).reshape(-1, 1, 1)
    knowledge = Knowledge(numbers, torch.empty(0), torch.from_numpy(shifts))
    followers = np.concatenate(
        [small_dataset.items[start + 1 : end] for start, end in zip(starts, ends, strict=True)]
    )
    found = []
    for batch in TrainingLoader(small_dataset, spec, WINDOWS, batch_size=23, seed=3).epoch(0):
        own = knowledge.of(batch).flatten().long()
        view = batch.views[0]
        targets = torch.zeros(len(own), dtype=torch.int64)
        targets[view.steps[view.steps >= 0]] = view.targets[view.steps >= 0]
        assert torch.equal(targets, torch.from_numpy(followers[own.numpy()].astype(np.int64)))
        found += own.tolist()
    assert sorted(found) == list(range(len(numbers)))
