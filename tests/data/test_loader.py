from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blin._core import (
    Batcher,
    fill_histories,
    fill_ranking_negatives,
    fill_shared_negatives,
    shuffle_users,
)
from blin.batch import BatchSpec
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError
from reference import batch as reference

sequences = st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=14), min_size=1, max_size=9)


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(one) for one in lists]).astype(np.int64)
    starts = ends - np.array([len(one) for one in lists], dtype=np.int64)
    return np.array([item for one in lists for item in one], dtype=np.uint32), starts, ends


def filled(
    lists: list[list[int]], users: list[int], n: int, *, epoch: int, number: int, **options: object
) -> list[list[tuple[object, ...]]]:
    batcher = Batcher(*flat(lists), max_len=n, **options)
    # Whatever was in the buffers before must not shine through.
    arrays = [np.full((len(users), n), 99, dtype=np.int64) for _ in range(4)]
    newest = np.ones((len(users), n), dtype=np.bool_)
    rows = batcher.fill(np.array(users, dtype=np.uint32), epoch, number, *arrays, newest)
    columns = [array[:rows].tolist() for array in (*arrays, newest)]
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


@settings(max_examples=300, deadline=None)
@given(
    lists=sequences,
    n=st.integers(1, 20),
    padding=st.sampled_from(["zero", "repeat", "random-repeat"]),
    fit=st.sampled_from(["whole", "truncate"]),
    copies=st.sampled_from(["reset", "attend"]),
    positions=st.sampled_from(["absolute", "per-copy"]),
    pack=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    number=st.integers(0, 1),
    data=st.data(),
)
def test_rows_are_what_the_description_says(
    lists: list[list[int]], n: int, epoch: int, number: int, data: st.DataObject, **options: object
) -> None:
    users = data.draw(st.permutations(range(len(lists))))
    ours = filled(lists, users, n, epoch=epoch, number=number, **options)
    expected = reference.view(lists, users, n, epoch=epoch, number=number, **options)
    assert ours == [[astuple(step) for step in row] for row in expected]


@settings(max_examples=100, deadline=None)
@given(lists=sequences, n=st.integers(1, 20), pack=st.booleans(), seed=st.integers(0, 99))
def test_the_newest_copies_of_two_views_are_the_same_steps_in_the_same_order(
    lists: list[list[int]], n: int, pack: bool, seed: int
) -> None:
    options = {
        "padding": "random-repeat",
        "fit": "whole",
        "copies": "reset",
        "positions": "absolute",
        "pack": pack,
        "seed": seed,
    }
    users = list(range(len(lists)))
    views = [filled(lists, users, n, epoch=1, number=number, **options) for number in (0, 1)]
    newest = [
        [(step[0], step[1], step[3]) for row in view for step in row if step[4]] for view in views
    ]
    assert newest[0] == newest[1]
    expected = [pair for one in lists for pair in list(zip(one[:-1], one[1:], strict=True))[-n:]]
    assert [step[:2] for step in newest[0]] == expected


def test_the_shuffle_is_that_of_the_description() -> None:
    users = np.arange(50, dtype=np.uint32)
    shuffle_users(users, 2**40 + 3, 7)
    assert users.tolist() == reference.shuffled(list(range(50)), 2**40 + 3, 7)


def test_shared_negatives_are_those_of_the_description() -> None:
    drawn = np.empty(100, dtype=np.int64)
    fill_shared_negatives(drawn, 12, 5, 3, 9)
    stream = reference.Stream(5, reference.TRAINING_NEGATIVES, 3, 9)
    assert drawn.tolist() == [1 + stream.below(12) for _ in range(100)]


def test_ranking_negatives_are_distinct_and_outside_the_history() -> None:
    items, starts, ends = flat([[1, 2, 3, 3], [4, 5]])
    drawn = np.empty((2, 6), dtype=np.int64)
    users = np.array([0, 1], dtype=np.uint32)
    fill_ranking_negatives(items, starts, ends, users, 9, 1, drawn)
    assert sorted(drawn[0].tolist()) == [4, 5, 6, 7, 8, 9]
    assert len(set(drawn[1].tolist())) == 6
    assert not {4, 5} & set(drawn[1].tolist())
    with pytest.raises(ConfigError, match="at most 6, the items that user 0 has never touched"):
        fill_ranking_negatives(items, starts, ends, users, 9, 1, np.empty((2, 7), dtype=np.int64))


@pytest.mark.parametrize("mode", ["absolute", "per-copy"])
def test_histories_stand_at_the_right_and_narrow_rows_number_as_wide_ones(mode: str) -> None:
    items, starts, ends = flat([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]])
    wide = [np.empty((3, 5), dtype=np.int64) for _ in range(3)]
    fill_histories(items, starts, ends, 5, mode, *wide)
    assert wide[0].tolist() == [[0, 0, 1, 2, 3], [0, 0, 0, 0, 4], [6, 7, 8, 9, 10]]
    assert wide[1].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    first = {"absolute": [0, 0, 2, 3, 4], "per-copy": [0, 0, 0, 1, 2]}
    assert wide[2][0].tolist() == first[mode]
    narrow = [np.empty((2, 3), dtype=np.int64) for _ in range(3)]
    fill_histories(items, starts[:2], ends[:2], 5, mode, *narrow)
    for short, full in zip(narrow, wide, strict=True):
        assert short.tolist() == full[:2, 2:].tolist()


def spec(*, views: int = 2) -> BatchSpec:
    return BatchSpec(max_len=8, positions="absolute", views=views, num_negatives=5)


RANDOM = Rows(padding="random-repeat", fit="whole", copies="reset", pack=True)


def test_an_epoch_has_every_user_once(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=7, seed=1)
    users = np.concatenate([batch.users.numpy() for batch in loader.epoch(3)])
    assert sorted(users.tolist()) == list(range(small_dataset.num_users))
    other = np.concatenate([batch.users.numpy() for batch in loader.epoch(4)])
    assert users.tolist() != other.tolist()


def test_an_epoch_entered_in_the_middle_goes_on_the_same(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=7, seed=1)
    whole = list(loader.epoch(3))
    late = list(loader.epoch(3, first_step=5))
    assert len(late) == len(whole) - 5 > 0
    for one, other in zip(whole[5:], late, strict=True):
        assert one.users.equal(other.users)
        assert one.negatives.equal(other.negatives)
        assert one.views[1].items.equal(other.views[1].items)


def test_targets_are_training_items_only(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, spec(views=1), RANDOM, batch_size=1, seed=1)
    for batch in loader.epoch(0):
        user = int(batch.users[0])
        held_out = int(small_dataset.splits[user, 0])
        view = batch.views[0]
        last = int(view.targets[-1, -1])
        assert last == small_dataset.sequence(user)[held_out - 1]


def test_an_empty_history_is_an_empty_row() -> None:
    nothing = np.zeros(1, dtype=np.int64)
    batch = history_batch(np.empty(0, dtype=np.uint32), nothing, nothing, spec())
    assert batch.views[0].items.tolist() == [[0]]
    assert batch.views[0].segments.tolist() == [[0]]


def test_an_unknown_padding_is_named() -> None:
    with pytest.raises(ConfigError, match="padding: expected one of random-repeat, repeat, zero"):
        Batcher(
            *flat([[1, 2]]),
            max_len=3,
            padding="none",
            fit="whole",
            copies="reset",
            positions="absolute",
            pack=False,
            seed=0,
        )
