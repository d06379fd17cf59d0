from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from blin.batch import Batch, Interactions
from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError
from blin.models import transitions
from blin.models.encoder import EncoderConfig
from blin.models.transitions import Transitions, distillation_loss
from blin.nn.dropout import Dropout
from learned import ENCODERS, informed, loader_of, module_of, training_sequences
from reference import transitions as reference

V = 6
SEQUENCES = [[1, 2, 3], [1, 2, 4, 1], [2, 3], [3, 5, 3, 3, 1, 2]]
"""Nothing follows item 6, nor is it anywhere."""

INPUTS = [1, 2, 2, 6, 3, 2, 5]


def interactions(sequences: list[list[int]]) -> Interactions:
    items = [item for row in sequences for item in row]
    users = [user for user, row in enumerate(sequences) for _ in row]
    return Interactions(
        torch.tensor(items, dtype=torch.int64), torch.tensor(users, dtype=torch.int64)
    )


def known(span: int = 1, sequences: list[list[int]] = SEQUENCES, num_items: int = V) -> Transitions:
    return Transitions.of(interactions(sequences), num_items=num_items, span=span)


def table_of(num_items: int = V, dim: int = 3, scale: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    table = scale * torch.randn(num_items + 1, dim, generator=generator, dtype=torch.float64)
    table[0] = 0
    return table.requires_grad_()


def loss_of(table: Tensor, inputs: list[int], teacher: Transitions, **changes: Any) -> Tensor:
    settings = {"temperature": 0.1, "dropout": nn.Identity(), **changes}
    return distillation_loss(table, torch.tensor(inputs, dtype=torch.int64), teacher, **settings)


@given(
    st.lists(st.lists(st.integers(1, V), max_size=6), max_size=6),
    st.integers(1, 7),
)
def test_pairs_are_counted(sequences: list[list[int]], span: int) -> None:
    found = known(span, sequences)
    found.counts.check()
    pairs = reference.counts(sequences, span=span)
    dense = torch.zeros(V + 1, V + 1)
    found.counts.add_to(dense, torch.arange(V + 1))
    expected = [[pairs[i, j] for j in range(V + 1)] for i in range(V + 1)]
    assert dense.tolist() == expected
    assert found.highest.tolist() == [max(row) for row in expected]


@pytest.mark.parametrize("temperature", [0.004, 0.1, 2.0])
@pytest.mark.parametrize("span", [1, 3])
def test_the_teachers_mean_is_that_of_the_whole_table(span: int, temperature: float) -> None:
    """At 0.004 the weight of a neighbour, e^250, has no place in single precision."""
    teacher = reference.teacher(reference.counts(SEQUENCES, span=span), V, temperature)
    table = table_of().detach()
    items = torch.arange(1, V + 1)
    found = known(span).means(table, items, temperature=temperature)
    torch.testing.assert_close(found, teacher[1:] @ table)
    single = known(span).means(table.float(), items, temperature=temperature)
    torch.testing.assert_close(single, found.float())


@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize("settings", [{}, {"span": 3, "temperature": 0.7}])
def test_the_loss_and_its_gradient_are_those_of_the_formulas(
    scale: float, settings: dict[str, Any]
) -> None:
    span, temperature = settings.get("span", 1), settings.get("temperature", 0.1)
    table = table_of(scale=scale)
    ours = loss_of(table, INPUTS, known(span), temperature=temperature)
    teacher = reference.teacher(reference.counts(SEQUENCES, span=span), V, temperature)
    expected = reference.distillation_loss(table, INPUTS, teacher, temperature=temperature)
    torch.testing.assert_close(ours, expected)
    (found,), (wanted,) = (torch.autograd.grad(loss, table) for loss in (ours, expected))
    torch.testing.assert_close(found, wanted)
    assert not found[0].any()
    single = loss_of(table.detach().float(), INPUTS, known(span), temperature=temperature)
    assert single.item() == pytest.approx(expected.item(), rel=1e-4)


def test_without_inputs_there_is_nothing_to_teach() -> None:
    table = table_of()
    loss = loss_of(table, [], known())
    assert loss == 0
    assert not torch.autograd.grad(loss, table)[0].any()


def test_dropout_thins_out_the_left_factor_alone() -> None:
    """With everything but one channel dropped, the scores are those of this channel."""

    class OneChannel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.tensor([0.0, 3.0, 0.0])

    table = table_of().detach()
    thin = table.clone()
    thin[:, [0, 2]] = 0
    thin[:, 1] *= 3**0.5
    ours = loss_of(table, INPUTS, known(), dropout=OneChannel())
    torch.testing.assert_close(ours, loss_of(thin, INPUTS, known()))
    assert loss_of(table, INPUTS, known(), dropout=Dropout(0.5).train()) != ours


@pytest.mark.parametrize(("scores", "most"), [(2 * V, 0), (2 * V, 5), (100 * V, 2)])
def test_of_some_inputs_the_loss_is_right_on_average(
    monkeypatch: pytest.MonkeyPatch, scores: int, most: int
) -> None:
    table = table_of().detach()
    whole = loss_of(table, INPUTS, known())
    monkeypatch.setattr(transitions, "SCORES", scores)
    torch.manual_seed(0)
    some = torch.stack([loss_of(table, INPUTS, known(), most=most) for _ in range(400)])
    assert len(some.unique()) > 10
    error = (some.std() / len(some) ** 0.5).item()
    assert some.mean().item() == pytest.approx(whole.item(), abs=4 * error)
    assert error < 0.1 * whole.item()


def test_as_many_inputs_as_there_are_are_all_compared() -> None:
    table = table_of().detach()
    whole = loss_of(table, INPUTS, known())
    torch.testing.assert_close(loss_of(table, INPUTS, known(), most=len(INPUTS)), whole)


def test_a_million_items_need_no_table_of_pairs() -> None:
    many = 1_000_000
    sequences = [[many, 1, many, 2], [3, many], [5, 4]]
    teacher = known(sequences=sequences, num_items=many)
    assert len(teacher.counts.targets) == 5
    table = torch.zeros(many + 1, 2).index_fill_(0, torch.tensor([1, many]), 0.4)
    table.requires_grad_()
    loss = loss_of(table, [many, 5], teacher, temperature=0.5)
    loss.backward()
    # The many have e^0 each; items 1 and 2 follow item V once each, item 4 follows item 5.
    score = 2**0.5 * 0.32 / 0.5
    share = 2.718281828**2
    own = torch.tensor(many - 2 + 2 * 2.718281828**score).log() - score * (share + 1) / (
        many - 2 + 2 * share
    )
    other = torch.tensor(float(many)).log()
    assert loss.item() == pytest.approx(float(own + other) / 2, rel=1e-5)
    assert table.grad is not None and not table.grad[0].any()


def taught(name: str, dataset: Dataset, **settings: Any) -> tuple[Any, Batch]:
    module: Any = module_of(name, dataset.num_items, max_len=16, **settings)
    loader = loader_of(dataset, module.batch_spec, name, max_len=16)
    return informed(module, dataset), loader.batch(loader.users, 0, 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_can_be_taught(small_dataset: Dataset, name: str) -> None:
    settings = {"ted_span": 2, "ted_temperature": 0.3}
    without, batch = taught(name, small_dataset, ted_weight=0.0)
    module, _ = taught(name, small_dataset, ted_weight=0.7, **settings)
    assert module.state_dict().keys() == without.state_dict().keys()
    torch.manual_seed(1)
    plain = without(batch)
    torch.manual_seed(1)
    losses = module(batch)
    assert losses.parts.keys() == plain.parts.keys() | {"ted"}
    teacher = reference.teacher(
        reference.counts(training_sequences(small_dataset), span=2),
        small_dataset.num_items,
        temperature=0.3,
    )
    table = module.item_embedding.items.detach()
    # One at a time is slow: what an input costs does not depend on the others.
    inputs = torch.cat([view.items[view.segments > 0] for view in batch.views])
    share = torch.bincount(inputs, minlength=len(table)).double() / len(inputs)
    costs = torch.stack(
        [
            reference.distillation_loss(table, [item], teacher, temperature=0.3)
            for item in range(1, 4)
        ]
    )
    scores = table @ table[1:].t() * table.shape[1] ** 0.5 / 0.3
    every = -(teacher[:, 1:] * torch.log_softmax(scores, dim=-1)).sum(-1)
    torch.testing.assert_close(every[1:4], costs)
    expected = (share * every).sum()
    torch.testing.assert_close(losses.parts["ted"], expected)
    torch.testing.assert_close(losses.total, plain.total + 0.7 * losses.parts["ted"])


def test_a_setting_says_how_many_inputs_are_compared(small_dataset: Dataset) -> None:
    for inputs, draws in ((0, 1), (2, 5)):
        module, batch = taught("sasrec", small_dataset, ted_weight=0.7, ted_inputs=inputs)
        assert len({module(batch).parts["ted"].item() for _ in range(5)}) == draws


def test_a_model_that_was_told_nothing_teaches_nothing(small_dataset: Dataset) -> None:
    module: Any = module_of("sasrec", small_dataset.num_items, ted_weight=0.1)
    loader = loader_of(small_dataset, module.batch_spec, "sasrec")
    with pytest.raises(BlinError, match="ted_weight: expected 0, or a model that was given"):
        module(loader.batch(loader.users, 0, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ted_weight": -0.1}, "ted_weight: expected at least 0, found -0.1"),
        ({"ted_inputs": -1}, "ted_inputs: expected at least 0, found -1"),
        ({"ted_span": 0}, "ted_span: expected at least 1, found 0"),
        ({"ted_temperature": 0.0}, "ted_temperature: expected above 0, found 0.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**settings)
