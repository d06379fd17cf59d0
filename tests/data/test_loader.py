from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blin._core import (
    Batcher,
    NegativeSampler,
    fill_histories,
    shuffle_users,
)
from blin.batch import Augmentation, Batch, BatchSpec
from blin.data.dataset import Dataset, load_dataset
from blin.data.loader import PREFETCH, Rows, TrainingLoader, history_batch
from blin.errors import ConfigError, DataError
from reference import batch as reference

sequences = st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=14), min_size=1, max_size=9)


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(one) for one in lists]).astype(np.int64)
    starts = ends - np.array([len(one) for one in lists], dtype=np.int64)
    return np.array([item for one in lists for item in one], dtype=np.uint32), starts, ends


def filled(
    lists: list[list[int]],
    users: list[int],
    n: int,
    *,
    epoch: int,
    count: int = 2,
    **options: object,
) -> reference.Rows:
    batcher = Batcher(*flat(lists), max_len=n, **options)
    views = [buffers((len(users), n), weigh=True) for _ in range(count)]
    step_users = np.full(len(users) * n * count, 99, dtype=np.int64)
    rows, steps = batcher.fill(np.array(users, dtype=np.uint32), epoch, views, step_users)
    assert set(step_users[steps:].tolist()) <= {99}
    return reference.Rows(
        [slots(view, number) for view, number in zip(views, rows, strict=True)],
        step_users[:steps].tolist(),
        targets_of(views, rows, steps),
    )


def buffers(shape: tuple[int, int], *, weigh: bool) -> tuple[np.ndarray, ...]:
    """Arrays in which whatever was there before must not shine through."""
    kinds = (np.int64, np.int64, np.int32, np.int32, np.int32, np.int64)
    weights = np.full(shape, 99, dtype=np.float32) if weigh else None
    return (*(np.full(shape, 99, dtype=kind) for kind in kinds), weights)


def slots(view: tuple[np.ndarray, ...], rows: int) -> list[list[reference.Slot]]:
    columns = [array[:rows].tolist() for array in view]
    return [
        [reference.Slot(*slot) for slot in zip(*row, strict=True)]
        for row in zip(*columns, strict=True)
    ]


def targets_of(views: list[tuple[np.ndarray, ...]], rows: list[int], steps: int) -> list[int]:
    """The target of each step, wherever it stands; it must be the same everywhere."""
    found: dict[int, set[int]] = {}
    for (_, targets, _, _, _, numbers, _), count in zip(views, rows, strict=True):
        for step, target in zip(numbers[:count].flat, targets[:count].flat, strict=True):
            assert (step == -1) == (target == 0)
            found.setdefault(int(step), set()).add(int(target))
    found.pop(-1, None)
    assert sorted(found) == list(range(steps))
    assert all(len(targets) == 1 for targets in found.values())
    return [found[step].pop() for step in range(steps)]


OPTIONS = {
    "padding": st.sampled_from(["zero", "repeat", "random-repeat"]),
    "fit": st.sampled_from(["whole", "truncate"]),
    "copies": st.sampled_from(["reset", "attend", "weight"]),
    "positions": st.sampled_from(["absolute", "per-copy"]),
    "pack": st.booleans(),
    "seed": st.integers(0, 2**64 - 1),
    "epoch": st.integers(0, 2**32 - 1),
    "count": st.integers(1, 3),
    "crop": st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 1.0]),
}


@settings(max_examples=300, deadline=None)
@given(
    lists=sequences, n=st.integers(1, 20), options=st.fixed_dictionaries(OPTIONS), data=st.data()
)
def test_rows_are_what_the_description_says(
    lists: list[list[int]], n: int, options: dict[str, object], data: st.DataObject
) -> None:
    users = data.draw(st.permutations(range(len(lists))))
    ours = filled(lists, users, n, **options)
    expected = reference.views(lists, users, n, **options)
    assert ours == expected


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
    views = filled(lists, users, n, epoch=1, **options).views
    newest = [
        [(slot.item, slot.target, slot.position) for row in view for slot in row if slot.copy == 1]
        for view in views
    ]
    assert newest[0] == newest[1]
    expected = [pair for one in lists for pair in list(zip(one[:-1], one[1:], strict=True))[-n:]]
    assert [slot[:2] for slot in newest[0]] == expected
    for view in views:
        steps = [slot.step for row in view for slot in row if slot.copy == 1]
        assert steps == list(range(len(expected)))


@settings(max_examples=100, deadline=None)
@given(
    lists=sequences,
    n=st.integers(1, 20),
    fit=st.sampled_from(["whole", "truncate"]),
    pack=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_weighed_step_counts_as_often_as_it_would_stand_in_the_row(
    lists: list[list[int]], n: int, fit: str, pack: bool, seed: int
) -> None:
    options = {"padding": "random-repeat", "fit": fit, "positions": "absolute", "seed": seed}
    users = list(range(len(lists)))
    repeated = filled(lists, users, n, epoch=1, copies="reset", pack=pack, **options)
    weighed = filled(lists, users, n, epoch=1, copies="weight", pack=pack, **options)
    for long, short in zip(repeated.views, weighed.views, strict=True):
        times = Counter(slot.step for row in long for slot in row if slot.target > 0)
        weights = {slot.step: slot.weight for row in short for slot in row if slot.target > 0}
        assert times == weights
        assert all(slot.copy <= 1 for row in short for slot in row)


@settings(max_examples=100, deadline=None)
@given(lists=sequences, share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_crop_keeps_a_stretch_of_at_least_its_share(
    lists: list[list[int]], share: float, seed: int
) -> None:
    users = list(range(len(lists)))
    options = {"fit": "whole", "copies": "reset", "positions": "absolute", "pack": False}
    rows = filled(
        lists, users, 20, padding="zero", epoch=1, seed=seed, crop=share, count=1, **options
    )
    for sequence, row in zip(lists, rows.views[0], strict=True):
        kept = [slot for slot in row if slot.target > 0]
        items = [*(slot.item for slot in kept), kept[-1].target]
        assert len(items) >= share * len(sequence)
        assert any(items == sequence[start : start + len(items)] for start in range(len(sequence)))


@settings(max_examples=100, deadline=None)
@given(
    lists=sequences,
    n=st.integers(1, 20),
    operators=st.lists(
        st.tuples(st.sampled_from(["crop", "mask", "reorder"]), st.floats(0.01, 1)),
        min_size=1,
        max_size=4,
    ),
    pack=st.booleans(),
    positions=st.sampled_from(["absolute", "per-copy"]),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_augmented_rows_are_what_the_description_says(
    lists: list[list[int]],
    n: int,
    operators: list[tuple[str, float]],
    pack: bool,
    positions: str,
    seed: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    users = data.draw(st.permutations(range(len(lists))))
    same = {"positions": positions, "pack": pack, "seed": seed}
    batcher = Batcher(*flat(lists), max_len=n, padding="zero", fit="whole", copies="reset", **same)
    views = [buffers((len(users), n), weigh=True) for _ in range(2)]
    order = np.array(users, dtype=np.uint32)
    rows = batcher.fill_augmented(order, epoch, operators, 31, *views)
    expected = reference.augmented_views(lists, users, n, operators, mask=31, epoch=epoch, **same)
    assert [slots(view, count) for view, count in zip(views, rows, strict=True)] == expected


def test_operators_do_what_their_paper_says() -> None:
    """One user of ten inputs, many epochs: lengths, contents, and that all of it is drawn."""
    inputs = list(range(1, 11))
    batcher = batcher_of([[*inputs, 11]], n=12)
    seen: dict[str, set[tuple[int, ...]]] = {"crop": set(), "mask": set(), "reorder": set()}
    for operator, drawn in seen.items():
        for epoch in range(1000):
            views = [buffers((1, 12), weigh=False) for _ in range(2)]
            batcher.fill_augmented(np.zeros(1, np.uint32), epoch, [(operator, 0.35)], 99, *views)
            drawn.update(tuple(item for item in view[0][0].tolist() if item) for view in views)
    assert seen["crop"] == {tuple(range(start, start + 3)) for start in range(1, 9)}
    masks = {tuple(place for place, item in enumerate(row) if item == 99) for row in seen["mask"]}
    assert masks == set(combinations(range(10), 3))
    assert all(b == 99 or a == b for row in seen["mask"] for a, b in zip(inputs, row, strict=True))
    for row in seen["reorder"]:
        assert sorted(row) == inputs
        moved = [place for place in range(10) if row[place] != inputs[place]]
        assert not moved or moved[-1] - moved[0] < 3
    # Eight stretches of three: two neighbours swapped, or three turned or reversed.
    assert len(seen["reorder"]) == 1 + 9 + 8 * 3


def test_the_two_augmented_views_differ_in_their_operator() -> None:
    batcher = batcher_of([[1, 2, 3, 4, 5]], n=4)
    for epoch in range(50):
        views = [buffers((1, 4), weigh=False) for _ in range(2)]
        operators = [("crop", 0.5), ("mask", 0.5)]
        batcher.fill_augmented(np.zeros(1, np.uint32), epoch, operators, 99, *views)
        masked = [99 in view[0] for view in views]
        assert sorted(masked) == [False, True]


def batcher_of(lists: list[list[int]], *, n: int, **options: object) -> Batcher:
    """A batcher of unpacked rows with one copy."""
    defaults = {
        "padding": "zero",
        "fit": "whole",
        "copies": "reset",
        "positions": "absolute",
        "pack": False,
        "seed": 0,
    }
    return Batcher(*flat(lists), max_len=n, **{**defaults, **options})


@settings(max_examples=100, deadline=None)
@given(
    lists=sequences,
    n=st.integers(1, 12),
    views=st.integers(1, 2),
    crop=st.sampled_from([0.0, 0.3]),
    popular=st.booleans(),
    outside=st.booleans(),
    copy=st.integers(0, 2),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_negatives_of_steps_are_those_of_the_description(
    lists: list[list[int]],
    n: int,
    views: int,
    crop: float,
    popular: bool,
    outside: bool,
    copy: int,
    seed: int,
    data: st.DataObject,
) -> None:
    users = data.draw(st.permutations(range(len(lists))))
    options = {"padding": "random-repeat", "fit": "whole", "copies": "reset"}
    options |= {"positions": "absolute", "pack": True, "seed": seed, "crop": crop}
    rows = reference.views(lists, users, n, epoch=5, count=views, **options)
    counts = [item % 3 for item in range(1, 41)] if popular else [1] * 40
    sampler = NegativeSampler(40, counts=np.array(counts) if popular else None)
    shape = (len(rows.step_users), 6)
    negatives, log_q = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
    Batcher(*flat(lists), max_len=n, **options).fill_negatives(
        sampler, np.array(users, dtype=np.uint32), 5, views, outside, copy, negatives, log_q
    )
    urn = [item for item, count in enumerate(counts, start=1) for _ in range(count)]
    drawn, logs = reference.step_negatives(
        lists, users, rows, urn, 6, outside_history=outside, copy=copy, seed=seed, epoch=5
    )
    assert negatives.tolist() == drawn
    np.testing.assert_allclose(log_q, np.array(logs).reshape(shape), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("counts", "outside"), [([0, 1, 0], False), ([1, 1, 0], True), ([1, 2**31, 0], False)]
)
def test_a_step_with_nothing_left_to_draw_is_refused(counts: list[int], outside: bool) -> None:
    sampler = NegativeSampler(3, counts=np.array(counts))
    negatives, log_q = np.empty((1, 4), dtype=np.int64), np.empty((1, 4), dtype=np.float32)
    with pytest.raises(ConfigError, match="negatives: expected .* to draw .*that is not rare"):
        batcher_of([[1, 2]], n=5).fill_negatives(
            sampler, np.zeros(1, np.uint32), 0, 1, outside, 0, negatives, log_q
        )


def test_the_shuffle_is_that_of_the_description() -> None:
    users = np.arange(50, dtype=np.uint32)
    shuffle_users(users, 2**40 + 3, 7)
    assert users.tolist() == reference.shuffled(list(range(50)), 2**40 + 3, 7)


@pytest.mark.parametrize("counts", [None, [3, 0, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]])
def test_shared_negatives_are_those_of_the_description(counts: list[int] | None) -> None:
    sampler = NegativeSampler(12, counts=None if counts is None else np.array(counts))
    drawn = np.empty(100, dtype=np.int64)
    sampler.fill_shared(drawn, 5, 3, 9)
    stream = reference.Stream(5, reference.TRAINING_NEGATIVES, 3, 9)
    urn = [item for item, count in enumerate(counts or [1] * 12, start=1) for _ in range(count)]
    assert drawn.tolist() == [urn[stream.below(len(urn))] for _ in range(100)]


@pytest.mark.parametrize("counts", [None, [3, 0, 1, 4, 1, 5, 9, 2, 6]])
def test_ranking_negatives_are_those_of_the_description(counts: list[int] | None) -> None:
    histories = [[1, 8, 3, 3], [4, 5], [9]]
    items, starts, ends = flat(histories)
    users = np.array([0, 7, 2], dtype=np.uint32)
    sampler = NegativeSampler(9, counts=None if counts is None else np.array(counts))
    drawn = np.empty((3, 5), dtype=np.int64)
    sampler.fill_outside_history(items, starts, ends, users, 11, drawn)
    urn = [item for item, count in enumerate(counts or [1] * 9, start=1) for _ in range(count)]
    for row, user, history in zip(drawn.tolist(), users.tolist(), histories, strict=True):
        stream = reference.Stream(11, reference.RANKING_NEGATIVES, 0, user)
        taken = set(history)
        expected = []
        while len(expected) < 5:
            item = urn[stream.below(len(urn))]
            if item not in taken:
                taken.add(item)
                expected.append(item)
        assert row == expected


@pytest.mark.parametrize(("counts", "left"), [(None, 6), ([1, 1, 0, 0, 1, 1, 1, 1, 1], 5)])
def test_too_many_ranking_negatives_are_refused(counts: list[int] | None, left: int) -> None:
    items, starts, ends = flat([[1, 2, 3, 3], [4, 5]])
    users = np.array([0, 1], dtype=np.uint32)
    sampler = NegativeSampler(9, counts=None if counts is None else np.array(counts))
    drawn = np.empty((2, left), dtype=np.int64)
    sampler.fill_outside_history(items[:4], starts[:1], ends[:1], users[:1], 1, drawn[:1])
    assert len(set(drawn[0].tolist()) - {1, 2, 3}) == left
    with pytest.raises(ConfigError, match=f"at most {left}, the items left to draw for"):
        sampler.fill_outside_history(
            items, starts, ends, users, 1, np.empty((2, left + 1), dtype=np.int64)
        )


@pytest.mark.parametrize("counts", [[0, 0], [-1, 2], [2**32]])
def test_counts_that_nothing_can_be_drawn_from_are_refused(counts: list[int]) -> None:
    with pytest.raises(ConfigError, match="counts: expected a sum between"):
        NegativeSampler(2, counts=np.array(counts))


@pytest.mark.parametrize("mode", ["absolute", "per-copy"])
def test_histories_stand_at_the_right_and_narrow_rows_number_as_wide_ones(mode: str) -> None:
    items, starts, ends = flat([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]])
    kinds = (np.int64, np.int32, np.int32)
    wide = [np.empty((3, 5), dtype=kind) for kind in kinds]
    fill_histories(items, starts, ends, 5, mode, *wide)
    assert wide[0].tolist() == [[0, 0, 1, 2, 3], [0, 0, 0, 0, 4], [6, 7, 8, 9, 10]]
    assert wide[1].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    first = {"absolute": [0, 0, 2, 3, 4], "per-copy": [0, 0, 0, 1, 2]}
    assert wide[2][0].tolist() == first[mode]
    narrow = [np.empty((2, 3), dtype=kind) for kind in kinds]
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


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_together_see_every_user_once(small_dataset: Dataset, world_size: int) -> None:
    loaders = [
        TrainingLoader(
            small_dataset,
            spec(),
            RANDOM,
            batch_size=7,
            seed=1,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    epochs = [list(loader.epoch(2)) for loader in loaders]
    assert len({len(batches) for batches in epochs}) == 1
    seen = [int(user) for batches in epochs for batch in batches for user in batch.users]
    assert sorted(seen) == list(range(small_dataset.num_users))
    # The ranks' batches of a step are the batch of a single process that takes as many users.
    single = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=7 * world_size, seed=1)
    for step, batch in enumerate(single.epoch(2)):
        together = [int(user) for batches in epochs for user in batches[step].users]
        assert sorted(together) == sorted(batch.users.tolist())


@pytest.mark.parametrize("depth", [0, 1, 9])
def test_the_depth_of_the_prefetch_changes_nothing(
    small_dataset: Dataset, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=7, seed=1)
    expected = [batch.views[0].items.tolist() for batch in loader.epoch(1)]
    monkeypatch.setattr("blin.data.loader.PREFETCH", depth)
    assert [batch.views[0].items.tolist() for batch in loader.epoch(1)] == expected


def everything(**changes: Any) -> BatchSpec:
    """A spec that asks for all there is."""
    operators = (Augmentation("crop", 0.6), Augmentation("mask", 0.3), Augmentation("reorder", 0.6))
    defaults = {
        "max_len": 8,
        "positions": "absolute",
        "views": 2,
        "num_negatives": 5,
        "negatives_per": "position",
        "exclude_history": True,
        "augmentations": operators,
    }
    return BatchSpec(**{**defaults, **changes})


WEIGHED = replace(RANDOM, copies="weight", crop=0.5)


def content(thing: object) -> object:
    """All tensors of a batch, as lists."""
    if isinstance(thing, torch.Tensor):
        return thing.tolist()
    if isinstance(thing, tuple):
        return [content(one) for one in thing]
    if thing is None:
        return None
    return {field.name: content(getattr(thing, field.name)) for field in fields(thing)}


@pytest.mark.parametrize("negatives_per", ["batch", "position", "copy"])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_batch_is_the_same_whoever_makes_it(
    small_dataset: Dataset, threads: int, negatives_per: str
) -> None:
    asked = everything(negatives_per=negatives_per)
    loader = TrainingLoader(small_dataset, asked, WEIGHED, batch_size=7, seed=1)
    expected = [content(batch) for batch in loader.epoch(3)]
    order = loader.users.copy()
    shuffle_users(order, 1, 3)
    with ThreadPoolExecutor(threads) as pool:
        jobs = [
            pool.submit(loader.batch, order, 3, step) for step in reversed(range(len(expected)))
        ]
        assert [content(job.result()) for job in reversed(jobs)] == expected


def test_each_copy_has_negatives_of_its_own(small_dataset: Dataset) -> None:
    shared, own = (
        TrainingLoader(
            small_dataset, everything(negatives_per=scope), RANDOM, batch_size=7, seed=1
        ).epoch(2)
        for scope in ("position", "copy")
    )
    copies = 0
    for batch, other in zip(shared, own, strict=True):
        assert torch.equal(other.negatives[0], batch.negatives)
        assert len(other.negatives) == max(int(view.copies.max()) for view in batch.views)
        for copy, negatives in enumerate(other.negatives[1:]):
            assert (negatives != other.negatives[copy]).any()
        copies = max(copies, len(other.negatives))
    assert copies > 2


def test_negatives_of_steps_are_wrong_for_their_users(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, everything(), RANDOM, batch_size=7, seed=1)
    shared = TrainingLoader(
        small_dataset, everything(negatives_per="batch"), RANDOM, batch_size=7, seed=1
    )
    for batch, other in zip(loader.epoch(0), shared.epoch(0), strict=True):
        view, histories = batch.views[0], []
        for user in batch.users.tolist():
            held_out = small_dataset.splits[user, 0]
            histories.append(set(small_dataset.sequence(user)[:held_out].tolist()))
        assert view.steps[view.newest].tolist() == list(range(len(batch.step_users)))
        rows = zip(batch.negatives.tolist(), batch.step_users.tolist(), strict=True)
        assert all(not histories[user] & set(row) for row, user in rows)
        assert batch.log_q.shape == batch.negatives.shape == (len(batch.step_users), 5)
        assert other.excluded is not None
        assert other.excluded.tolist() == [
            [item in history for item in other.negatives.tolist()] for history in histories
        ]


def test_ranks_draw_what_one_process_draws(small_dataset: Dataset) -> None:
    def rows(batches: Iterable[Batch]) -> dict[int, object]:
        found: dict[int, object] = {}
        for batch in batches:
            for row, user in enumerate(batch.users.tolist()):
                own = batch.step_users == row
                views = (*batch.views, *batch.augmented)
                found[user] = [content(view.items[row]) for view in views]
                found[user].append(batch.negatives[own].tolist())
        return found

    def loader(size: int, rank: int, world_size: int) -> TrainingLoader:
        rule = replace(RANDOM, pack=False, crop=0.5)
        return TrainingLoader(
            small_dataset, everything(), rule, batch_size=size, seed=1, rank=rank,
            world_size=world_size,
        )  # fmt: skip

    together = rows(loader(14, 0, 1).epoch(2))
    assert rows(batch for rank in (0, 1) for batch in loader(7, rank, 2).epoch(2)) == together


@pytest.mark.parametrize("negatives_per", ["batch", "position", "copy"])
def test_a_rank_may_have_nobody_left(small_dataset: Dataset, negatives_per: str) -> None:
    wanted, size = replace(spec(), negatives_per=negatives_per), 17
    last = []
    for rank in range(7):
        loader = TrainingLoader(
            small_dataset, wanted, RANDOM, batch_size=size, seed=1, rank=rank, world_size=7
        )
        last.append(loader.batch(loader.users, 0, loader.steps_per_epoch - 1))
    assert [len(batch.users) for batch in last] == [1, 0, 0, 0, 0, 0, 0]


def test_batches_that_are_kept_stay_as_they_are(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, everything(), WEIGHED, batch_size=7, seed=1)
    kept, then = [], []
    for batch in loader.epoch(0):
        kept.append(batch)
        then.append(content(batch))
    assert [content(batch) for batch in kept] == then


def test_memory_goes_round_in_a_training_loop(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=2, seed=1)
    assert loader.steps_per_epoch > 20
    places = set()
    table = torch.zeros(small_dataset.num_items + 1, 2, requires_grad=True)
    for batch in loader.epoch(0):
        places.add(batch.views[0].items.data_ptr())
        loss = table[batch.to(torch.device("cpu")).views[0].items].sum()
        loss.backward()
    assert len(places) <= PREFETCH + 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_pinned_batches_reach_the_gpu_as_they_are(small_dataset: Dataset) -> None:
    pinned = TrainingLoader(
        small_dataset, everything(), WEIGHED, batch_size=7, seed=1, pin_memory=True
    )
    plain = TrainingLoader(small_dataset, everything(), WEIGHED, batch_size=7, seed=1)
    for batch, expected in zip(pinned.epoch(0), plain.epoch(0), strict=True):
        assert batch.views[0].items.is_pinned()
        assert batch.negatives.is_pinned()
        assert content(batch.to(torch.device("cuda"))) == content(expected)


def test_the_wait_for_batches_is_measured(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = TrainingLoader(small_dataset, spec(), RANDOM, batch_size=7, seed=1)
    assert loader.waited == 0
    make = loader.batch

    def slowly(order: np.ndarray, epoch: int, step: int) -> Batch:
        time.sleep(0.005)
        return make(order, epoch, step)

    monkeypatch.setattr(loader, "batch", slowly)
    steps = len(list(loader.epoch(0)))
    # One thread makes one batch after the other, and nothing is done meanwhile.
    assert loader.waited >= 0.005 * steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"negatives_per": "user"},
            "negatives_per: expected one of batch, position, copy, found 'user'",
        ),
        ({"sampling": "none"}, "sampling: expected one of uniform, popularity, found 'none'"),
        ({"positions": "none"}, "positions: expected one of absolute, per-copy, found 'none'"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        everything(**change)


@pytest.mark.parametrize("long_sequences", ["newest", "windows"])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_a_user_who_has_had_everything_is_named(
    tmp_path: Path, sampling: str, long_sequences: str
) -> None:
    def loader(rest: str, **spec: Any) -> TrainingLoader:
        log = tmp_path / "log.csv"
        rows = [("ann", item) for item in "ab" + rest] + [("fan", item) for item in "abcab"]
        log.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
        dataset = load_dataset(log, data_dir=tmp_path, min_interactions=1)
        rows_of = Rows(long_sequences=long_sequences)
        spec = {"sampling": sampling, "augmentations": (), **spec}
        return TrainingLoader(dataset, everything(**spec), rows_of, batch_size=4, seed=0)

    with pytest.raises(DataError, match='user "fan" has had all 3 items'):
        loader("ba")
    # Nobody trains with x and y: by popularity they are never drawn.
    if sampling == "popularity":
        with pytest.raises(DataError, match='"fan" has had all 3 items that can be drawn, and'):
            loader("xy")
    else:
        drawn = loader("xy")
        fans = drawn.batch(drawn.users[1:], 0, 0).negatives
        assert set(fans.flatten().tolist()) == {3, 4}
    for free in ({"exclude_history": False}, {"negatives_per": "batch"}, {"num_negatives": 0}):
        again = loader("ba", **free)
        again.batch(again.users, 0, 0)


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_of_one_item_there_are_no_negatives(tmp_path: Path, sampling: str) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "ann,tea\n" * 5)
    dataset = load_dataset(tmp_path / "log.csv", data_dir=tmp_path, min_interactions=1)
    spec = everything(sampling=sampling, exclude_history=False)
    with pytest.raises(DataError, match="two items or more to draw negatives from, found one"):
        TrainingLoader(dataset, spec, Rows(), batch_size=4, seed=0)


@pytest.mark.parametrize(
    ("operator", "ratio", "message"),
    [
        ("insert", 0.5, "augmentation: expected one of crop, mask, reorder, found 'insert'"),
        ("crop", 0.0, r"crop: expected a ratio in \(0, 1\], found 0.0"),
        ("mask", 1.5, r"mask: expected a ratio in \(0, 1\], found 1.5"),
    ],
)
def test_an_augmentation_that_cannot_be_done_is_refused(
    operator: str, ratio: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(operator, ratio)


@pytest.mark.parametrize("crop", [-0.1, 1.1, float("nan")])
def test_a_crop_that_is_no_share_is_refused(crop: float) -> None:
    with pytest.raises(ConfigError, match="crop: expected a share between 0 and 1"):
        batcher_of([[1, 2]], n=3, crop=crop)


def test_log_q_is_the_expected_number_of_draws(small_dataset: Dataset) -> None:
    popular = BatchSpec(8, "absolute", views=1, num_negatives=50, sampling="popularity")
    loader = TrainingLoader(small_dataset, popular, RANDOM, batch_size=7, seed=1)
    counts = np.zeros(small_dataset.num_items + 1)
    for user in range(small_dataset.num_users):
        for item in small_dataset.sequence(user)[: small_dataset.splits[user, 0]]:
            counts[item] += 1
    batch = next(iter(loader.epoch(0)))
    expected = np.log(50 * counts[batch.negatives.numpy()] / counts.sum())
    np.testing.assert_allclose(batch.log_q.numpy(), expected, rtol=1e-5)


def test_targets_are_training_items_only(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, spec(views=1), RANDOM, batch_size=1, seed=1)
    for batch in loader.epoch(0):
        user = int(batch.users[0])
        held_out = int(small_dataset.splits[user, 0])
        view = batch.views[0]
        last = int(view.targets[-1, -1])
        assert last == small_dataset.sequence(user)[held_out - 1]


@pytest.mark.parametrize("loss_positions", ["all", "last"])
def test_places_are_those_of_the_newest_inputs(small_dataset: Dataset, loss_positions: str) -> None:
    wanted = replace(spec(), places=True, loss_positions=loss_positions)
    loader = TrainingLoader(small_dataset, wanted, RANDOM, batch_size=30, seed=1)
    starts, ends = small_dataset.training_ranges()
    for batch in loader.epoch(0):
        assert batch.step_places is not None
        view = batch.views[0]
        users = batch.users[batch.step_users].numpy()
        places = batch.step_places.numpy()
        assert ((starts[users] <= places) & (places < ends[users] - 1)).all()
        here = view.steps >= 0
        own = places[view.steps[here].numpy()]
        assert (small_dataset.items[own] == view.items[here].numpy()).all()
        assert (small_dataset.items[own + 1] == view.targets[here].numpy()).all()
        if loss_positions == "all":
            ahead = ends[users] - places
            same = users[1:] == users[:-1]
            assert (ahead[1:][same] == ahead[:-1][same] - 1).all() and (
                ahead[:-1][~same] == 2
            ).all()


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
