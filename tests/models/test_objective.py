from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader
from blin.errors import ConfigError
from blin.models.objective import AgreementConfig, next_item_loss
from reference import objective as reference

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "one view": {"kl_weight": 0.0},
    "whole catalogue": {"num_negatives": 0},
    "own negatives, logQ": {"negatives_per": "position", "log_q": True},
    "negatives of a copy, logQ": {"negatives_per": "copy", "log_q": True},
    "popularity, logQ": {"sampling": "popularity", "log_q": True},
    "history excluded": {"exclude_history": True},
    "history excluded, own": {"exclude_history": True, "negatives_per": "position"},
    "bce": {"loss": "bce", "kl_weight": 0.0},
    "gbce and divergence": {"loss": "gbce", "negatives_per": "position"},
    "aligned": {"kl_positions": "aligned"},
    "last": {"kl_positions": "last"},
    "copy": {"loss_average": "copy"},
    "user": {"loss_average": "user"},
}
ROWS = {
    "zero": Rows(padding="zero", fit="whole", copies="reset", pack=True),
    "repeats": Rows(padding="random-repeat", fit="whole", copies="reset", pack=True),
    "repeats, unpacked": Rows(padding="random-repeat", fit="whole", copies="reset", pack=False),
    "repeats that attend": Rows(padding="random-repeat", fit="whole", copies="attend", pack=True),
    "partial repeats": Rows(padding="random-repeat", fit="truncate", copies="reset", pack=True),
    "weights": Rows(padding="random-repeat", fit="whole", copies="weight", pack=True),
}


def config_of(**settings: Any) -> AgreementConfig:
    return AgreementConfig(**{"num_negatives": 7, "kl_weight": 0.6, **settings})


def batch_of(dataset: Dataset, config: AgreementConfig, rows: Rows) -> Batch:
    spec = BatchSpec(
        max_len=14,
        positions="absolute",
        views=config.views,
        num_negatives=config.num_negatives,
        sampling=config.sampling,
        negatives_per=config.negatives_per,
        exclude_history=config.exclude_history,
    )
    loader = TrainingLoader(dataset, spec, rows, batch_size=6, seed=3)
    return loader.batch(loader.users, 0, 0)


def leaves(dataset: Dataset, batch: Batch) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, 4, generator=generator, dtype=torch.float64).requires_grad_()

    return [draw(*view.items.shape) for view in batch.views], draw(dataset.num_items + 1)


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("settings", CONFIGS.values(), ids=list(CONFIGS))
def test_the_loss_is_that_of_one_target_after_the_other(
    small_dataset: Dataset, settings: dict[str, Any], rows: Rows
) -> None:
    config = config_of(**settings)
    batch = batch_of(small_dataset, config, rows)
    states, table = leaves(small_dataset, batch)
    ours = next_item_loss(states, table, batch, config)
    sequence, divergence = reference.next_item_loss(states, table, batch, config)
    torch.testing.assert_close(ours.parts["sequence"], sequence.detach())
    if config.kl_weight > 0:
        torch.testing.assert_close(ours.parts["kl"], divergence.detach())
    expected = sequence + config.kl_weight * divergence
    torch.testing.assert_close(ours.total, expected)
    leaf = [*states, table]
    for got, want in zip(
        torch.autograd.grad(ours.total, leaf), torch.autograd.grad(expected, leaf), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_copying_shows_in_the_hits_of_the_copies(small_dataset: Dataset) -> None:
    config = config_of()
    batch = batch_of(small_dataset, config, ROWS["repeats"])
    table = torch.eye(small_dataset.num_items + 1)
    # The newest copy knows every answer, the others know nothing.
    states = [
        torch.where((view.copies == 1).unsqueeze(-1), table[view.targets], -table[view.targets])
        for view in batch.views
    ]
    parts = next_item_loss(states, table, batch, config).parts
    assert parts["HR@10 copy 1"] == 1
    assert parts["HR@10 copy 2"] == 0


def test_without_copies_there_are_no_hits_to_tell(small_dataset: Dataset) -> None:
    config = config_of()
    batch = batch_of(small_dataset, config, ROWS["zero"])
    states, table = leaves(small_dataset, batch)
    assert next_item_loss(states, table, batch, config).parts.keys() == {"sequence", "kl"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "loss: expected one of softmax, bce, gbce, found 'hinge'"),
        ({"num_negatives": -1}, "num_negatives: expected at least 0, found -1"),
        ({"num_negatives": 0, "loss": "bce"}, "num_negatives: bce needs at least 1, found 0"),
        ({"num_negatives": 0, "negatives_per": "position"}, "needs at least 1"),
        ({"log_q": True, "loss": "bce"}, "log_q: expected false with loss = bce, found true"),
        ({"log_q": True, "loss": "gbce"}, "log_q: expected false with loss = gbce, found true"),
        ({"calibration": 1.5}, r"calibration: expected a number in \[0, 1\], found 1.5"),
        ({"kl_positions": "first"}, "kl_positions: expected one of last_copy, aligned, last"),
        ({"loss_average": "row"}, "loss_average: expected one of token, copy, user"),
    ],
)
def test_impossible_losses_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**settings)
