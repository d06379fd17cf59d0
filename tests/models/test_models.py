"""What every model must do, and the leaks that none may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from blin.batch import Batch, View
from blin.config import build as build_config
from blin.config import check_known
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader
from blin.errors import ConfigError
from blin.models import MODELS
from blin.models.blin import BlinConfig, BlinModel
from blin.nn.attention import linear
from blin.training.config import TrainingConfig
from blin.training.trainer import setting_classes

V = 12

VARIANTS: dict[str, dict[str, Any]] = {
    "blin": {},
    "full cross-entropy": {"num_negatives": 0},
    "one view": {"kl_weight": 0.0},
    "pre-norm, per-copy": {"norm_first": True, "positions": "per-copy", "activation": "gelu"},
    "no positions, no convolution": {"positions": "none", "kernel_size": 0, "hidden_dim": 24},
    "long kernel, logQ": {"kernel_size": 5, "log_q": True},
    "softmax attention, positions from the end": {"attention": "softmax", "positions": "reversed"},
    "bidirectional": {"causal": False, "loss_positions": "last", "kernel_size": 5},
    "bidirectional softmax": {"causal": False, "loss_positions": "last", "attention": "softmax"},
}


def build(**settings: Any) -> BlinModel:
    torch.manual_seed(0)
    config = BlinConfig(**{"dim": 8, "max_len": 9, "dropout": 0.2, **settings})
    return BlinModel(V, config).double()


def view(rows: list[list[int]], segments: list[list[int]] | None = None) -> View:
    items = torch.tensor(rows)
    marks = (items > 0).long() if segments is None else torch.tensor(segments)
    targets = torch.where(items > 0, items % V + 1, 0)
    width = items.shape[1]
    positions = torch.arange(9 - width, 9).expand_as(items)
    real = items > 0
    steps = torch.where(real, real.flatten().cumsum(0).view_as(items) - 1, -1)
    return View(items, targets, marks, positions, copies=real.int(), steps=steps)


def batch(*views: View) -> Batch:
    rows = views[0].items.shape[0]
    negatives = torch.tensor([1, 5, 5, 9])
    return Batch(torch.arange(rows), views, negatives, log_q=torch.full((4,), -1.1))


ROWS = [[0, 0, 3, 1, 4, 1, 5, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 0, 0, 0, 0, 0, 0, 7]]


@pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


def views_for(model: BlinModel) -> tuple[View, ...]:
    return (view(ROWS),) * model.batch_spec.views


def test_the_loss_is_finite_and_falls(settings: dict[str, Any]) -> None:
    model = build(**settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = model(batch(*views_for(model))).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = build(**settings)
    model(batch(*views_for(model))).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not model.item_embedding.weight.grad[0].any()  # type: ignore[index]


def test_candidates_score_as_in_the_whole_catalogue(settings: dict[str, Any]) -> None:
    model = build(**settings).eval()
    candidates = torch.tensor([[1, 2, 12], [3, 3, 4], [7, 1, 5]])
    full = model.score(batch(view(ROWS)))
    assert full.shape == (3, V + 1)
    torch.testing.assert_close(
        model.score(batch(view(ROWS)), candidates), full.gather(1, candidates)
    )


def test_a_row_scores_alone_as_among_others(settings: dict[str, Any]) -> None:
    model = build(**settings).eval()
    together = model.score(batch(view(ROWS)))
    for row, expected in zip(ROWS, together, strict=True):
        torch.testing.assert_close(model.score(batch(view([row])))[0], expected)


def test_padding_changes_nothing(settings: dict[str, Any]) -> None:
    model = build(**settings).eval()
    wide, narrow = (model.score(batch(view([row]))) for row in (ROWS[0], ROWS[0][2:]))
    torch.testing.assert_close(wide, narrow)


def test_an_empty_history_has_finite_scores(settings: dict[str, Any]) -> None:
    assert torch.isfinite(build(**settings).score(batch(view([[0] * 9])))).all()


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.startswith("bidirec")])
def test_later_items_change_nothing_earlier(name: str) -> None:
    model = build(**VARIANTS[name]).eval()
    before = model.encode(view(ROWS))
    for position in range(1, 9):
        changed = [list(row) for row in ROWS]
        for row in changed:
            row[position] = 11
        after = model.encode(view(changed, segments=(torch.tensor(ROWS) > 0).long().tolist()))
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[1, position:], after[1, position:])


def test_with_blossom_attention_all_learns_and_the_choice_of_blocks_is_causal() -> None:
    """Rows of 100, so that there are more blocks than can be chosen."""
    model = build(attention="blossom", positions="none", max_len=100).eval()
    rows = torch.randint(1, V, (2, 100), generator=torch.Generator().manual_seed(0)).tolist()
    before = model.encode(view(rows))
    for position in (1, 16, 40, 80, 97, 99):
        changed = [row[:position] + [V] * (100 - position) for row in rows]
        after = model.encode(view(changed))
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position:], after[:, position:])
    model(batch(view(rows), view(rows))).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_other_segments_change_nothing(settings: dict[str, Any]) -> None:
    model = build(**settings).eval()
    segments = [[0, 3, 3, 0, 2, 2, 1, 1, 1]]
    before = model.encode(view([[0, 4, 5, 0, 4, 5, 4, 5, 6]], segments))
    after = model.encode(view([[0, 7, 8, 0, 9, 9, 4, 5, 6]], segments))
    assert torch.equal(before[:, 6:], after[:, 6:])
    assert not torch.equal(before[:, 4:6], after[:, 4:6])


def test_copies_that_see_each_other_do_change(settings: dict[str, Any]) -> None:
    """The reason for segments: in one segment the copy before is read."""
    model = build(**settings).eval()
    before = model.encode(view([[0, 0, 1, 2, 3, 0, 1, 2, 3]]))
    after = model.encode(view([[0, 0, 1, 2, 9, 0, 1, 2, 3]]))
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_older_copies_count_in_the_sequence_loss_and_not_in_the_divergence() -> None:
    model = build(dropout=0.0)
    one = view([[0, 0, 0, 0, 0, 0, 1, 2, 3]])
    repeated = view([[0, 0, 1, 2, 3, 0, 1, 2, 3]], [[0, 0, 2, 2, 2, 0, 1, 1, 1]])
    repeated = replace(
        repeated,
        positions=torch.tensor([[0, 0, 6, 7, 8, 0, 6, 7, 8]]),
        copies=repeated.segments.int(),
        steps=torch.tensor([[-1, -1, 0, 1, 2, -1, 0, 1, 2]]),
    )
    both = model(batch(one, repeated)).parts
    single = model(batch(one, one)).parts
    # With equal positions and no dropout every copy computes the same thing.
    torch.testing.assert_close(both["sequence"], single["sequence"])
    torch.testing.assert_close(both["kl"], single["kl"])
    assert both["kl"].abs() < 1e-12


@pytest.mark.parametrize("positions", ["absolute", "per-copy", "reversed"])
def test_sharing_rows_changes_no_loss(small_dataset: Dataset, positions: str) -> None:
    torch.manual_seed(0)
    config = BlinConfig(dim=8, max_len=16, dropout=0.0, positions=positions)
    model = BlinModel(small_dataset.num_items, config).double()
    losses, rows = [], []
    for pack in (True, False):
        filled = Rows(padding="random-repeat", fit="whole", copies="reset", pack=pack)
        loader = TrainingLoader(small_dataset, model.batch_spec, filled, batch_size=40, seed=2)
        shared = next(iter(loader.epoch(0)))
        rows.append(len(shared.views[0].items))
        losses.append(model(shared).total)
    assert rows[0] < rows[1] == 40
    torch.testing.assert_close(*losses)


def test_parameters_are_counted() -> None:
    """V + 1 items and N positions of width D; a block has 4D² + D² + D² weights and its rest."""
    dim, n, blocks, kernel = 8, 9, 2, 3
    expected = (V + 1 + n) * dim + 2 * dim
    expected += blocks * (6 * dim * dim + 6 * dim + kernel * dim + dim + 4 * dim)
    found = sum(parameter.numel() for parameter in build().parameters())
    assert found == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 4}, "num_heads: expected a divisor of dim 6, found 4"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), found 1.0"),
        ({"activation": "tanh"}, "activation: expected one of relu, gelu, silu, found 'tanh'"),
        (
            {"positions": "both"},
            "positions: expected one of absolute, per-copy, reversed, none, found 'both'",
        ),
        (
            {"attention": "flash"},
            "attention: expected one of linear, softmax, blossom, found 'flash'",
        ),
        (
            {"attention": "blossom", "causal": False, "loss_positions": "last"},
            "causal: expected true with blossom attention, found false",
        ),
        (
            {"attention": "blossom", "dim": 10, "num_heads": 2},
            "num_heads: expected heads of an even width, found a width of 5",
        ),
        ({"execution": "fast"}, "execution: expected one of auto, parallel, chunked, recurrent"),
        (
            {"execution": "chunked", "attention": "softmax"},
            "execution: expected auto with softmax attention, found 'chunked'",
        ),
        (
            {"execution": "recurrent", "causal": False, "loss_positions": "last"},
            "execution: expected another than recurrent with causal = false",
        ),
        ({"causal": False}, "causal: expected true .* would see the next item, the very one"),
        ({"loss_positions": "first"}, "loss_positions: expected one of all, last, found 'first'"),
        ({"max_len": 0}, "max_len: expected at least 1, found 0"),
        ({"kl_weight": -1.0}, "kl_weight: expected at least 0, found -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlinConfig(**settings)


def test_bidirectional_operators_do_look_ahead() -> None:
    """The reason for the refusal: here a later item does reach an earlier state."""
    model = build(causal=False, loss_positions="last").eval()
    before = model.encode(view([[0, 0, 0, 0, 0, 1, 2, 3, 4]]))
    after = model.encode(view([[0, 0, 0, 0, 0, 1, 2, 3, 5]]))
    assert (before[:, 5:] != after[:, 5:]).any(dim=2).all()


@pytest.mark.parametrize("causal", [True, False])
def test_executions_agree(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "CHUNK", 4)
    loss_positions = "all" if causal else "last"
    states, grads = {}, {}
    for execution in ("parallel", "chunked", *(["recurrent"] if causal else [])):
        settings = {"execution": execution, "causal": causal, "loss_positions": loss_positions}
        model = build(**settings, dropout=0.0)
        states[execution] = model.encode(view(ROWS))
        states[execution].square().sum().backward()
        grads[execution] = {name: p.grad for name, p in model.named_parameters()}
    for execution, state in states.items():
        torch.testing.assert_close(state, states["parallel"], rtol=1e-12, atol=1e-12)
        for name, grad in grads[execution].items():
            expected = grads["parallel"][name]
            torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", ["linear", "softmax", "blossom"])
def test_half_precision_comes_near(attention: str) -> None:
    model = build(attention=attention).float().eval()
    exact = model.score(batch(view(ROWS)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.score(batch(view(ROWS)))
    assert not torch.equal(rough.float(), exact)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.005)


def test_positions_from_the_end_are_absolute_ones_read_backwards() -> None:
    """A single copy ends at the right edge: place N - 1 is step 0 from the end."""
    absolute, reversed_ = build(), build(positions="reversed")
    with torch.no_grad():
        table = absolute.position_embedding.weight  # type: ignore[union-attr]
        reversed_.position_embedding.weight.copy_(table.flip(0))  # type: ignore[union-attr]
    rows = view(ROWS)
    real = rows.segments > 0
    torch.testing.assert_close(
        absolute.eval().encode(rows)[real], reversed_.eval().encode(rows)[real]
    )


def test_weights_have_the_names_that_saved_models_know() -> None:
    block = {
        "attention.qkv": ("weight", "bias"),
        "attention.local": ("weight", "bias"),
        "attention.out": ("weight", "bias"),
        "attention_norm": ("weight", "bias"),
        "feed_forward.expand": ("weight", "bias"),
        "feed_forward.contract": ("weight", "bias"),
        "feed_forward_norm": ("weight", "bias"),
    }
    expected = {
        f"blocks.{number}.{part}.{name}"
        for number in (0, 1)
        for part, names in block.items()
        for name in names
    }
    expected |= {"item_embedding.weight", "position_embedding.weight"}
    expected |= {"embedding_norm.weight", "embedding_norm.bias"}
    assert set(build().state_dict()) == expected


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_a_module_with_a_dataclass(name: str) -> None:
    model = MODELS[name]
    assert issubclass(model.module, nn.Module)
    check_known(model.defaults, *setting_classes(name))
    build_config(model.config, model.defaults)
    build_config(TrainingConfig, model.defaults)
