"""No model of the dictionary learns from, or looks at, what it must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blin.batch import View
from blin.checkpoint import read_run_config
from blin.data.dataset import Dataset
from blin.models import MODELS, Learned
from blin.nn.attention import linear
from blin.training.trainer import train
from learned import LEARNED, loader_of, module_of, small_settings, training_view

CAUSAL = [name for name in LEARNED if module_of(name, 9).causal]
SHIFTED = [
    name
    for name in LEARNED
    if name in CAUSAL or module_of(name, 9).batch_spec.loss_positions == "last"
]
"""Models that predict the target of a position; others hide some items and predict those."""

IN_CHUNKS = [
    name for name in CAUSAL if getattr(module_of(name, 9).config, "attention", "") == "linear"
]

FILLINGS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "repeated": {"padding": "repeat", "copies": "reset", "fit": "whole"},
    "repeated and cut": {"padding": "repeat", "copies": "reset", "fit": "truncate"},
    "rows of their own": {"pack": False},
}


def changed_where(view: View, where: Tensor, num_items: int) -> View:
    """The view with other items there; what is no item stays none."""
    where = where & (view.items > 0)
    return replace(view, items=torch.where(where, view.items % num_items + 1, view.items))


def check_that_later_items_change_nothing(module: Learned, view: View, num_items: int) -> None:
    before = module.encode(view)
    moved = 0
    for place in range(1, 16):
        later = (torch.arange(16) >= place).expand_as(view.items)
        after = module.encode(changed_where(view, later, num_items))
        assert torch.equal(before[:, :place], after[:, :place])
        moved += int((before != after).any())
    assert moved == 15


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", CAUSAL)
def test_later_items_change_nothing_earlier(
    small_dataset: Dataset, name: str, filling: str
) -> None:
    module = module_of(name, small_dataset.num_items, max_len=16)
    view = training_view(small_dataset, module, name, **FILLINGS[filling])
    check_that_later_items_change_nothing(module, view, small_dataset.num_items)


@pytest.mark.parametrize("chunk", [1, 4, 5])
@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", IN_CHUNKS)
def test_nor_across_the_chunks_of_linear_attention(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, filling: str, chunk: int
) -> None:
    monkeypatch.setattr(linear, "CHUNK", chunk)
    module = module_of(name, small_dataset.num_items, max_len=16)
    view = training_view(small_dataset, module, name, **FILLINGS[filling])
    check_that_later_items_change_nothing(module, view, small_dataset.num_items)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", LEARNED)
def test_other_copies_and_other_users_in_the_row_change_nothing(
    small_dataset: Dataset, name: str, filling: str
) -> None:
    """Every segment but one is changed, for each segment in turn."""
    num_items = small_dataset.num_items
    module = module_of(name, num_items, max_len=16)
    view = training_view(small_dataset, module, name, **FILLINGS[filling])
    before = module.encode(view)
    numbers = [int(number) for number in view.segments.unique() if number > 0]
    shares = [len(row.unique()) > 2 for row in view.segments]
    assert any(shares) or filling in ("as by default", "rows of their own")
    for number in numbers:
        own = view.segments == number
        after = module.encode(changed_where(view, ~own, num_items))
        assert torch.equal(before[own], after[own])
        touched = module.encode(changed_where(view, own, num_items))
        assert not torch.equal(before[own], touched[own])


class Numbered(Dataset):
    """The small dataset with every interaction an item of its own: its place in the log, plus 1."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.items = np.arange(1, len(self.items) + 1, dtype=np.uint32)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", SHIFTED)
def test_no_position_sees_its_target_or_anything_held_out(
    small_dataset: Dataset, name: str, filling: str
) -> None:
    dataset = Numbered(small_dataset.path)
    starts, ends = dataset.training_ranges()
    module = module_of(name, dataset.num_items, max_len=16)
    loader = loader_of(dataset, module.batch_spec, name, max_len=16, **FILLINGS[filling])
    targets: list[int] = []
    for batch in loader.epoch(1):
        for view in batch.views:
            for items, goals, segments, newest in zip(
                *(part.tolist() for part in (view.items, view.targets, view.segments, view.newest)),
                strict=True,
            ):
                for place, goal in enumerate(goals):
                    if goal == 0:
                        continue
                    owner = int(np.searchsorted(ends, goal, side="left"))
                    last = place + 1 if module.causal else len(items)
                    seen = [
                        item
                        for item, segment in zip(items[:last], segments, strict=False)
                        if segment == segments[place]
                    ]
                    assert max(seen) == goal - 1
                    assert starts[owner] + 1 <= min(item for item in seen if item > 0)
                    assert goal <= ends[owner]
                    if not module.causal:
                        assert newest[place]
        newest = batch.views[0].targets[batch.views[0].newest]
        targets += newest[newest > 0].tolist()
    learned = [place + 1 for a, b in zip(starts, ends, strict=True) for place in range(a + 1, b)]
    if "crop" in MODELS[name].defaults:
        assert len(set(targets)) == len(targets) > len(learned) / 2
        assert set(targets) < set(learned)
    else:
        assert sorted(targets) == learned


@pytest.mark.parametrize(
    ("name", "more"), [*((name, {}) for name in MODELS), ("blin", {"spectral_span": 2})]
)
def test_held_out_items_never_touch_a_weight(
    small_dataset: Dataset, tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    """Other validation and test items for everybody: the same weights, all else equal."""
    poisoned = Dataset(small_dataset.path)
    items = np.array(poisoned.items)
    for split in ("valid", "test"):
        _, places = poisoned.held_out(split)
        items[places] = items[places] % poisoned.num_items + 1
    poisoned.items = items
    counted = MODELS[name].counted
    file = "model/model.safetensors" if counted else "checkpoints/last.safetensors"
    states = []
    for number, dataset in enumerate((small_dataset, poisoned)):
        result = train(
            dataset,
            model=name,
            settings={} if counted else small_settings(name, epochs=1, batch_size=128, **more),
            runs_dir=tmp_path / str(number),
            device="cpu",
            threads=1,
        )
        assert read_run_config(result.run)["settings"].items() >= MODELS[name].defaults.items()
        states.append(load_file(result.run / file))
    assert states[0].keys() == states[1].keys()
    for part, tensor in states[0].items():
        assert torch.equal(tensor, states[1][part]), part
