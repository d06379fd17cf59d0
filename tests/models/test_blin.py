"""Blin against its formulas: states, scores, losses and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.models.blin import BlinModel
from learned import lively, loader_of, module_of
from reference import blin as reference
from reference import objective

V = 12
HISTORIES = [[3, 1, 4, 1, 5, 9, 2], [7], [8, 8]]

BIDIRECTIONAL = {"causal": False, "loss_positions": "last", "kernel_size": 5}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "pre-norm, gelu, kernel 5": {"norm_first": True, "activation": "gelu", "kernel_size": 5},
    "steps of a copy, one head": {"positions": "per-copy", "num_heads": 1, "num_blocks": 1},
    "from the end, silu": {"positions": "reversed", "activation": "silu", "hidden_dim": 7},
    "no positions, no convolution": {"positions": "none", "kernel_size": 0},
    "softmax": {"attention": "softmax"},
    "softmax, pre-norm": {"attention": "softmax", "norm_first": True, "positions": "per-copy"},
    "bidirectional": BIDIRECTIONAL,
    "bidirectional softmax": {**BIDIRECTIONAL, "attention": "softmax", "norm_first": True},
}
LOSSES: dict[str, dict[str, Any]] = {
    "λ = 2": {},
    "λ = 0.5, every copy, whole catalogue": {
        "kl_weight": 0.5,
        "kl_positions": "aligned",
        "num_negatives": 0,
    },
    "λ = 1, newest step, own negatives": {
        "kl_weight": 1.0,
        "kl_positions": "last",
        "negatives_per": "position",
        "log_q": True,
    },
    "one view, gbce": {"kl_weight": 0.0, "loss": "gbce"},
}
ROWS: dict[str, dict[str, Any]] = {
    "apart": {"crop": 0.8},
    "in one segment, cut": {"copies": "attend", "fit": "truncate", "pack": False},
}


def build(num_items: int = V, **settings: Any) -> BlinModel:
    small = {"dim": 4, "max_len": 9, "dropout": 0.0, "num_negatives": 5}
    module = lively(module_of("blin", num_items, **{**small, **settings}))
    assert isinstance(module, BlinModel)
    return module


def leaves_of(module: BlinModel) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}


def histories(module: BlinModel, rows: list[list[int]]) -> Batch:
    ends = np.cumsum([len(row) for row in rows])
    flat = np.array([item for row in rows for item in row], dtype=np.uint32)
    return history_batch(flat, ends - [len(row) for row in rows], ends, module.batch_spec)


def training_batch(dataset: Dataset, module: BlinModel, **rows: Any) -> Batch:
    """Short sequences, which are repeated and share rows, and one that fills a row.

    Nothing is dropped: views whose newest copies hold the same steps, and see no others, are alike.
    """
    config = module.config
    rows = {"max_len": config.max_len, "batch_size": 5, "padding": "random-repeat", **rows}
    loader = loader_of(dataset, module.batch_spec, "blin", **rows)
    if config.loss_positions == "last":
        return loader.batch(loader.users[:4], 0, 0)  # the prefixes of one sequence
    starts, ends = dataset.training_ranges()
    by_length = np.argsort(ends - starts, kind="stable").astype(loader.users.dtype)
    return loader.batch(by_length[[0, 1, 40, -1]], 0, 0)


def check_all(module: BlinModel, batch: Batch, *, alike: bool = False) -> None:
    """Holds states, the loss with its parts, and all gradients to the formulas.

    The views must disagree, unless they are ``alike`` where they are to agree.
    """
    config = module.config
    weights = leaves_of(module)
    expected = [reference.states(view, weights, config) for view in batch.views]
    for view, states in zip(batch.views, expected, strict=True):
        real = view.segments > 0
        torch.testing.assert_close(module.encode(view)[real], states[real], rtol=1e-9, atol=1e-12)
    table = weights["item_embedding.weight"]
    sequence, divergence = objective.next_item_loss(expected, table, batch, config)
    ours = module(batch)
    torch.testing.assert_close(ours.parts["sequence"], sequence.detach())
    assert ("kl" in ours.parts) == (config.kl_weight > 0)
    if config.kl_weight > 0:
        torch.testing.assert_close(ours.parts["kl"], divergence.detach())
        assert (divergence > 1e-6) != alike
    loss = sequence + config.kl_weight * divergence
    torch.testing.assert_close(ours.total, loss)
    ours.total.backward()
    loss.backward()
    for name, parameter in module.named_parameters():
        expected_grad = weights[name].grad
        assert expected_grad is not None and expected_grad.any(), name
        if name == "item_embedding.weight":
            expected_grad[0] = 0  # padding learns nothing
        torch.testing.assert_close(parameter.grad, expected_grad, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_those_of_the_formulas(form: str) -> None:
    module = build(**FORMS[form])
    found = module.score(histories(module, HISTORIES))
    for history, row in zip(HISTORIES, found, strict=True):
        expected = reference.history_scores(history, module.state_dict(), module.config)
        assert row[1:].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_states_loss_and_gradients_are_those_of_the_formulas(
    small_dataset: Dataset, form: str
) -> None:
    module = build(small_dataset.num_items, **FORMS[form])
    different = {"crop": 0.6} if module.config.causal else {"copies": "attend"}
    batch = training_batch(small_dataset, module, **different)
    assert max(int(view.segments.max()) for view in batch.views) > 1
    check_all(module, batch)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("loss", LOSSES)
def test_so_are_they_for_every_loss_and_all_rows(
    small_dataset: Dataset, loss: str, rows: str
) -> None:
    module = build(small_dataset.num_items, num_blocks=1, **LOSSES[loss])
    padding = "random-repeat" if module.config.views == 2 else "repeat"
    batch = training_batch(small_dataset, module, padding=padding, **ROWS[rows])
    assert max(int(view.copies.max()) for view in batch.views) > 1
    # Here the stretches of a sequence that both hold its newest step are equally long.
    check_all(module, batch, alike=rows == "apart" and module.config.kl_positions == "last")


def test_positions_from_the_end_are_those_of_each_copy(small_dataset: Dataset) -> None:
    module = build(small_dataset.num_items, **FORMS["from the end, silu"])
    batch = training_batch(small_dataset, module, **ROWS["in one segment, cut"])
    assert max(int(view.copies.max()) for view in batch.views) > 1
    check_all(module, batch)


@pytest.mark.parametrize("form", ["steps of a copy, one head", "no positions, no convolution"])
def test_what_goes_on_from_its_state_is_the_formula_too(form: str) -> None:
    """Three items, one, then the rest; longer than the positions there are."""
    module = build(**FORMS[form], max_len=5)
    items, state, found = torch.tensor([HISTORIES[0]]), None, []
    for part in items.split([3, 1, 3], dim=1):
        states, state = module.advance(part, state)
        found.append(states[0])
    expected = reference.history_states(HISTORIES[0], module.state_dict(), module.config)
    torch.testing.assert_close(torch.cat(found), torch.stack(expected), rtol=1e-9, atol=1e-12)
