from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.esasrec import ESASRec, ESASRecConfig
from learned import loader_of, module_of
from reference import esasrec as reference
from reference import objective as reference_objective

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "two blocks, two heads, narrow": {"num_blocks": 2, "num_heads": 2, "hidden_dim": 3},
}


def model_and_batch(dataset: Dataset, **settings: Any) -> tuple[Any, Batch]:
    model = module_of("esasrec", dataset.num_items, dim=4, max_len=20, **settings)
    loader = loader_of(dataset, model.batch_spec, "esasrec", batch_size=5)
    return model, loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("settings", FORMS.values(), ids=list(FORMS))
def test_states_and_loss_are_those_of_the_formulas(
    small_dataset: Dataset, settings: dict[str, Any]
) -> None:
    model, batch = model_and_batch(small_dataset, **settings)
    view = batch.views[0]
    assert int(view.segments.max()) > 1
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    states = reference.states(view, weights, model.config)
    real = view.segments > 0
    torch.testing.assert_close(model.encode(view)[real].detach(), states[real])
    table = weights["item_embedding.weight"]
    expected, _ = reference_objective.next_item_loss([states], table, batch, model.config)
    torch.testing.assert_close(model(batch).total.detach(), expected)
    newest = model.score(batch)
    torch.testing.assert_close(newest.detach(), states[:, -1] @ table.t())


class Kept(nn.Module):
    """A dropout that always keeps the same numbers."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept


def test_what_is_dropped_of_items_counts_neither_in_histories_nor_in_scores(
    small_dataset: Dataset,
) -> None:
    model, batch = model_and_batch(small_dataset)
    assert model.item_dropout.p == 0.2
    kept = torch.tensor([1.25, 0.0, 1.25, 1.25], dtype=torch.float64)
    without = copy.deepcopy(model)
    without.item_dropout = nn.Identity()
    with torch.no_grad():
        without.item_embedding.weight *= kept
    model.item_dropout = Kept(kept)
    losses = [each(batch).total for each in (model, without)]
    torch.testing.assert_close(losses[0], losses[1])
    found, expected = (
        torch.autograd.grad(loss, each.item_embedding.weight)[0]
        for loss, each in zip(losses, (model, without), strict=True)
    )
    torch.testing.assert_close(found, expected * kept)


def test_by_default_each_step_has_256_negatives_of_its_own() -> None:
    spec = ESASRec(12, ESASRecConfig()).batch_spec
    assert (spec.num_negatives, spec.negatives_per, spec.exclude_history) == (
        256,
        "position",
        False,
    )


def test_closed_gates_let_nothing_through(small_dataset: Dataset) -> None:
    model, batch = model_and_batch(small_dataset)
    view = batch.views[0]
    with torch.no_grad():
        for gate in (model.blocks[0].attention_gate, model.blocks[0].feed_forward_gate):
            gate.weight.zero_()
            gate.bias.fill_(-1e4)
    position = model.position_embedding(torch.zeros(len(view.items), dtype=torch.int64))
    embedded = model.item_embedding(view.items[:, -1]) + position
    torch.testing.assert_close(model.encode(view)[:, -1], embedded)


def test_weights_start_as_wide_as_their_matrix_is_narrow() -> None:
    torch.manual_seed(0)
    model = ESASRec(1000, ESASRecConfig(dim=32))
    table, gate = model.item_embedding.weight, model.blocks[0].feed_forward.gate.weight
    assert not table[0].any()
    for weight in (table[1:], gate):
        assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.05)


def test_parameters_are_counted() -> None:
    """Beside the attention, 12D² of SwiGLU, two gates of D² + D, and two norms."""
    dim, items, n, blocks = 8, 12, 9, 2
    config = ESASRecConfig(dim=dim, max_len=n, num_blocks=blocks)
    expected = (items + 1 + n) * dim
    expected += blocks * (4 * dim**2 + 4 * dim + 12 * dim**2 + 2 * (dim**2 + dim) + 4 * dim)
    model = ESASRec(items, config)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"attention_dropout": 1.0}, r"attention_dropout: expected a number in \[0, 1\)"),
        ({"item_dropout": -0.1}, r"item_dropout: expected a number in \[0, 1\)"),
        ({"num_negatives": 0}, "num_negatives: negatives_per = position needs at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ESASRecConfig(**settings)
