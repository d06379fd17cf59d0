from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.mqsa_ted import MQSATED, MQSATEDConfig
from learned import informed, loader_of, module_of
from reference import mqsa_ted as reference
from reference import objective as reference_objective

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "two blocks, two heads, narrow": {"num_blocks": 2, "num_heads": 2, "hidden_dim": 3},
    "a long window": {"window": 30, "alpha": 0.3, "positions": "reversed"},
    "sampled, no positions": {"num_negatives": 7, "positions": "none", "window": 2},
    "two views that agree": {"num_negatives": 7, "kl_weight": 0.7},
}


def model_and_batch(dataset: Dataset, **settings: Any) -> tuple[Any, Batch]:
    settings = {"num_negatives": 0, **settings}
    model = module_of("mqsa-ted", dataset.num_items, dim=4, max_len=20, **settings)
    loader = loader_of(dataset, model.batch_spec, "mqsa-ted", batch_size=5)
    return informed(model, dataset), loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("settings", FORMS.values(), ids=list(FORMS))
def test_states_and_loss_are_those_of_the_formulas(
    small_dataset: Dataset, settings: dict[str, Any]
) -> None:
    model, batch = model_and_batch(small_dataset, **settings)
    view = batch.views[0]
    assert int(view.segments.max()) > 1
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    states = [reference.states(each, weights, model.config) for each in batch.views]
    assert len(states) == (2 if model.config.kl_weight > 0 else 1)
    real = view.segments > 0
    torch.testing.assert_close(model.encode(view)[real].detach(), states[0][real])
    table = weights["item_embedding.weight"]
    expected, divergence = reference_objective.next_item_loss(states, table, batch, model.config)
    found = model(batch)
    torch.testing.assert_close(found.parts["sequence"], expected)
    whole = expected + model.config.kl_weight * divergence + 0.1 * found.parts["ted"]
    torch.testing.assert_close(found.total.detach(), whole)
    torch.testing.assert_close(model.score(batch).detach(), states[0][:, -1] @ table.t())


def test_the_scores_are_mixed(small_dataset: Dataset) -> None:
    """The dot product of the mixed states is the mix of the dot products."""
    model, batch = model_and_batch(small_dataset)
    scores = []
    for alpha in (0.0, 1.0, 0.3):
        other, _ = model_and_batch(small_dataset, alpha=alpha)
        other.load_state_dict(model.state_dict())
        scores.append(other.score(batch))
    long, short, mixed = scores
    assert not torch.allclose(long, short)
    torch.testing.assert_close(mixed, 0.3 * short + 0.7 * long)


def test_with_a_window_of_one_both_queries_are_the_short_one(small_dataset: Dataset) -> None:
    model, batch = model_and_batch(small_dataset, window=1)
    model.long_blocks.load_state_dict(model.blocks.state_dict())
    model.long_final_norm.load_state_dict(model.final_norm.state_dict())
    short, _ = model_and_batch(small_dataset, alpha=1.0)
    short.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.score(batch), short.score(batch))


def test_training_drops_attention_weights(small_dataset: Dataset) -> None:
    model, batch = model_and_batch(small_dataset, dropout=0.0)
    view = batch.views[0]
    still = model.encode(view)
    assert not torch.allclose(model.train().encode(view), still)
    model, _ = model_and_batch(small_dataset, dropout=0.0, attention_dropout=0.0)
    torch.testing.assert_close(model.train().encode(view), still)


def test_by_default_it_learns_as_in_the_paper() -> None:
    config = MQSATEDConfig()
    spec = MQSATED(12, config).batch_spec
    assert (config.loss, spec.num_negatives, spec.views) == ("softmax", 0, 1)
    assert (config.ted_weight, config.ted_span, config.ted_temperature) == (0.1, 1, 0.1)


def test_embeddings_start_small_and_matrices_as_wide_as_they_are_narrow() -> None:
    torch.manual_seed(0)
    model = MQSATED(1000, MQSATEDConfig(dim=32))
    assert not model.item_embedding.weight[0].any()
    assert model.item_embedding.weight[1:].std().item() == pytest.approx(0.01, rel=0.05)
    for stack in (model.blocks, model.long_blocks):
        query = stack[0].query  # type: ignore[union-attr]
        assert query.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
        assert not query.bias.any()


def test_parameters_are_counted() -> None:
    """V + 1 items, N positions; a block has 5D² + 5D weights and two norms, a stack one more."""
    dim, items, n, blocks = 8, 12, 9, 2
    config = MQSATEDConfig(dim=dim, max_len=n, num_blocks=blocks)
    expected = (items + 1 + n) * dim
    expected += 2 * (blocks * (5 * dim**2 + 5 * dim + 4 * dim) + 2 * dim)
    model = MQSATED(items, config)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"window": 0}, "window: expected at least 1, found 0"),
        ({"alpha": 1.5}, r"alpha: expected a number in \[0, 1\], found 1.5"),
        ({"attention_dropout": 1.0}, r"attention_dropout: expected a number in \[0, 1\)"),
        ({"ted_weight": -1.0}, "ted_weight: expected at least 0, found -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MQSATEDConfig(**settings)
