"""TiSASRec against one pair of positions after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import blin
from blin.batch import Batch, View
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, history_batch
from blin.errors import ConfigError
from blin.models.tisasrec import TiSASRec, TiSASRecConfig
from blin.nn.attention.intervals import time_intervals
from learned import module_of
from reference import objective as reference_objective
from reference import tisasrec as reference

SMALL: dict[str, Any] = {"dim": 4, "num_blocks": 2, "max_len": 16, "max_interval": 6}


def model_of(num_items: int, **settings: Any) -> TiSASRec:
    model = module_of("tisasrec", num_items, **{**SMALL, **settings})
    assert isinstance(model, TiSASRec)
    return model


def weights_of(model: TiSASRec) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def uneven(dataset: Dataset) -> Dataset:
    """The dataset with gaps of all kinds between its interactions, none among them."""
    copy = Dataset(dataset.path)
    gaps = np.random.default_rng(1).choice([0, 20, 30, 45, 100], len(copy.items))
    copy.timestamps = np.cumsum(gaps) + 1_000
    return copy


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


def view_of(times: list[int], segments: list[int] | None = None) -> View:
    count = len(times)
    marks = torch.tensor([segments or [1] * count])
    places = torch.arange(count).unsqueeze(0)
    none = torch.zeros_like(places)
    return View(places + 1, none, marks, places, none, none - 1, times=torch.tensor([times]))


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
    assert all(0 <= r <= 9 for row in rows(extremes, [1, 1, 1]) for r in row)


def test_later_times_change_nothing_earlier() -> None:
    model = model_of(12)
    before = model.encode(view_of([10, 20, 30, 60, 90, 150]))
    for place in range(1, 6):
        times = [10, 20, 30, 60, 90, 150]
        times[place:] = [time - 7 for time in times[place:]]
        after = model.encode(view_of(times))
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.equal(before[:, place:], after[:, place:])


def test_only_the_proportions_of_times_matter() -> None:
    model = model_of(12)
    before = model.encode(view_of([10, 20, 30, 60, 90, 150]))
    after = model.encode(view_of([-5, 295, 595, 1495, 2395, 4195]))
    assert torch.equal(before, after)


def test_times_of_other_segments_change_nothing() -> None:
    model = model_of(12)
    segments = [2, 2, 2, 1, 1, 1]
    before = model.encode(view_of([10, 20, 30, 60, 90, 150], segments))
    after = model.encode(view_of([10, 11, 12, 60, 90, 150], segments))
    assert torch.equal(before[:, 3:], after[:, 3:])
    later = model.encode(view_of([10, 20, 30, 60, 61, 150], segments))
    assert torch.equal(before[:, :3], later[:, :3])


def test_no_times_are_equal_gaps() -> None:
    model = model_of(12)
    view = view_of([3, 4, 5, 6, 7, 8])
    assert torch.equal(model.encode(view), model.encode(replace(view, times=None)))
    items, bounds = np.array([3, 1, 4, 1, 5], dtype=np.uint32), np.array([0, 5])
    spec = model.batch_spec
    equal = history_batch(items, bounds[:1], bounds[1:], spec, timestamps=bounds[:1] + np.arange(5))
    assert torch.equal(
        model.score(history_batch(items, bounds[:1], bounds[1:], spec)), model.score(equal)
    )


def test_training_sees_a_history_as_recommendation_does(small_dataset: Dataset) -> None:
    """The state of each training step is that of the history up to it, and its times."""
    model = model_of(small_dataset.num_items, positions="per-copy")
    batch, dataset = batch_of(small_dataset, model, padding="zero"), uneven(small_dataset)
    view = batch.views[0]
    trained = model.encode(view)[view.steps >= 0] @ model.item_embedding.items.t()
    users = batch.users[batch.step_users].numpy()
    counts = torch.bincount(batch.step_users).tolist()
    ends = dataset.offsets[users] + np.concatenate([np.arange(1, n + 1) for n in counts])
    histories = history_batch(
        dataset.items, dataset.offsets[users], ends, model.batch_spec, timestamps=dataset.timestamps
    )
    torch.testing.assert_close(model.score(histories), trained)


def test_it_recommends_to_users_and_to_histories(small_dataset: Dataset, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "dim": 8, "max_len": 8, "seed": 0}
    model = blin.Recommender("tisasrec", device="cpu", **settings).fit(small_dataset)
    user = small_dataset.user_ids.raw(0)
    of_user = model.recommend([user], k=5).to_pydict()
    raw = [small_dataset.item_ids.raw(int(item)) for item in small_dataset.sequence(0)]
    of_history = model.recommend(histories=[raw], k=5).to_pydict()
    # The small log has an item a second: its times are its places.
    assert of_user["item_id"] == of_history["item_id"]
    session = model.session()
    session.push(*raw)
    assert [item for item, _ in session.top(5)] == of_history["item_id"]
    model.save_pretrained(tmp_path / "model")
    loaded = blin.Recommender.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.recommend(histories=[raw], k=5).to_pydict() == of_history


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
