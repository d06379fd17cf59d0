from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models import ct4rec
from blin.models.ct4rec import CT4Rec, CT4RecConfig, similarity_divergence
from learned import lively, loader_of, module_of
from reference import ct4rec as reference
from reference import objective as reference_objective
from reference import sasrec as reference_sasrec

ROWS: dict[str, dict[str, Any]] = {
    "copies that attend": {"padding": "random-repeat", "copies": "attend", "fit": "truncate"},
    "crops, which share some steps": {"crop": 0.5},
}


def model_and_batch(dataset: Dataset, rows: dict[str, Any], **settings: Any) -> tuple[Any, Batch]:
    model = lively(module_of("ct4rec", dataset.num_items, dim=4, max_len=14, **settings))
    loader = loader_of(dataset, model.batch_spec, "ct4rec", batch_size=3, **rows)
    return model, loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_the_loss_is_that_of_the_formulas(small_dataset: Dataset, rows: dict[str, Any]) -> None:
    """Without dropout, two views differ where their rows do."""
    model, batch = model_and_batch(small_dataset, rows, num_negatives=6)
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    states = [reference_sasrec.states(view, weights, model.config) for view in batch.views]
    table = weights["item_embedding.weight"]
    sequence, divergence = reference_objective.next_item_loss(states, table, batch, model.config)
    similarity = reference.similarity_divergence(*reference.same_steps(batch, states))
    assert similarity > 1e-4
    found = model(batch)
    torch.testing.assert_close(found.parts["similarity"], similarity)
    torch.testing.assert_close(found.total.detach(), sequence + divergence + 5 * similarity)


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_the_states_compared_are_those_of_the_same_steps(
    small_dataset: Dataset, rows: dict[str, Any]
) -> None:
    model, batch = model_and_batch(small_dataset, rows)
    states = [model.encode(view) for view in batch.views]
    ours = ct4rec._same_steps(batch.views, states)
    for found, expected in zip(ours, reference.same_steps(batch, states), strict=True):
        assert torch.equal(found, torch.stack(expected))


def leaves(count: int, scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = (
        (scale * torch.randn(count, 3, generator=generator, dtype=torch.float64)).requires_grad_()
        for _ in range(2)
    )
    return first, second


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_divergence_of_the_similarities_and_its_gradient(scale: float) -> None:
    views = leaves(6, scale)
    ours = similarity_divergence(*views)
    expected = reference.similarity_divergence(*(list(view) for view in views))
    torch.testing.assert_close(ours, expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, views), torch.autograd.grad(expected, views), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("count", [0, 1])
def test_with_nobody_to_be_like_there_is_nothing_to_disagree_on(count: int) -> None:
    views = leaves(count, 1.0)
    loss = similarity_divergence(*views)
    assert loss == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, views))


def test_no_more_states_than_the_memory_allows_are_compared(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = model_and_batch(small_dataset, ROWS["copies that attend"])
    states = [model.encode(view) for view in batch.views]
    first, second = ct4rec._same_steps(batch.views, states)
    monkeypatch.setattr(ct4rec, "STATES", 5)
    some, same = ct4rec._same_steps(batch.views, states)
    assert len(some) == 5 < len(first)
    places = [int((first == state).all(dim=1).nonzero()) for state in some]
    assert len(set(places)) == 5
    assert torch.equal(second[places], same)
    others, _ = ct4rec._same_steps(batch.views, states)
    assert not torch.equal(some, others)


def test_zero_padded_views_are_one_row_with_two_dropouts(small_dataset: Dataset) -> None:
    model, batch = model_and_batch(small_dataset, {}, dropout=0.3)
    one, other = batch.views
    assert torch.equal(one.items, other.items) and torch.equal(one.targets, other.targets)
    still = model(batch).parts
    assert abs(still["kl"]) < 1e-12 and abs(still["similarity"]) < 1e-12
    moving = model.train()(batch).parts
    assert moving["kl"] > 1e-3 and moving["similarity"] > 1e-3


@pytest.mark.parametrize(
    ("settings", "views", "parts"),
    [
        ({}, 2, {"sequence", "kl", "similarity"}),
        ({"kl_weight": 0.0}, 2, {"sequence", "similarity"}),
        ({"similarity_weight": 0.0}, 2, {"sequence", "kl"}),
        ({"kl_weight": 0.0, "similarity_weight": 0.0}, 1, {"sequence"}),
    ],
)
def test_what_has_no_weight_is_not_computed(
    small_dataset: Dataset, settings: dict[str, Any], views: int, parts: set[str]
) -> None:
    model, batch = model_and_batch(small_dataset, {}, **settings)
    assert len(batch.views) == views
    assert model(batch).parts.keys() == parts


def test_its_parameters_are_those_of_sasrec() -> None:
    config = CT4RecConfig(dim=8, max_len=9)
    spec = CT4Rec(12, config).batch_spec
    assert (spec.views, spec.num_negatives, spec.negatives_per) == (2, 50, "position")
    names = CT4Rec(12, config).state_dict().keys()
    assert names == module_of("sasrec", 12, dim=8, max_len=9).state_dict().keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity_weight": -1.0}, "similarity_weight: expected at least 0, found -1.0"),
        ({"kl_weight": -1.0}, "kl_weight: expected at least 0, found -1.0"),
        ({"kl_positions": "first"}, "kl_positions: expected one of last_copy, aligned, last"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CT4RecConfig(**settings)
