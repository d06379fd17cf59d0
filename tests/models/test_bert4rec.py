from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blin.batch import Batch, View
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.errors import ConfigError
from blin.models.bert4rec import BERT4Rec, BERT4RecConfig, whole_sequences
from learned import loader_of, module_of
from reference import bert4rec as reference

V = 12
MAX_LEN = 9

FILLINGS: dict[str, dict[str, Any]] = {
    "packed": {},
    "rows of their own": {"pack": False},
    "copies": {"padding": "repeat"},
    "copies, cut": {"padding": "repeat", "fit": "truncate"},
    "copies that attend": {"padding": "repeat", "copies": "attend"},
    "weights": {"padding": "repeat", "copies": "weight"},
    "cropped": {"crop": 0.5},
}


def model_of(num_items: int, **settings: Any) -> BERT4Rec:
    small = {"dim": 4, "hidden_dim": 6, "max_len": MAX_LEN, "dropout": 0.0}
    module = module_of("bert4rec", num_items, **{**small, "attention_dropout": 0.0, **settings})
    assert isinstance(module, BERT4Rec)
    return module


def batch_of(dataset: Dataset, module: BERT4Rec, *, batch_size: int = 30, **filling: Any) -> Batch:
    loader = loader_of(
        dataset, module.batch_spec, "bert4rec", max_len=MAX_LEN, batch_size=batch_size, **filling
    )
    return loader.batch(loader.users, 1, 0)


def history_scores(module: BERT4Rec, *histories: list[int]) -> Tensor:
    ends = np.cumsum([len(row) for row in histories])
    starts = ends - [len(row) for row in histories]
    flat = np.array([item for row in histories for item in row], dtype=np.uint32)
    return module.score(history_batch(flat, starts, ends, module.batch_spec))


def found_in(view: View) -> list[tuple[int, ...]]:
    """Every item of a view of whole sequences, row by row."""
    real = view.segments > 0
    weights = torch.ones(view.items.shape) if view.weights is None else view.weights
    parts = (view.items, view.segments, view.positions, view.copies, view.steps, weights)
    assert torch.equal(view.items, view.targets)
    return list(zip(*(part[real].tolist() for part in parts), strict=True))


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("positions", ["absolute", "per-copy"])
def test_whole_sequences_have_every_item_once(
    small_dataset: Dataset, positions: str, filling: str
) -> None:
    module = model_of(small_dataset.num_items, positions=positions)
    batch = batch_of(small_dataset, module, **FILLINGS[filling])
    view, steps = batch.views[0], len(batch.step_users)
    expected = []
    for copy in reference.whole_sequences(view):
        first, second = copy[0], copy[1]
        expected += [(*first[:4], steps + second[4], first[5]), *copy[1:]]
    whole = whole_sequences(view, steps)
    assert found_in(whole) == expected
    assert (whole.items > 0).equal(whole.segments > 0)
    assert not whole.positions[whole.segments == 0].any()
    assert (whole.steps[whole.segments == 0] == -1).all()


def test_whole_sequences_are_those_of_the_dataset(small_dataset: Dataset) -> None:
    """Of what is not held out, the newest items: as many as a row has positions, and one."""
    module = model_of(small_dataset.num_items)
    loader = loader_of(small_dataset, module.batch_spec, "bert4rec", max_len=MAX_LEN)
    found = []
    for batch in loader.epoch(0):
        whole = whole_sequences(batch.views[0], len(batch.step_users))
        for row in range(len(whole.items)):
            for mark in whole.segments[row].unique():
                if mark > 0:
                    found.append(whole.items[row][whole.segments[row] == mark].tolist())
    items = small_dataset.items
    starts, ends = small_dataset.training_ranges()
    assert sorted(found) == sorted(
        items[max(start, end - MAX_LEN - 1) : end].tolist()
        for start, end in zip(starts, ends, strict=True)
    )


@pytest.mark.parametrize(
    ("mask_prob", "last_mask_prob"), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.3, 0.4)]
)
@pytest.mark.parametrize("filling", ["packed", "copies", "copies that attend"])
def test_what_is_hidden_is_drawn(
    small_dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    filling: str,
    mask_prob: float,
    last_mask_prob: float,
) -> None:
    module = model_of(small_dataset.num_items, mask_prob=mask_prob, last_mask_prob=last_mask_prob)
    batch = batch_of(small_dataset, module, **FILLINGS[filling])
    seen: list[View] = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda view: seen.append(view) or encode(view))
    drawn = lasts = items = 0
    sequences = reference.whole_sequences(batch.views[0])
    for _ in range(20):
        module(batch)
        shown = seen[-1].items[seen[-1].segments > 0].tolist()
        for copy in sequences:
            own, shown = shown[: len(copy)], shown[len(copy) :]
            hidden = [item == module.mask_token for item in own]
            assert all(
                is_hidden or item == kept[0]
                for item, kept, is_hidden in zip(own, copy, hidden, strict=True)
            )
            assert any(hidden)
            last = hidden == [False] * (len(copy) - 1) + [True]
            if last_mask_prob == 1 or mask_prob == 0:
                assert last
            elif mask_prob == 1:
                assert all(hidden)
            lasts += last
            drawn += sum(hidden[:-1])
            items += len(copy) - 1
        assert not shown
    if 0 < mask_prob < 1:
        # Never the last alone by chance or by default, so that the draws can be counted.
        share = (1 - last_mask_prob) * mask_prob
        assert abs(drawn / items - share) < 0.03
        assert lasts / (20 * len(sequences)) > last_mask_prob - 0.03


LOSSES: dict[str, dict[str, Any]] = {
    "whole catalogue": {"num_negatives": 0},
    "shared negatives": {"num_negatives": 5},
    "own negatives, none of the history": {
        "num_negatives": 3,
        "negatives_per": "position",
        "exclude_history": True,
        "log_q": True,
    },
    "negatives of a copy": {"num_negatives": 3, "negatives_per": "copy", "log_q": True},
    "shared, none of the history, users": {
        "num_negatives": 5,
        "exclude_history": True,
        "loss_average": "user",
    },
    "copies": {"num_negatives": 0, "loss_average": "copy"},
}


@pytest.mark.parametrize(
    ("loss", "filling"),
    [
        ("whole catalogue", "packed"),
        ("shared negatives", "packed"),
        ("own negatives, none of the history", "copies"),
        ("shared, none of the history, users", "weights"),
        ("negatives of a copy", "copies"),
        ("copies", "copies"),
        ("copies", "weights"),
    ],
)
def test_the_loss_and_its_gradient_are_those_of_one_hidden_item_after_the_other(
    small_dataset: Dataset, filling: str, loss: str
) -> None:
    module = model_of(small_dataset.num_items, **LOSSES[loss])
    batch = batch_of(small_dataset, module, batch_size=3, **FILLINGS[filling])
    torch.manual_seed(5)
    ours = module(batch)
    torch.manual_seed(5)
    whole = whole_sequences(batch.views[0], len(batch.step_users))
    hidden = module._draw(whole)[whole.segments > 0].tolist()
    weights = {name: value.clone().requires_grad_() for name, value in module.state_dict().items()}
    expected = reference.loss(batch, hidden, weights, module.config)
    torch.testing.assert_close(ours.total, expected)
    torch.testing.assert_close(ours.parts["sequence"], expected.detach())
    ours.total.backward()
    expected.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad)


def test_what_is_hidden_cannot_be_seen(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other items in the hidden places: the same states, bit for bit."""
    module = model_of(small_dataset.num_items, num_negatives=5)
    batch = batch_of(small_dataset, module)
    whole = whole_sequences(batch.views[0], len(batch.step_users))
    torch.manual_seed(7)
    hidden = module._draw(whole)
    states: list[Tensor] = []
    encode = module.encode

    def remembered(view: View) -> Tensor:
        states.append(encode(view))
        return states[-1]

    monkeypatch.setattr(module, "encode", remembered)
    # The views that whole sequences with other items in the hidden places come from.
    changed = torch.where(hidden, whole.items % small_dataset.num_items + 1, whole.items)
    assert not torch.equal(changed, whole.items)
    for items in (whole.items, changed):
        monkeypatch.setattr(
            "blin.models.bert4rec.whole_sequences",
            lambda view, steps, items=items: replace(whole, items=items, targets=items),
        )
        torch.manual_seed(7)
        module(batch)
    assert torch.equal(*states)


@pytest.mark.parametrize("history", [[3, 1, 4, 1, 5], list(range(1, 12)), [7], []])
def test_a_mask_after_the_history_has_the_scores_of_the_formula(history: list[int]) -> None:
    module = model_of(V)
    expected = reference.history_scores(history, module.state_dict(), module.config)
    torch.testing.assert_close(history_scores(module, history)[0], expected)
    among = history_scores(module, [2, 2, 2, 2, 2, 2, 2], history)
    torch.testing.assert_close(among[1], expected)


@pytest.mark.parametrize("positions", ["absolute", "per-copy", "reversed", "none"])
def test_the_mask_stands_where_the_hidden_last_item_stood(positions: str) -> None:
    """To recommend is to be asked for the last item, which is what training ends with."""
    module = model_of(V, positions=positions, mask_prob=0.0, num_negatives=0)
    sequence = [3, 1, 4, 1, 5, 9]
    n, m = MAX_LEN, len(sequence) - 1
    real = torch.tensor([[0] * (n - m) + [1] * m])
    start = 0 if positions == "per-copy" else n - m
    view = View(
        items=torch.tensor([[0] * (n - m) + sequence[:-1]]),
        targets=torch.tensor([[0] * (n - m) + sequence[1:]]),
        segments=real,
        positions=(real.cumsum(1) - 1 + start) * real,
        copies=real,
        steps=real.cumsum(1) - 1,
    )
    users = torch.zeros(m, dtype=torch.int64)
    nothing = torch.empty(0, dtype=torch.int64)
    batch = Batch(torch.tensor([0]), (view,), nothing, nothing.double(), users)
    log_probabilities = history_scores(module, sequence[:-1])[0, 1:].log_softmax(0)
    torch.testing.assert_close(module(batch).total, -log_probabilities[sequence[-1] - 1])


def test_later_items_are_seen() -> None:
    module = model_of(V)
    batch = history_batch(
        np.array([1, 2, 3, 4, 1, 2, 3, 5], dtype=np.uint32),
        np.array([0, 4]),
        np.array([4, 8]),
        module.batch_spec,
    )
    first, second = module.encode(batch.views[0])
    assert (first != second).any(dim=1).all()


def test_parameters_are_counted() -> None:
    """V + 2 items, N + 1 positions, two maps a block and its rest, the transform and the biases."""
    dim, hidden, blocks = 4, 6, 2
    block = 4 * dim * dim + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim
    expected = (V + 2 + MAX_LEN + 1) * dim + 2 * dim + blocks * block
    expected += dim * dim + dim + 2 * dim + V + 1
    assert sum(parameter.numel() for parameter in model_of(V).parameters()) == expected


def test_the_feed_forward_network_is_four_times_as_wide() -> None:
    module = BERT4Rec(V, BERT4RecConfig(dim=8))
    assert module.blocks[0].feed_forward.expand.weight.shape == (32, 8)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_prob": -0.1}, r"mask_prob: expected a number in \[0, 1\], found -0.1"),
        ({"last_mask_prob": 1.5}, r"last_mask_prob: expected a number in \[0, 1\], found 1.5"),
        ({"attention_dropout": 1.0}, r"attention_dropout: expected a number in \[0, 1\), found"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BERT4RecConfig(**settings)
