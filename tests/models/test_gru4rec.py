from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch

from blin.batch import Batch
from blin.checkpoint import TrainedModel
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.inference.session import Session
from blin.models.gru4rec import GRU4Rec, GRU4RecConfig
from blin.vocabulary import Vocabulary
from learned import loader_of, module_of
from reference import gru4rec as reference
from reference import objective

FILLINGS: dict[str, dict[str, Any]] = {
    "one copy": {},
    "copies": {"padding": "repeat", "fit": "truncate"},
    "copies that attend": {"padding": "repeat", "copies": "attend"},
}


def model_of(num_items: int, **settings: Any) -> GRU4Rec:
    small = {"dim": 3, "hidden_dim": 4, "max_len": 9, "dropout": 0.0, "num_negatives": 5}
    module = module_of("gru4rec", num_items, **{**small, **settings})
    assert isinstance(module, GRU4Rec)
    return module


def batch_of(dataset: Dataset, module: GRU4Rec, **filling: Any) -> Batch:
    loader = loader_of(dataset, module.batch_spec, "gru4rec", max_len=9, batch_size=3, **filling)
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_states_loss_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, num_layers: int, filling: str
) -> None:
    module = model_of(small_dataset.num_items, num_layers=num_layers)
    batch = batch_of(small_dataset, module, **FILLINGS[filling])
    view = batch.views[0]
    weights = {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
    expected = reference.encode(weights, view.items, view.segments)
    torch.testing.assert_close(module.encode(view), expected, rtol=1e-10, atol=1e-12)
    table = weights["item_embedding.weight"]
    loss, _ = objective.next_item_loss([expected], table, batch, module.config)
    ours = module(batch)
    torch.testing.assert_close(ours.total, loss)
    torch.testing.assert_close(ours.parts["sequence"], loss.detach())
    ours.total.backward()
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad)


def test_the_score_is_the_dot_product_with_the_last_state(small_dataset: Dataset) -> None:
    module = model_of(small_dataset.num_items)
    batch = batch_of(small_dataset, module)
    weights = module.state_dict()
    view = batch.views[0]
    states = reference.encode(weights, view.items, view.segments)[:, -1]
    expected = [[state @ item for item in weights["item_embedding.weight"]] for state in states]
    torch.testing.assert_close(module.score(batch), torch.tensor(expected, dtype=torch.float64))


def test_an_empty_batch_of_histories_has_the_state_of_an_empty_history(
    small_dataset: Dataset,
) -> None:
    module = model_of(small_dataset.num_items)
    view = batch_of(small_dataset, module).views[0]
    nothing = replace(view, items=view.items * 0, segments=view.segments * 0)
    bias = module.state_dict()["out.bias"]
    assert torch.equal(module.encode(nothing), bias.expand(*view.items.shape, -1))


def test_the_recurrence_is_read_in_full_precision(small_dataset: Dataset) -> None:
    module = model_of(small_dataset.num_items).float()
    view = batch_of(small_dataset, module).views[0]
    read = []
    module.gru.register_forward_hook(lambda gru, inputs, output: read.append(output[0].data))
    module.encode(view)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.encode(view).dtype == torch.bfloat16
    assert torch.equal(read[0], read[1])


def test_reading_on_is_reading_the_whole_history() -> None:
    module = model_of(12, num_layers=2)
    items = torch.randint(1, 13, (3, 20))
    whole, _ = module.advance(items, None)
    first, state = module.advance(items[:, :7], None)
    second, state = module.advance(items[:, 7:8], state)
    third, _ = module.advance(items[:, 8:], state)
    torch.testing.assert_close(torch.cat([first, second, third], dim=1), whole)
    weights = module.state_dict()
    expected = reference.encode(weights, items, torch.ones_like(items))
    torch.testing.assert_close(whole, expected)


def test_a_session_reads_on() -> None:
    ids = [f"i{number}" for number in range(1, 13)]
    module = model_of(12).float()
    session = Session(TrainedModel("gru4rec", module, Vocabulary(pa.array(ids), first=1)))
    assert session.form == "recurrent"
    history = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    for count, item in enumerate(history, start=1):
        session.push(f"i{item}")
        states, _ = module.advance(torch.tensor([history[:count]]), None)
        expected = module.item_embedding.score(states[:, -1])[0]
        torch.testing.assert_close(session.scores(), expected.detach())


@pytest.mark.parametrize("num_layers", [1, 3])
def test_parameters_are_counted(num_layers: int) -> None:
    """V + 1 items of width D; 3H(D + H) weights in the first unit, 6H² in the others; D(H + 1)."""
    items, dim, hidden = 12, 3, 4
    expected = (items + 1) * dim + 3 * hidden * (dim + hidden) + dim * (hidden + 1)
    expected += (num_layers - 1) * 6 * hidden * hidden
    module = model_of(items, num_layers=num_layers)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_the_padding_item_is_zero_at_first() -> None:
    table = GRU4Rec(12, GRU4RecConfig()).item_embedding.weight
    assert not table[0].any()
    assert table[1:].any(dim=1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim: expected at least 1, found 0"),
        ({"hidden_dim": 0}, "hidden_dim: expected at least 1, found 0"),
        ({"num_layers": 0}, "num_layers: expected at least 1, found 0"),
        ({"max_len": 0}, "max_len: expected at least 1, found 0"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), found 1.0"),
        ({"loss": "hinge"}, "loss: expected one of softmax, bce, gbce, found 'hinge'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GRU4RecConfig(**settings)
