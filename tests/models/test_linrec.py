from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.linrec import LinRec, LinRecConfig
from learned import loader_of, module_of
from reference import linrec as reference
from reference import objective

V = 12

FORMS: dict[str, dict[str, Any]] = {
    "printed": {},
    "causal": {"causal": True, "loss_positions": "all"},
    "causal, prefixes": {"causal": True},
}


def model_of(num_items: int, **settings: Any) -> LinRec:
    small = {"dim": 4, "num_heads": 2, "hidden_dim": 6, "max_len": 9, "dropout": 0.0}
    module = module_of("linrec", num_items, **{**small, **settings})
    assert isinstance(module, LinRec)
    return module


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_negatives", [0, 5])
def test_states_loss_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, form: str, num_negatives: int
) -> None:
    module = model_of(small_dataset.num_items, num_negatives=num_negatives, **FORMS[form])
    loader = loader_of(small_dataset, module.batch_spec, "linrec", max_len=9, batch_size=5)
    batch = loader.batch(loader.users, 0, 0)
    view = batch.views[0]
    weights = {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
    expected = torch.zeros(*view.items.shape, 4, dtype=torch.float64)
    for row, marks in enumerate(view.segments.tolist()):
        for mark in set(marks) - {0}:
            places = [place for place, own in enumerate(marks) if own == mark]
            items, positions = (
                [int(part[row, place]) for place in places] for part in (view.items, view.positions)
            )
            states = reference.states(items, positions, weights, module.config)
            expected[row, places] = torch.stack(states)
    real = view.segments > 0
    torch.testing.assert_close(module.encode(view)[real], expected[real])
    table = weights["item_embedding.weight"]
    loss, _ = objective.next_item_loss([expected], table, batch, module.config)
    ours = module(batch)
    torch.testing.assert_close(ours.total, loss)
    torch.testing.assert_close(ours.parts["sequence"], loss.detach())
    ours.total.backward()
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad)


def test_a_target_is_the_end_of_a_prefix(small_dataset: Dataset) -> None:
    module = model_of(small_dataset.num_items)
    assert module.batch_spec.loss_positions == "last"
    loader = loader_of(small_dataset, module.batch_spec, "linrec", max_len=9)
    view = next(iter(loader.epoch(0))).views[0]
    for row, marks in enumerate(view.segments.tolist()):
        for mark in set(marks) - {0}:
            targets = view.targets[row][view.segments[row] == mark]
            assert targets[-1] > 0
            assert not targets[:-1].any()


def test_later_items_are_seen_unless_it_is_causal() -> None:
    segments = torch.ones(1, 4, dtype=torch.int64)
    x, other = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    other[:, :3] = x[:, :3]
    for causal, changed in ((False, True), (True, False)):
        block = model_of(V, causal=causal).blocks[0]
        difference = block(x, segments)[0, :3] != block(other, segments)[0, :3]
        assert difference.any(dim=1).tolist() == [changed] * 3


def test_parameters_are_counted() -> None:
    """V + 1 items and N positions; a block has 4D² + 2DH weights and its rest."""
    dim, hidden, n = 4, 6, 9
    expected = (V + 1 + n) * dim + 2 * dim
    expected += 2 * (4 * dim * dim + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim)
    assert sum(parameter.numel() for parameter in model_of(V).parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_positions": "all"}, "loss_positions: expected last with causal = false, found all"),
        ({"loss_positions": "first"}, "loss_positions: expected one of all, last, found 'first'"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinRecConfig(**settings)
