from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.cl4srec import CL4SRec, CL4SRecConfig, contrastive_loss
from learned import lively, loader_of, module_of
from reference import cl4srec as reference
from reference import objective as reference_objective
from reference import sasrec as reference_sasrec


def model_and_batch(dataset: Dataset, **settings: Any) -> tuple[Any, Batch]:
    model = lively(module_of("cl4srec", dataset.num_items, dim=4, max_len=20, **settings))
    loader = loader_of(dataset, model.batch_spec, "cl4srec", batch_size=5)
    return model, loader.batch(loader.users, 0, 0)


def masked(batch: Batch, num_items: int) -> int:
    return sum(int((view.items == num_items + 1).sum()) for view in batch.augmented)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_loss_is_that_of_the_formulas(small_dataset: Dataset, temperature: float) -> None:
    model, batch = model_and_batch(small_dataset, num_negatives=6, temperature=temperature)
    assert masked(batch, small_dataset.num_items) > 0
    assert len(batch.augmented[0].items) < len(batch.users)
    weights = {name: value.detach() for name, value in model.state_dict().items()}

    def states_of(view: Any) -> Any:
        return reference_sasrec.states(view, weights, model.config)

    table = weights["item_embedding.weight"][: small_dataset.num_items + 1]
    states = [states_of(view) for view in batch.views]
    sequence, _ = reference_objective.next_item_loss(states, table, batch, model.config)
    vectors = [reference.newest(view, states_of(view)) for view in batch.augmented]
    assert [len(found) for found in vectors] == [len(batch.users)] * 2
    contrast = reference.contrastive_loss(vectors[0], vectors[1], temperature)
    found = model(batch)
    torch.testing.assert_close(found.parts["contrast"], contrast)
    torch.testing.assert_close(found.total.detach(), sequence + 0.1 * contrast)


def test_the_contrast_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    views = [
        torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]
    ours = contrastive_loss(views[0], views[1], temperature=0.5)
    expected = reference.contrastive_loss(list(views[0]), list(views[1]), 0.5)
    torch.testing.assert_close(ours, expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, views), torch.autograd.grad(expected, views), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("count", [0, 1])
def test_a_user_alone_is_told_apart_from_nobody(count: int) -> None:
    vectors = torch.ones(count, 3, requires_grad=True)
    loss = contrastive_loss(vectors, vectors, temperature=1.0)
    assert loss == 0
    (grad,) = torch.autograd.grad(loss, [vectors])
    assert not grad.any()


def test_the_mask_is_read_and_learns_but_is_never_scored(small_dataset: Dataset) -> None:
    items = small_dataset.num_items
    model, batch = model_and_batch(small_dataset, num_negatives=0)
    before, scores = model(batch), model.score(batch)
    assert scores.shape[1] == items + 1
    before.total.backward()
    assert model.item_embedding.weight.grad[items + 1].any()
    with torch.no_grad():
        model.item_embedding.weight[items + 1] *= -1
    after = model(batch)
    assert torch.equal(model.score(batch), scores)
    assert torch.equal(after.parts["sequence"], before.parts["sequence"])
    assert after.parts["contrast"] != before.parts["contrast"]


def test_the_operators_are_those_that_have_a_ratio() -> None:
    def operators(**settings: Any) -> list[tuple[str, float]]:
        spec = CL4SRec(12, CL4SRecConfig(**settings)).batch_spec
        return [(one.operator, one.ratio) for one in spec.augmentations]

    assert operators() == [("crop", 0.6), ("mask", 0.3), ("reorder", 0.6)]
    assert operators(crop_ratio=0.0, mask_ratio=0.5) == [("mask", 0.5), ("reorder", 0.6)]
    assert operators(contrast_weight=0.0) == []


def test_without_contrast_it_is_sasrec(small_dataset: Dataset) -> None:
    model, batch = model_and_batch(small_dataset, contrast_weight=0.0)
    assert batch.augmented == ()
    assert model(batch).parts.keys() == {"sequence"}


def test_the_mask_is_all_it_adds_to_the_parameters_of_sasrec() -> None:
    ours, theirs = (
        sum(weight.numel() for weight in module_of(name, 12, dim=8).parameters())
        for name in ("cl4srec", "sasrec")
    )
    assert ours == theirs + 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrast_weight": -0.1}, "contrast_weight: expected at least 0, found -0.1"),
        ({"temperature": 0.0}, "temperature: expected above 0, found 0.0"),
        ({"mask_ratio": 1.5}, r"mask_ratio: expected a number in \[0, 1\], found 1.5"),
        (
            {"crop_ratio": 0.0, "mask_ratio": 0.0, "reorder_ratio": 0.0},
            "contrast_weight: expected 0 where crop_ratio, mask_ratio and reorder_ratio are 0",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CL4SRecConfig(**settings)
