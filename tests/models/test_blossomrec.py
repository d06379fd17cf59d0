from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.models.blossomrec import BlossomRec, BlossomRecConfig
from learned import loader_of, module_of
from reference import blossom as reference
from reference import objective

V = 12

FORMS: dict[str, dict[str, Any]] = {
    "small": {},
    "relu, one block of the past": {"activation": "relu", "chosen_blocks": 1, "window": 1},
    "sampled": {"num_negatives": 5, "num_kv_heads": 4, "num_blocks": 1},
}


def model_of(num_items: int, **settings: Any) -> BlossomRec:
    small = {"dim": 8, "num_blocks": 2, "num_negatives": 0, "max_len": 16, "dropout": 0.0}
    module = module_of("blossomrec", num_items, **{**small, **settings})
    assert isinstance(module, BlossomRec)
    return module


@pytest.mark.parametrize("form", FORMS)
def test_states_loss_and_gradients_are_those_of_the_formula(
    small_dataset: Dataset, form: str
) -> None:
    module = model_of(small_dataset.num_items, **FORMS[form])
    loader = loader_of(small_dataset, module.batch_spec, "blossomrec", max_len=16, batch_size=4)
    batch = loader.batch(loader.users, 0, 0)
    view = batch.views[0]
    assert int(view.segments.max()) > 1
    weights = {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
    expected = reference.states(view, weights, module.config)
    real = view.segments > 0
    torch.testing.assert_close(module.encode(view)[real], expected[real])
    table = weights["item_embedding.weight"]
    loss, _ = objective.next_item_loss([expected], table, batch, module.config)
    ours = module(batch)
    torch.testing.assert_close(ours.total, loss)
    ours.total.backward()
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad)


def test_parameters_are_counted() -> None:
    """V + 1 items; a block has heads of D/H, G of them for keys, and a network for its choice."""
    dim, heads, groups, size, hidden = 8, 4, 2, 3, 16
    width = dim // heads
    attention = dim * (dim + 2 * groups * width) + dim + 2 * groups * width + dim * dim
    attention += 2 * size * width * 4 * width + 4 * width + 4 * width * width + width
    attention += groups * 2 * size * width + 2 * groups * width + 2 * heads * (dim + 1)
    expected = (V + 1) * dim + 2 * dim
    expected += 2 * (attention + 2 * dim * hidden + hidden + dim + 4 * dim)
    module = model_of(V, block_size=size)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_by_default_it_is_as_published_but_for_its_width() -> None:
    module = BlossomRec(V, BlossomRecConfig(max_len=200))
    assert module.position_embedding is None
    attention = module.blocks[0].attention
    assert (attention.block_size, attention.chosen_blocks, attention.window) == (16, 4, 8)
    assert attention.block_positions.shape == (2, 32, 16)
    assert not attention.gate_weight.any()
    assert attention.gate_bias.tolist() == [-2.0] * 4 + [2.0] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads: expected a divisor of num_heads 4, found 3"),
        ({"num_kv_heads": 0}, "num_kv_heads: expected at least 1, found 0"),
        ({"dim": 12}, "num_heads: expected heads of an even width, found a width of 3"),
        ({"block_size": 0}, "block_size: expected at least 1, found 0"),
        ({"chosen_blocks": 0}, "chosen_blocks: expected at least 1, found 0"),
        ({"window": 0}, "window: expected at least 1, found 0"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlossomRecConfig(**settings)
