"""A student with its detector, against the formulas one step and layer after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.distillation import (
    DistillationConfig,
    Distilled,
    Knowledge,
    TeacherShape,
    features_of,
    layers_of,
    matching_layers,
)
from blin.training.cold import with_pieces
from learned import LEARNED, informed, loader_of, module_of
from reference import distillation as reference

K = 4
SHAPE = TeacherShape(3, 5, 6)
PREFIXES = ("blin-paper", "linrec")


def wrapped(
    dataset: Dataset,
    name: str = "spnn",
    *,
    shape: TeacherShape = SHAPE,
    how: dict[str, Any] | None = None,
    **settings: Any,
) -> Distilled:
    """A student in float64, and a teacher that knows nothing but noise."""
    student = informed(module_of(name, dataset.num_items, max_len=16, **settings), dataset)
    torch.manual_seed(1)
    config = DistillationConfig(**{"knowledge_dim": K, **(how or {})})
    module = Distilled(student, shape, config).double()
    with torch.no_grad():
        for part in (module.detector, module.embeddings):
            for parameter in part.parameters():
                torch.nn.init.normal_(parameter)
    module.knowledge = Knowledge(
        torch.randn(len(dataset.items), shape.layers, shape.dim).half(),
        torch.randn(dataset.num_items + 1, shape.item_dim),
        torch.zeros(dataset.num_users, dtype=torch.int64),
    )
    return module


def batch_of(dataset: Dataset, module: Distilled, name: str = "spnn", **settings: Any) -> Batch:
    changes = {"padding": "zero", "crop": 0.0, **settings}
    loader = loader_of(dataset, module.batch_spec, name, max_len=16, batch_size=12, **changes)
    return loader.batch(loader.users, 0, 0)


def by_user(features: Tensor, batch: Batch) -> list[list[list[Tensor]]]:
    """(T, L, D) features as lists: of each user, step and layer."""
    return [
        [list(step) for step in features[batch.step_users == user]]
        for user in range(len(batch.users))
    ]


@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_losses_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, layers: int, padding: str
) -> None:
    module = wrapped(small_dataset, shape=TeacherShape(layers, 5, 6), how={"distill_weight": 0.7})
    batch = batch_of(small_dataset, module, padding=padding)
    assert module.knowledge is not None
    view = batch.views[0]
    losses = module(batch)

    student = module.student
    newest = view.newest & (view.steps >= 0)
    own = torch.stack([each[newest] for each in features_of(student, view)], dim=1)
    targets = [
        int(small_dataset.items[small_dataset.training_ranges()[1][user] - 1])
        for user in batch.users.tolist()
    ]
    assert len(set(targets)) < len(targets), "equal targets are part of the test"
    distance, told = reference.losses(
        by_user(module.knowledge.of(batch).double(), batch),
        by_user(own, batch),
        targets,
        module.knowledge.items.double(),
        dict(module.named_parameters()),
    )
    torch.testing.assert_close(losses.parts["distill"], distance.detach())
    torch.testing.assert_close(losses.parts["detector"], told.detach())
    total = student(batch).total + 0.7 * distance + told
    torch.testing.assert_close(losses.total, total)
    parameters = dict(module.named_parameters())
    ours = torch.autograd.grad(losses.total, list(parameters.values()))
    theirs = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for name, one, other in zip(parameters, ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, msg=name)


def test_the_student_moves_nothing_of_the_detector_nor_it_the_student(
    small_dataset: Dataset,
) -> None:
    module = wrapped(small_dataset)
    batch = batch_of(small_dataset, module)
    before = module(batch).parts
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    after = module(batch).parts
    assert torch.equal(before["detector"], after["detector"])
    assert not torch.equal(before["distill"], after["distill"])
    detector = list(module.detector.parameters())
    losses = module(batch)
    alone = torch.autograd.grad(losses.total - module.student(batch).total, detector)
    module.config = DistillationConfig(distill_weight=100.0, knowledge_dim=K)
    heavy = module(batch)
    again = torch.autograd.grad(heavy.total - module.student(batch).total, detector)
    for one, other in zip(alone, again, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LEARNED)
def test_every_model_can_be_a_student_and_a_teacher(small_dataset: Dataset, name: str) -> None:
    module = wrapped(small_dataset, name).train()
    student = module.student
    share = 0.0 if name in PREFIXES else 1.0
    batch = batch_of(small_dataset, module, name)
    batch = with_pieces(batch, student.batch_spec, share=share, longest=2)
    features = features_of(student.eval(), batch.views[0])
    assert len(features) == layers_of(student)
    assert torch.equal(features[-1], student.encode(batch.views[0]))
    assert all(each.shape[-1] == student.state_dim for each in features)
    assert TeacherShape.of(student)[:2] == (len(features), student.state_dim)
    student.train()
    losses = module(batch)
    assert {"distill", "detector"} <= losses.parts.keys()
    losses.total.backward()
    for part in (module.detector, module.embeddings):
        for parameter in part.parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    for parameter in student.parameters():  # pieces of two items have no blocks to choose from
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_layers_are_matched_by_their_depth() -> None:
    assert matching_layers(3, 3) == (0, 1, 2)
    assert matching_layers(3, 2) == (0, 1, 1)
    assert matching_layers(2, 5) == (0, 4)
    assert matching_layers(5, 3) == (0, 1, 1, 2, 2)
    assert matching_layers(1, 3) == (2,)
    assert matching_layers(4, 1) == (0, 0, 0, 0)


def test_one_user_alone_has_nothing_to_be_told_from(small_dataset: Dataset) -> None:
    module = wrapped(small_dataset)
    loader = loader_of(small_dataset, module.batch_spec, "spnn", max_len=16, batch_size=1)
    losses = module(loader.batch(loader.users, 0, 0))
    assert losses.parts["detector"] == 0
    assert torch.isfinite(losses.total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distill_weight": -1.0}, "distill_weight: expected at least 0, found -1.0"),
        ({"knowledge_dim": 0}, "knowledge_dim: expected at least 1, found 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillationConfig(**settings)
