from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError
from blin.models.blin import BlinConfig, BlinModel
from blin.models.sasrec import SASRec, SASRecConfig
from reference import objective as reference_objective
from reference import sasrec as reference

V = 12
HISTORIES = [[3, 1, 4, 1, 5, 9, 2], [7], [8, 8]]

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "one head, narrow": {"num_heads": 1, "hidden_dim": 5, "num_blocks": 1},
    "pre-norm, relu": {"norm_first": True, "activation": "relu", "positions": "per-copy"},
    "from the end, silu": {"positions": "reversed", "activation": "silu"},
    "no positions": {"positions": "none"},
}
LOSSES: dict[str, dict[str, Any]] = {
    "bce": {},
    "whole catalogue": {"loss": "softmax", "num_negatives": 0, "negatives_per": "batch"},
    "sampled softmax": {"loss": "softmax", "num_negatives": 9, "negatives_per": "batch"},
    "gbce": {"loss": "gbce", "num_negatives": 6},
}


def build(num_items: int = V, **settings: Any) -> SASRec:
    torch.manual_seed(0)
    config = SASRecConfig(**{"dim": 4, "max_len": 8, **settings})
    model = SASRec(num_items, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.item_embedding.weight[0] = 0
    return model


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def histories(model: SASRec, rows: list[list[int]]) -> Batch:
    ends = np.cumsum([len(row) for row in rows])
    flat = np.array([item for row in rows for item in row], dtype=np.uint32)
    return history_batch(flat, ends - [len(row) for row in rows], ends, model.batch_spec)


def training_batch(dataset: Dataset, model: SASRec, **rows: Any) -> Batch:
    filled = {"padding": "zero", "fit": "whole", "copies": "reset", "pack": True, **rows}
    loader = TrainingLoader(dataset, model.batch_spec, Rows(**filled), batch_size=5, seed=3)
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("settings", FORMS.values(), ids=list(FORMS))
def test_scores_are_those_of_the_formulas(settings: dict[str, Any]) -> None:
    model = build(**settings)
    found = model.score(histories(model, HISTORIES))
    for history, row in zip(HISTORIES, found, strict=True):
        expected = reference.history_scores(history, weights_of(model), model.config)
        assert row[1:].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("settings", LOSSES.values(), ids=list(LOSSES))
def test_the_loss_is_that_of_the_formulas(small_dataset: Dataset, settings: dict[str, Any]) -> None:
    model = build(small_dataset.num_items, max_len=20, **settings)
    batch = training_batch(small_dataset, model)
    assert int(batch.views[0].segments.max()) > 1
    weights = weights_of(model)
    states = [reference.states(view, weights, model.config) for view in batch.views]
    table = weights["item_embedding.weight"]
    expected, _ = reference_objective.next_item_loss(states, table, batch, model.config)
    torch.testing.assert_close(model(batch).total.detach(), expected)


def test_by_default_a_step_has_one_negative_outside_its_history(small_dataset: Dataset) -> None:
    model = build(small_dataset.num_items)
    batch = training_batch(small_dataset, model)
    assert batch.negatives.shape == (len(batch.step_users), 1)
    starts, ends = small_dataset.training_ranges()
    for negative, place in zip(batch.negatives.tolist(), batch.step_users.tolist(), strict=True):
        user = int(batch.users[place])
        assert negative[0] not in small_dataset.items[starts[user] : ends[user]]


def test_with_repad_a_copy_sees_the_one_before(small_dataset: Dataset) -> None:
    """RepPad's rows: the oldest copy is cut, and the copies are one segment."""
    model = build(small_dataset.num_items, max_len=14)
    settings = {"padding": "random-repeat", "fit": "truncate", "copies": "attend", "pack": False}
    view = training_batch(small_dataset, model, **settings).views[0]
    assert int(view.copies.max()) > 1 and int(view.segments.max()) == 1
    expected = reference.states(view, weights_of(model), model.config)
    real = view.segments > 0
    torch.testing.assert_close(model.encode(view)[real].detach(), expected[real])


def test_it_is_blin_with_softmax_attention_and_no_convolution() -> None:
    ours = build(hidden_dim=16)
    config = BlinConfig(
        dim=4, max_len=8, attention="softmax", kernel_size=0, activation="gelu", hidden_dim=16
    )
    theirs = BlinModel(V, config).double().eval()
    theirs.load_state_dict(ours.state_dict())
    batch = histories(ours, HISTORIES)
    torch.testing.assert_close(ours.score(batch), theirs.score(batch), rtol=0, atol=0)


def test_training_drops_attention_weights() -> None:
    model = build(dropout=0.0, attention_dropout=0.5)
    view = histories(model, HISTORIES).views[0]
    still = model.encode(view)
    model.train()
    assert not torch.allclose(model.encode(view)[0, 2:], still[0, 2:])
    model = build(dropout=0.0, attention_dropout=0.0).train()
    torch.testing.assert_close(model.encode(view), still)


def test_parameters_are_counted() -> None:
    """V + 1 items, N positions; a block has 4D² + 8D² weights, 4D + 5D biases and two norms."""
    dim, blocks = 4, 2
    expected = (V + 1 + 8) * dim + 2 * dim + blocks * (12 * dim * dim + 9 * dim + 4 * dim)
    assert sum(parameter.numel() for parameter in build().parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"num_blocks": 0}, "num_blocks: expected at least 1, found 0"),
        ({"hidden_dim": -1}, "hidden_dim: expected at least 0, found -1"),
        ({"dropout": 1.0}, r"^dropout: expected a number in \[0, 1\), found 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout: expected a number in \[0, 1\)"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
        ({"positions": "both"}, "positions: expected one of absolute, per-copy, reversed, none"),
        ({"num_negatives": 0}, "num_negatives: bce needs at least 1, found 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SASRecConfig(**settings)
