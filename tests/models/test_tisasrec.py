"""TiSASRec against one pair of positions after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader
from blin.errors import ConfigError
from blin.models.tisasrec import TiSASRec, TiSASRecConfig
from blin.nn.attention.intervals import time_intervals
from learned import module_of, timed_view, uneven
from reference import objective as reference_objective
from reference import tisasrec as reference

SMALL: dict[str, Any] = {"dim": 4, "num_blocks": 2, "max_len": 16, "max_interval": 6}


def model_of(num_items: int, **settings: Any) -> TiSASRec:
    model = module_of("tisasrec", num_items, **{**SMALL, **settings})
    assert isinstance(model, TiSASRec)
    return model


def weights_of(model: TiSASRec) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def batch_of(dataset: Dataset, model: TiSASRec, *, times: bool = True, **rows: Any) -> Batch:
    dataset = uneven(dataset)
    if not times:
        dataset.timestamps = None
    filled = {"padding": "repeat", "fit": "whole", "copies": "reset", "pack": True, **rows}
    loader = TrainingLoader(dataset, model.batch_spec, Rows(**filled), batch_size=4, seed=3)
    return loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("times", [True, False], ids=["times", "places"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_heads": 2, "positions": "per-copy"}, {"positions": "reversed", "hidden_dim": 3}],
    ids=str,
)
def test_states_are_those_of_one_pair_after_the_other(
    small_dataset: Dataset, settings: dict[str, Any], times: bool
) -> None:
    model = model_of(small_dataset.num_items, **settings)
    view = batch_of(small_dataset, model, times=times).views[0]
    assert int(view.segments.max()) > 1
    real = view.segments > 0
    expected = reference.states(view, weights_of(model), model.config)
    torch.testing.assert_close(model.encode(view)[real], expected[real])


def test_reversed_positions_are_those_of_each_copy(small_dataset: Dataset) -> None:
    model = model_of(small_dataset.num_items, positions="reversed")
    view = batch_of(small_dataset, model, copies="attend").views[0]
    assert int(view.copies.max()) > 1
    real = view.segments > 0
    expected = reference.states(view, weights_of(model), model.config)
    torch.testing.assert_close(model.encode(view)[real], expected[real])


def test_the_loss_and_its_gradients_are_those_of_one_pair_after_the_other(
    small_dataset: Dataset,
) -> None:
    model = model_of(small_dataset.num_items)
    batch = batch_of(small_dataset, model)
    weights = {name: value.clone().requires_grad_() for name, value in weights_of(model).items()}
    states = [reference.states(view, weights, model.config) for view in batch.views]
    table = weights["item_embedding.weight"]
    expected, _ = reference_objective.next_item_loss(states, table, batch, model.config)
    ours = model(batch).total
    torch.testing.assert_close(ours, expected)
    ours.backward()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, msg=name)


def test_intervals_count_in_the_shortest_gap_so_far() -> None:
    def rows(times: list[int], segments: list[int]) -> list[list[int]]:
        view = torch.tensor([times]), torch.tensor([segments])
        return time_intervals(*view, most=9)[0].tolist()  # type: ignore[no-any-return]

    assert rows([100, 100, 160, 180, 181], [1, 1, 1, 1, 1]) == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [4, 4, 1, 0, 0],
        [9, 9, 9, 1, 0],
    ]
    # Neither padding nor another segment is a gap.
    assert rows([0, 5, 6, 0, 10, 30, 31], [0, 2, 2, 0, 1, 1, 1])[-1] == [0, 0, 0, 0, 9, 1, 0]
    # Whatever the log holds, an interval is one that has an embedding.
    extremes = [-(2**63), 0, 2**63 - 1]
    assert rows(extremes, [1, 1, 1])[1:] == [[1, 0, 0], [1, 1, 0]]
    assert rows([-(2**63) + 5, 0, 5, 2**63 - 1], [1] * 4)[-1] == [9, 9, 9, 0]
    assert rows([2**63 - 1, 2**63 - 2, -(2**63)], [1] * 3)[-1] == [9, 9, 0]


def test_only_the_proportions_of_times_matter() -> None:
    model = model_of(12)
    before = model.encode(timed_view([10, 20, 30, 60, 90, 150]))
    after = model.encode(timed_view([-5, 295, 595, 1495, 2395, 4195]))
    assert torch.equal(before, after)


def test_parameters_are_counted() -> None:
    """A block has 3 D² + 3 D of attention, 2 D² + 2 D of its network and two norms."""
    num_items, dim, n, most = 12, 8, 9, 30
    config = TiSASRecConfig(dim=dim, max_len=n, max_interval=most, num_blocks=3)
    expected = (num_items + 1 + 2 * n + 2 * (most + 1)) * dim + 2 * dim
    expected += 3 * (5 * dim * dim + 5 * dim + 2 * 2 * dim)
    model = TiSASRec(num_items, config)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_interval": 0}, "max_interval: expected at least 1, found 0"),
        ({"positions": "none"}, "positions: expected one of absolute, per-copy, reversed, found"),
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TiSASRecConfig(**settings)
