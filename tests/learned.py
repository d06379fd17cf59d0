"""Every model that learns by a loss, made small, and its batches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch

from blin.batch import BatchSpec, View
from blin.config import build
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, training_interactions
from blin.models import MODELS, Informed, Learned
from blin.models.encoder import Encoder
from blin.training.trainer import setting_classes
from small import SMALL

Module = TypeVar("Module")

LEARNED = [name for name, model in MODELS.items() if not model.counted]
ENCODERS = [name for name in LEARNED if issubclass(MODELS[name].module, Encoder)]


SMALL_BLOCKS = {"block_size": 2, "chosen_blocks": 2, "window": 2}
"""Blocks of which there are several in a small history."""


def small_settings(name: str, **changes: Any) -> dict[str, Any]:
    """The settings of a model that trains in a second: the small ones that it has."""
    known = {field.name for cls in setting_classes(name) for field in fields(cls)}
    small = {key: value for key, value in {**SMALL, **SMALL_BLOCKS}.items() if key in known}
    return {**MODELS[name].defaults, **small, **changes}


def module_of(name: str, num_items: int, **changes: Any) -> Learned:
    """A model in float64, far from what little the initial weights do; in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name]
    module = model.module(num_items, build(model.config, small_settings(name, **changes)))
    assert isinstance(module, Learned)
    with torch.no_grad():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for part in module.modules():
            if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0
    return module.double().eval()


def informed(module: Module, dataset: Dataset) -> Module:
    """The module, told what the trainer would tell it."""
    if isinstance(module, Informed) and module.needs_interactions:
        module.inform(training_interactions(dataset))
    return module


def training_sequences(dataset: Dataset) -> list[list[int]]:
    """The items of each user that may be learned from, the oldest first."""
    starts, ends = dataset.training_ranges()
    return [dataset.items[start:end].tolist() for start, end in zip(starts, ends, strict=True)]


def lively(module: Learned) -> Learned:
    """The module with weights by which what it reads shows in its states: its norms hide little."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight += 1
            elif isinstance(part, torch.nn.Linear | torch.nn.Embedding):
                part.weight *= 3
    return module


def loader_of(
    dataset: Dataset, spec: BatchSpec, name: str, *, batch_size: int = 40, **changes: Any
) -> TrainingLoader:
    rows = build(Rows, small_settings(name, **changes))
    return TrainingLoader(dataset, spec, rows, batch_size=batch_size, seed=3)


def training_view(dataset: Dataset, module: Learned, name: str, **changes: Any) -> View:
    loader = loader_of(dataset, module.batch_spec, name, max_len=16, **changes)
    return next(iter(loader.epoch(0))).views[0]


def uneven(dataset: Dataset) -> Dataset:
    """The dataset with gaps of all kinds between its interactions, none among them."""
    copy = Dataset(dataset.path)
    gaps = np.random.default_rng(1).choice([0, 1, 20, 45, 100, 86_400], len(copy.items))
    copy.timestamps = np.cumsum(gaps) + 1_000
    return copy


def timed_view(times: list[int], segments: list[int] | None = None) -> View:
    """A row of the items 1, 2, ... at times of one's choice."""
    count = len(times)
    marks = torch.tensor([segments or [1] * count])
    places = torch.arange(count).unsqueeze(0)
    none = torch.zeros_like(places)
    return View(places + 1, none, marks, places, none, none - 1, times=torch.tensor([times]))
