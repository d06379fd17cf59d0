from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models import MODELS
from blin.models.caser import Caser, CaserConfig
from learned import loader_of, module_of
from reference import caser as reference
from reference import objective

V = 12

FILLINGS: dict[str, dict[str, Any]] = {
    "one copy": {},
    "copies": {"padding": "repeat"},
    "copies that attend": {"padding": "repeat", "copies": "attend"},
}


def model_of(num_items: int, **settings: Any) -> Caser:
    small = {"dim": 3, "window": 4, "vertical": 2, "horizontal": 2, "max_len": 9, "dropout": 0.0}
    module = module_of("caser", num_items, **{**small, "num_negatives": 3, **settings})
    assert isinstance(module, Caser)
    return module


def batch_of(dataset: Dataset, module: Caser, **filling: Any) -> Batch:
    loader = loader_of(dataset, module.batch_spec, "caser", max_len=9, batch_size=5, **filling)
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("window", [1, 4])
def test_states_loss_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, window: int, filling: str
) -> None:
    module = model_of(small_dataset.num_items, window=window)
    batch = batch_of(small_dataset, module, **FILLINGS[filling])
    view = batch.views[0]
    weights = {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
    expected = reference.encode(weights, view.items, view.segments, module.config)
    torch.testing.assert_close(module.encode(view), expected)
    # A bias is the weight of an input that is always 1.
    ones = torch.ones(*view.items.shape, 1, dtype=torch.float64)
    biases = weights["item_bias"].unsqueeze(1)
    loss, _ = objective.next_item_loss(
        [torch.cat([expected, ones], dim=2)],
        torch.cat([weights["output_embedding.weight"], biases], dim=1),
        batch,
        module.config,
    )
    ours = module(batch)
    torch.testing.assert_close(ours.total, loss)
    torch.testing.assert_close(ours.parts["sequence"], loss.detach())
    ours.total.backward()
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad)


def test_the_scores_are_those_of_the_formula(small_dataset: Dataset) -> None:
    module = model_of(small_dataset.num_items)
    batch = batch_of(small_dataset, module)
    view, weights = batch.views[0], module.state_dict()
    for row, found in enumerate(module.score(batch)):
        items, segments = view.items[row].tolist(), view.segments[row].tolist()
        image = reference.image(items, segments, 8, weights, 4)
        state = reference.state(image, weights, module.config)
        torch.testing.assert_close(found, reference.scores(state, weights))


def test_only_the_window_matters(small_dataset: Dataset) -> None:
    module = model_of(small_dataset.num_items)
    view = batch_of(small_dataset, module, pack=False).views[0]
    row = int(torch.nonzero((view.segments > 0).all(dim=1))[0])
    before = module.encode(view)[row]
    view.items[row, 3] = view.items[row, 3] % small_dataset.num_items + 1
    changed = (module.encode(view)[row] != before).any(dim=1)
    assert not changed[:3].any()
    assert changed[3:7].any()
    assert not changed[7:].any()


def test_parameters_are_counted() -> None:
    """Two tables of V + 1 items, biases, filters of all heights, and the map to the width."""
    dim, window, vertical, horizontal = 3, 4, 2, 2
    expected = 2 * (V + 1) * dim + V + 1
    expected += vertical * (window + 1)
    expected += sum(horizontal * (height * dim + 1) for height in range(1, window + 1))
    expected += dim * (vertical * dim + horizontal * window + 1)
    assert sum(parameter.numel() for parameter in model_of(V).parameters()) == expected


def test_it_starts_and_is_trained_as_the_authors_do() -> None:
    config = CaserConfig()
    assert (config.loss, config.num_negatives, config.negatives_per) == ("bce", 3, "position")
    assert MODELS["caser"].defaults == {"weight_decay": 1e-6}
    module = Caser(2000, config)
    for table in (module.item_embedding.weight, module.output_embedding.weight):
        assert not table[0].any()
        assert abs(table[1:].std().item() * config.dim - 1) < 0.01
    assert not module.item_bias.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window: expected at least 1, found 0"),
        ({"vertical": 0}, "vertical: expected at least 1, found 0"),
        ({"horizontal": 0}, "horizontal: expected at least 1, found 0"),
        ({"dim": 0}, "dim: expected at least 1, found 0"),
        ({"dropout": -0.5}, r"dropout: expected a number in \[0, 1\), found -0.5"),
        ({"num_negatives": 0}, "num_negatives: bce needs at least 1, found 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CaserConfig(**settings)
