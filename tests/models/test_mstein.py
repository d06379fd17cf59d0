"""MStein against one Gaussian after the other."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from blin.batch import Augmentation, Batch
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError
from blin.models.mstein import MStein, MSteinConfig
from learned import loader_of, module_of
from reference import mstein as reference

SMALL: dict[str, Any] = {"dim": 4, "max_len": 16, "num_blocks": 2, "num_negatives": 2}


def model_of(num_items: int, **settings: Any) -> MStein:
    model = module_of("mstein", num_items, **{**SMALL, **settings})
    assert isinstance(model, MStein)
    return model


def batch_of(dataset: Dataset, model: MStein, **rows: Any) -> Batch:
    loader = loader_of(dataset, model.batch_spec, "mstein", batch_size=3, **{**SMALL, **rows})
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("pack", [True, False])
def test_states_are_those_of_one_sequence_after_the_other(
    small_dataset: Dataset, pack: bool
) -> None:
    model = model_of(small_dataset.num_items)
    view = batch_of(small_dataset, model, padding="repeat", pack=pack).views[0]
    assert (int(view.segments.max()) > 1) or not pack
    ours = model.encode(view)
    assert ours.shape == (*view.items.shape, 8)
    expected = reference.sequences(model.state_dict(), model.config, view)
    assert len(expected) == int((view.segments > 0).sum())
    for place, (mean, cov) in expected.items():
        torch.testing.assert_close(ours[place], torch.cat([mean, cov.sqrt()]))


def test_scores_are_distances(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items)
    items = small_dataset.items[:20]
    bounds = np.array([0, 6])
    scores = model.score(history_batch(items, bounds[:1], bounds[1:], model.batch_spec))
    weights = model.state_dict()
    positions = list(range(10, 16))
    state = reference.states(weights, model.config, items[:6].tolist(), positions)[-1]
    assert scores.shape == (1, small_dataset.num_items + 1)
    for item in range(1, small_dataset.num_items + 1):
        expected = -reference.distance(state, reference.item(weights, item))
        torch.testing.assert_close(scores[0, item], expected)
    assert (scores < 0).all()


@pytest.mark.parametrize(("copies", "temperature"), [("reset", 1e-2), ("weight", 1e-6)])
def test_the_loss_is_that_of_one_pair_after_the_other(
    small_dataset: Dataset, copies: str, temperature: float
) -> None:
    model = model_of(small_dataset.num_items, temperature=temperature, contrast_weight=0.3)
    batch = batch_of(small_dataset, model, padding="repeat", copies=copies)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in model.state_dict().items()}
    ours = model(batch)
    expected = reference.losses(weights, model.config, batch)
    assert ours.parts.keys() == expected.keys() == {"sequence", "pvn", "contrast"}
    for name, part in expected.items():
        assert part > 0
        torch.testing.assert_close(ours.parts[name], part.detach())
    total = expected["sequence"] + 0.01 * expected["pvn"] + 0.3 * expected["contrast"]
    torch.testing.assert_close(ours.total, total)
    ours.total.backward()
    total.backward()
    for name, parameter in model.named_parameters():
        gradient = weights[name].grad
        if name.startswith("item_") and gradient is not None:
            gradient[0] = 0  # what it would be of padding, whose rows stay as they are
        torch.testing.assert_close(parameter.grad, gradient, msg=name)


def test_without_a_contrast_there_are_no_augmented_views(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items, contrast_weight=0.0)
    batch = batch_of(small_dataset, model)
    assert batch.augmented == ()
    assert model(batch).parts.keys() == {"sequence", "pvn"}


def test_a_ratio_of_0_leaves_an_augmentation_out() -> None:
    left = model_of(12, crop_ratio=0.0, reorder_ratio=0.0).batch_spec.augmentations
    assert left == (Augmentation("mask", 0.7),)


def test_a_contrast_of_one_sequence_has_nothing_to_tell_apart(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items)
    rows = Rows("zero", "whole", "reset", pack=True)
    loader = TrainingLoader(small_dataset, model.batch_spec, rows, batch_size=1, seed=0)
    assert model(loader.batch(loader.users, 0, 0)).parts["contrast"] == 0


def test_the_published_temperature_is_finite_in_single_precision(small_dataset: Dataset) -> None:
    """Even where all views are the same: similarities of up to 1/τ, and nothing above."""
    model = model_of(small_dataset.num_items, temperature=1e-6, contrast_weight=1.0).float()
    batch = batch_of(small_dataset, model)
    losses = model(replace(batch, augmented=(batch.augmented[0], batch.augmented[0])))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_mask_token_is_no_candidate(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items)
    batch = batch_of(small_dataset, model)
    token = small_dataset.num_items + 1
    assert any((view.items == token).any() for view in batch.augmented)
    assert model.score(batch).shape[1] == token
    assert len(model.item_embedding.weight) == token + 1


def test_parameters_are_counted() -> None:
    """Two tables of V + 2 items and N positions; a block has 2 · 12 D² weights and its rest."""
    num_items, dim, n, blocks = 12, 8, 9, 3
    model = MStein(num_items, MSteinConfig(dim=dim, max_len=n, num_blocks=blocks))
    expected = 2 * (num_items + 2 + n) * dim + 2 * 2 * dim
    expected += blocks * 2 * (12 * dim * dim + 3 * dim + dim + 5 * dim + 4 * dim)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"num_negatives": 0}, "num_negatives: expected at least 1, found 0"),
        ({"pvn_weight": -1.0}, "pvn_weight: expected at least 0, found -1.0"),
        ({"contrast_weight": -0.5}, "contrast_weight: expected at least 0, found -0.5"),
        ({"temperature": 0.0}, "temperature: expected above 0, found 0.0"),
        ({"crop_ratio": -0.1}, r"crop_ratio: expected a number in \[0, 1\], found -0.1"),
        ({"mask_ratio": 1.5}, r"mask_ratio: expected a number in \[0, 1\], found 1.5"),
        (
            {"crop_ratio": 0.0, "mask_ratio": 0.0, "reorder_ratio": 0.0},
            "contrast_weight: expected 0 where crop_ratio, .* are 0, found 0.005",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MSteinConfig(**{**asdict(MSteinConfig()), **settings})
