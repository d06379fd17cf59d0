"""What every model must do that learns from when things happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import blin
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from learned import LEARNED, lively, loader_of, module_of, timed_view, uneven

V = 12
TIMED = [name for name in LEARNED if module_of(name, V).batch_spec.times]

pytestmark = pytest.mark.parametrize("name", TIMED)


def test_later_times_change_nothing_earlier(name: str) -> None:
    model = lively(module_of(name, V))
    times = [10, 20, 30, 60, 90, 150]
    before = model.encode(timed_view(times))
    for place in range(1, 6):
        # The gap grows beyond all others.
        moved = times[:place] + [time + 1_000 for time in times[place:]]
        after = model.encode(timed_view(moved))
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.equal(before[:, place:], after[:, place:])


def test_times_of_other_segments_change_nothing(name: str) -> None:
    model = lively(module_of(name, V))
    segments = [2, 2, 2, 1, 1, 1]
    before = model.encode(timed_view([10, 20, 30, 60, 90, 150], segments))
    after = model.encode(timed_view([10, 11, 59, 60, 90, 150], segments))
    assert torch.equal(before[:, 3:], after[:, 3:])
    later = model.encode(timed_view([10, 20, 30, 60, 61, 150], segments))
    assert torch.equal(before[:, :3], later[:, :3])


def test_no_times_are_equal_gaps(name: str) -> None:
    model = module_of(name, V)
    view = timed_view([3, 4, 5, 6, 7, 8], [2, 2, 2, 1, 1, 1])
    assert torch.equal(model.encode(view), model.encode(replace(view, times=None)))
    items, bounds = np.array([3, 1, 4, 1, 5], dtype=np.uint32), np.array([0, 5])
    spec = model.batch_spec
    equal = history_batch(items, bounds[:1], bounds[1:], spec, timestamps=bounds[:1] + np.arange(5))
    assert torch.equal(
        model.score(history_batch(items, bounds[:1], bounds[1:], spec)), model.score(equal)
    )


def test_training_sees_a_history_as_recommendation_does(small_dataset: Dataset, name: str) -> None:
    """The state of each training step is that of the history up to it, and its times."""
    changes: dict[str, Any] = {"max_len": 16, "positions": "per-copy", "padding": "zero"}
    model = module_of(name, small_dataset.num_items, max_len=16, positions="per-copy")
    dataset = uneven(small_dataset)
    loader = loader_of(dataset, model.batch_spec, name, batch_size=4, **changes)
    batch = loader.batch(loader.users, 0, 0)
    view = batch.views[0]
    trained = model.encode(view)[view.steps >= 0] @ model.item_embedding.items.t()
    users = batch.users[batch.step_users].numpy()
    counts = torch.bincount(batch.step_users).tolist()
    ends = dataset.offsets[users] + np.concatenate([np.arange(1, n + 1) for n in counts])
    histories = history_batch(
        dataset.items, dataset.offsets[users], ends, model.batch_spec, timestamps=dataset.timestamps
    )
    torch.testing.assert_close(model.score(histories), trained)


def test_it_recommends_to_users_and_to_histories(small_dataset: Dataset, name: str) -> None:
    settings: dict[str, Any] = {"epochs": 1, "dim": 8, "max_len": 8, "seed": 0}
    model = blin.Recommender(name, device="cpu", **settings).fit(small_dataset)
    user = small_dataset.user_ids.raw(0)
    of_user = model.recommend([user], k=5).to_pydict()
    raw = [small_dataset.item_ids.raw(int(item)) for item in small_dataset.sequence(0)]
    of_history = model.recommend(histories=[raw], k=5).to_pydict()
    # The small log has an item a second: its times are its places.
    assert of_user["item_id"] == of_history["item_id"]
    session = model.session()
    session.push(*raw)
    assert [item for item, _ in session.top(5)] == of_history["item_id"]
