"""SPNN against one head of one position after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError
from blin.models.spnn import SPNN, SPNNConfig
from learned import module_of, timed_view, uneven
from reference import objective as reference_objective
from reference import spnn as reference

V = 12
SMALL: dict[str, Any] = {"dim": 8, "max_len": 16, "shortest_span": 2, "dropout": 0.0}

FORMS: dict[str, dict[str, Any]] = {
    "small": {},
    "relu, three spans, per copy": {
        "dim": 6,
        "num_heads": 3,
        "activation": "relu",
        "positions": "per-copy",
        "num_blocks": 1,
    },
    "one head, reversed": {"num_heads": 1, "positions": "reversed", "hidden_dim": 3},
    "no positions, whole catalogue": {"positions": "none", "num_heads": 2, "num_negatives": 0},
}


def model_of(num_items: int, **settings: Any) -> SPNN:
    model = module_of("spnn", num_items, **{**SMALL, **settings})
    assert isinstance(model, SPNN)
    return model


def weights_of(model: SPNN) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def batch_of(dataset: Dataset, model: SPNN, **rows: Any) -> Batch:
    dataset = uneven(dataset)
    filled = {"padding": "repeat", "fit": "whole", "copies": "reset", "pack": True, **rows}
    loader = TrainingLoader(dataset, model.batch_spec, Rows(**filled), batch_size=3, seed=3)
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_states_loss_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, form: str
) -> None:
    model = model_of(small_dataset.num_items, **FORMS[form])
    batch = batch_of(small_dataset, model)
    view = batch.views[0]
    assert int(view.segments.max()) > 1
    weights = {name: value.requires_grad_() for name, value in weights_of(model).items()}
    expected = reference.states(view, weights, model.config)
    real = view.segments > 0
    torch.testing.assert_close(model.encode(view)[real], expected[real])
    table = weights["item_embedding.weight"]
    loss, _ = reference_objective.next_item_loss([expected], table, batch, model.config)
    ours = model(batch).total
    torch.testing.assert_close(ours, loss)
    ours.backward()
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, msg=name)


def test_reversed_positions_are_those_of_each_copy(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items, positions="reversed")
    view = batch_of(small_dataset, model, copies="attend").views[0]
    assert int(view.copies.max()) > 1
    real = view.segments > 0
    expected = reference.states(view, weights_of(model), model.config)
    torch.testing.assert_close(model.encode(view)[real], expected[real])


def test_scores_are_those_of_the_formula() -> None:
    model = model_of(V)
    histories = [[3, 1, 4, 1, 5, 9, 2], [7], list(range(1, 13))]
    times = [[0, 5, 5, 100, 101, 9_000, 9_001], [3], [3**step for step in range(12)]]
    ends = np.cumsum([len(history) for history in histories])
    starts = ends - [len(history) for history in histories]
    flat = np.array([item for history in histories for item in history], dtype=np.uint32)
    stamps = np.array([time for row in times for time in row], dtype=np.int64)
    batch = history_batch(flat, starts, ends, model.batch_spec, timestamps=stamps)
    expected = [
        reference.history_scores(history, row, weights_of(model), model.config)
        for history, row in zip(histories, times, strict=True)
    ]
    torch.testing.assert_close(
        model.score(batch)[:, 1:].detach(), torch.tensor(expected, dtype=torch.float64)
    )


def test_copies_that_see_each_other_are_one_history(small_dataset: Dataset) -> None:
    """Spans count what lies in other copies, too, and the time to the copy before is no gap."""
    model = model_of(small_dataset.num_items)
    view = batch_of(small_dataset, model, copies="attend").views[0]
    assert (view.copies > 1).any()
    real = view.segments > 0
    expected = reference.states(view, weights_of(model), model.config)
    torch.testing.assert_close(model.encode(view)[real], expected[real])


def test_only_gaps_matter_and_only_their_size() -> None:
    model = model_of(V)
    before = model.encode(timed_view([10, 20, 30, 60, 90, 150]))
    assert torch.equal(before, model.encode(timed_view([-90, -80, -70, -40, -10, 50])))
    assert torch.equal(before, model.encode(timed_view([0, 8, 23, 39, 70, 133])))
    assert not torch.equal(before, model.encode(timed_view([10, 26, 36, 66, 96, 156])))


def test_without_times_the_formula_is_that_of_equal_gaps() -> None:
    model = model_of(V)
    view = replace(timed_view([3, 4, 5, 6, 7, 8], [2, 2, 2, 1, 1, 1]), times=None)
    expected = reference.states(view, weights_of(model), model.config)
    torch.testing.assert_close(model.encode(view), expected)


def test_the_code_begins_as_the_state_and_the_gates_nearly_equal() -> None:
    torch.manual_seed(0)
    model = SPNN(V, SPNNConfig(max_len=6)).eval()
    view = timed_view([10, 20, 30, 60, 90, 150])
    states = torch.randn(1, 6, 64)
    assert torch.equal(model.code(states), states)
    gates = model.blocks[0].attention.gates(model._embed_view(view))
    assert gates.shape == (1, 6, 4)
    assert (gates - 1).abs().max() < 0.5
    assert [tuple(block.attention.spans) for block in model.blocks] == [(4, 5, 5, 6)] * 2


def test_parameters_are_counted() -> None:
    """A block has 4 D² + 4 D of attention, its gate, a network and two norms."""
    dim, n, heads, blocks, hidden = 8, 9, 4, 3, 10
    config = SPNNConfig(dim=dim, max_len=n, num_heads=heads, num_blocks=blocks, hidden_dim=hidden)
    expected = (V + 1 + n + 65) * dim + 2 * dim
    expected += blocks * (4 * dim * dim + 4 * dim + heads * (dim + 1))
    expected += blocks * (2 * dim * hidden + hidden + dim + 4 * dim)
    expected += dim * dim + dim
    assert sum(parameter.numel() for parameter in SPNN(V, config).parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shortest_span": 0}, "shortest_span: expected at least 1, found 0"),
        ({"num_heads": 0}, "num_heads: expected at least 1, found 0"),
        ({"dim": 6}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
        ({"positions": "gaps"}, "positions: expected one of absolute, per-copy, reversed, none"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SPNNConfig(**settings)
