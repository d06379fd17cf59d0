"""Every input of a batch has the time of its interaction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from blin.batch import Augmentation, BatchSpec
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError

SPEC = BatchSpec(max_len=9, positions="absolute", views=2, num_negatives=1, times=True)
ROWS = Rows(padding="random-repeat", fit="whole", copies="reset", pack=True)


def numbered(dataset: Dataset) -> Dataset:
    """The dataset with every interaction an item and a time of its own."""
    copy = Dataset(dataset.path)
    copy.items = np.arange(1, len(copy.items) + 1, dtype=np.uint32)
    copy.timestamps = np.cumsum(np.arange(len(copy.items)) % 7 + 1) - 500
    return copy


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ({}, {}),
        ({}, {"pack": False, "padding": "zero"}),
        ({}, {"fit": "truncate", "copies": "attend"}),
        ({"views": 1}, {"copies": "weight"}),
        ({"loss_positions": "last"}, {}),
    ],
)
def test_inputs_have_their_times(
    small_dataset: Dataset, spec: dict[str, Any], rows: dict[str, Any]
) -> None:
    dataset = numbered(small_dataset)
    loader = TrainingLoader(
        dataset, replace(SPEC, **spec), replace(ROWS, **rows), batch_size=7, seed=1
    )
    seen = 0
    for batch in loader.epoch(1):
        for view in batch.views:
            assert view.times is not None and view.times.dtype == torch.int64
            assert view.times.shape == view.items.shape
            real = view.items > 0
            expected = dataset.timestamps[view.items[real].numpy() - 1]  # type: ignore[index]
            assert view.times[real].tolist() == expected.tolist()
            assert not view.times[~real].any()
            seen += int(real.sum())
    assert seen > 300


def test_a_rank_without_users_has_no_times(small_dataset: Dataset) -> None:
    loader = TrainingLoader(
        small_dataset, SPEC, ROWS, batch_size=1, seed=1, rank=120, world_size=121
    )
    (batch,) = loader.epoch(0)
    assert len(batch.users) == 0
    times = batch.views[0].times
    assert times is not None and times.shape == (0, 9)


def test_without_times_inputs_have_their_places(small_dataset: Dataset) -> None:
    dataset = numbered(small_dataset)
    dataset.timestamps = None
    loader = TrainingLoader(dataset, SPEC, ROWS, batch_size=7, seed=1)
    for batch in loader.epoch(0):
        for view in batch.views:
            real = view.items > 0
            places = view.items[real].numpy() - 1
            users = np.searchsorted(dataset.offsets, places, side="right") - 1
            assert view.times is not None
            assert view.times[real].tolist() == (places - dataset.offsets[users]).tolist()


def test_who_does_not_ask_gets_none(small_dataset: Dataset) -> None:
    spec = replace(SPEC, times=False)
    loader = TrainingLoader(small_dataset, spec, ROWS, batch_size=7, seed=1)
    assert loader.batch(loader.users, 0, 0).views[0].times is None
    starts, ends = small_dataset.offsets[:3], small_dataset.offsets[1:4]
    batch = history_batch(
        small_dataset.items, starts, ends, spec, timestamps=small_dataset.timestamps
    )
    assert batch.views[0].times is None


@pytest.mark.parametrize("known", [True, False])
def test_histories_have_their_times(small_dataset: Dataset, known: bool) -> None:
    dataset = numbered(small_dataset)
    starts, ends = dataset.offsets[2:12].copy(), dataset.offsets[3:13].copy()
    ends[3] = starts[3]  # an empty history
    ends[4] = starts[4] + 2
    times = dataset.timestamps if known else None
    view = history_batch(dataset.items, starts, ends, SPEC, timestamps=times).views[0]
    assert view.times is not None
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        places = np.arange(max(start, end - 9), end)
        expected = dataset.timestamps[places] if known else places - start  # type: ignore[index]
        padding = [0] * (view.times.shape[1] - len(places))
        assert view.times[row].tolist() == padding + expected.tolist()


def test_times_move_with_their_view() -> None:
    nothing = np.zeros(1, dtype=np.int64)
    view = history_batch(np.empty(0, dtype=np.uint32), nothing, nothing, SPEC).views[0]
    assert view.to(torch.device("meta")).times.device.type == "meta"  # type: ignore[union-attr]


def test_what_has_no_times_is_refused(small_dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="augmentations: expected none with times, found some"):
        replace(SPEC, augmentations=(Augmentation("mask", 0.5),))
    with pytest.raises(ConfigError, match="crop: expected 0 for a model that looks at times"):
        TrainingLoader(small_dataset, SPEC, replace(ROWS, crop=0.6), batch_size=7, seed=1)
