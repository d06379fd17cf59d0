from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from blin import Blin, BlinError
from blin.checkpoint import TrainedModel
from blin.data.loader import history_batch
from blin.errors import ConfigError
from blin.inference.recommend import recommend_histories
from blin.inference.session import Session
from blin.models.blin import BlinConfig, BlinModel, BlinState
from blin.vocabulary import Vocabulary

V, MAX_LEN = 30, 7
IDS = [f"i{number}" for number in range(1, V + 1)]
DOCS = Path(__file__).parent.parent.parent / "docs" / "models.md"

RECURRENT: dict[str, dict[str, Any]] = {
    "no positions": {},
    "per-copy positions": {"positions": "per-copy"},
    "pre-norm, three blocks": {"positions": "per-copy", "norm_first": True, "num_blocks": 3},
    "no convolution, one block": {"kernel_size": 0, "num_blocks": 1},
    "long kernel, wide, one head": {"kernel_size": 7, "hidden_dim": 20, "num_heads": 1},
    "one tap": {"kernel_size": 1, "positions": "per-copy"},
}

WINDOWED: dict[str, dict[str, Any]] = {
    "absolute positions": {"positions": "absolute"},
    "reversed positions": {"positions": "reversed"},
    "softmax attention": {"attention": "softmax"},
    "bidirectional": {"causal": False, "loss_positions": "last"},
}


def trained(**settings: Any) -> TrainedModel:
    torch.manual_seed(0)
    defaults = {"dim": 8, "max_len": MAX_LEN, "positions": "none", "dropout": 0.5}
    module = BlinModel(V, BlinConfig(**{**defaults, **settings}))
    for parameter in module.parameters():  # far from what little the initial weights do
        torch.nn.init.normal_(parameter, std=0.4)
    return TrainedModel("blin", module.eval(), Vocabulary(pa.array(IDS), first=1))


def history(length: int, *, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(IDS) for _ in range(length)]


def full_pass(model: TrainedModel, items: list[str], *, whole: bool) -> Tensor:
    """Scores by one pass over the newest ``max_len`` items, or over all there are."""
    indices = np.array([model.item_ids.index_of(item) for item in items], dtype=np.uint32)
    spec = model.batch_spec
    if whole:
        spec = replace(spec, max_len=max(spec.max_len, len(items)))
    bounds = np.array([0, len(items)], dtype=np.int64)
    batch = history_batch(indices, bounds[:1], bounds[1:], spec)
    view = batch.views[0]
    shared = replace(view, positions=view.positions.clamp(max=MAX_LEN - 1))
    return model.score(replace(batch, views=(shared,)))[0]


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_push_scores_as_the_full_pass(name: str, seed: int) -> None:
    model = trained(**RECURRENT[name])
    session = Session(model)
    assert session.form == "recurrent"
    items = history(4 * MAX_LEN, seed=seed)
    for count, item in enumerate(items, start=1):
        session.push(item)
        expected = full_pass(model, items[:count], whole=True)
        torch.testing.assert_close(session.scores(), expected, rtol=1e-5, atol=1e-5)
        if count <= MAX_LEN:
            windowed = full_pass(model, items[:count], whole=False)
            torch.testing.assert_close(session.scores(), windowed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RECURRENT)
def test_thousands_of_items_do_not_drift(name: str) -> None:
    model = trained(**RECURRENT[name])
    items = history(3000)
    session = Session(model)
    session.push(*items[:-300])
    for item in items[-300:]:
        session.push(item)
    expected = full_pass(model, items, whole=True)
    torch.testing.assert_close(session.scores(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RECURRENT)
def test_several_at_once_are_one_after_the_other(name: str) -> None:
    model = trained(**RECURRENT[name])
    one_by_one, together = Session(model), Session(model)
    items = history(150)
    for item in items:
        one_by_one.push(item)
    together.push(*items[:1])
    together.push(*items[1:90])
    together.push()
    together.push(*items[90:])
    assert together.length == one_by_one.length == 150
    torch.testing.assert_close(together.scores(), one_by_one.scores(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", {**RECURRENT, **WINDOWED})
def test_a_window_scores_as_the_model_at_any_length(name: str) -> None:
    model = trained(**{**RECURRENT, **WINDOWED}[name])
    session = Session(model, form="window")
    items = history(3 * MAX_LEN)
    for count, item in enumerate(items, start=1):
        session.push(item)
        assert torch.equal(session.scores(), full_pass(model, items[:count], whole=False))


@pytest.mark.parametrize("name", WINDOWED)
def test_what_has_no_recurrence_says_why_and_takes_the_window(name: str) -> None:
    model = trained(**WINDOWED[name])
    assert Session(model).form == "window"
    reason = {
        "absolute positions": "positions = absolute: they count from the newest item",
        "reversed positions": "positions = reversed: they count from the newest item",
        "softmax attention": "attention = softmax: it needs the whole history",
        "bidirectional": "causal = false: a new item changes",
    }[name]
    with pytest.raises(ConfigError, match=f'expected "window", found "recurrent" with {reason}'):
        Session(model, form="recurrent")
    with pytest.raises(ConfigError, match=reason):
        model.module.advance(torch.tensor([[1]]), None)  # type: ignore[operator]


def numbers_in(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() if state.is_floating_point() else 0
    return sum(numbers_in(part) for part in state) if isinstance(state, tuple) else 0


def test_the_state_does_not_grow() -> None:
    model = trained(kernel_size=3)
    sizes = []
    state: BlinState | None = None
    for count in (1, 1, 500):
        with torch.no_grad():
            _, state = model.module.advance(torch.ones(1, count, dtype=torch.long), state)  # type: ignore[operator]
        sizes.append(numbers_in(state))
        (values, keys), past = state.blocks[0].carried[1:], state.blocks[0].past
        # No view of anything larger is kept alive.
        assert past.untyped_storage().nbytes() == past.numel() * past.element_size()
        assert values.numel() + keys.numel() + past.numel() == 2 * (16 + 4) + 2 * 8
    assert sizes == [2 * (2 * (16 + 4) + 2 * 8)] * 3


@pytest.mark.parametrize("form", ["recurrent", "window"])
def test_the_best_are_those_of_recommend(form: str) -> None:
    model = trained()
    session = Session(model, form=form)
    items = history(MAX_LEN)
    session.push(*items)
    for include_seen in (False, True):
        table = recommend_histories(model, [items], k=5, include_seen=include_seen).table
        top = session.top(5, include_seen=include_seen)
        assert [item for item, _ in top] == table["item_id"].to_pylist()
        assert [score for _, score in top] == pytest.approx(table["score"].to_pylist(), abs=1e-5)


@pytest.mark.parametrize("form", ["recurrent", "window"])
def test_all_of_the_history_is_masked_however_old(form: str) -> None:
    session = Session(trained(), form=form)
    session.push(*IDS[:20], *["i25"] * 50)
    assert {item for item, _ in session.top(100)} == set(IDS) - {*IDS[:20], "i25"}
    assert {item for item, _ in session.top(100, include_seen=True)} == set(IDS)
    assert len(session.top(3)) == 3
    with pytest.raises(ConfigError, match="k: expected at least 1, found 0"):
        session.top(0)


@pytest.mark.parametrize("form", ["recurrent", "window"])
def test_an_empty_session_scores_an_empty_history(form: str) -> None:
    model = trained()
    table = recommend_histories(model, [[]], k=4).table
    assert [item for item, _ in Session(model, form=form).top(4)] == table["item_id"].to_pylist()


@pytest.mark.parametrize("form", ["recurrent", "window"])
def test_unknown_items_are_counted_and_left_out(form: str) -> None:
    model = trained()
    session, clean = Session(model, form=form), Session(model, form=form)
    session.push("i3", "nobody knows", "i9")
    session.push("nor this")
    clean.push("i3", "i9")
    assert (session.length, session.unknown) == (2, 2)
    assert torch.equal(session.scores(), clean.scores())


@pytest.mark.parametrize("items", [["i3"], 3.0, True, None])
def test_what_is_no_raw_id_is_refused_and_changes_nothing(items: object) -> None:
    session = Session(trained())
    session.push("i3")
    before = session.scores()
    with pytest.raises(ConfigError, match="push: expected raw ids, each a text, found"):
        session.push("i4", items)  # type: ignore[arg-type]
    assert torch.equal(session.scores(), before)


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ConfigError, match="form: expected one of auto, recurrent, window, found"):
        Session(trained(), form="fast")


def test_scores_belong_to_the_caller() -> None:
    session = Session(trained())
    session.push("i3")
    before = session.scores()
    session.scores().fill_(7)
    assert torch.equal(session.scores(), before)


def test_dropout_is_off_and_the_mode_stays_what_it_was() -> None:
    model = trained()
    quiet = Session(model)
    quiet.push(*history(9))
    model.module.train()
    session = Session(model)
    session.push(*history(9))
    assert model.module.training
    assert torch.equal(session.scores(), quiet.scores())


def test_sessions_do_not_disturb_each_other() -> None:
    model = trained()
    one, other = Session(model), Session(model)
    one.push("i1", "i2")
    before = one.scores()
    other.push("i3")
    assert torch.equal(one.scores(), before)
    one.push("i4")
    alone = Session(model)
    alone.push("i1", "i2", "i4")
    torch.testing.assert_close(one.scores(), alone.scores(), rtol=1e-5, atol=1e-5)


def test_a_saved_model_goes_on_the_same(tmp_path: Path) -> None:
    model = trained(positions="per-copy", kernel_size=5)
    model.save(tmp_path)
    items = history(20)
    tops = []
    for one in (Blin.from_pretrained(tmp_path, device="cpu").session(), Session(model)):
        one.push(*items)
        tops.append(one.top(6))
    assert [item for item, _ in tops[0]] == [item for item, _ in tops[1]]
    assert [score for _, score in tops[0]] == pytest.approx([score for _, score in tops[1]])


def test_an_untrained_model_has_no_session() -> None:
    with pytest.raises(BlinError, match="not trained yet"):
        Blin().session()


def test_the_example_of_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"u{user},i{(user + step) % 20},{step}" for user in range(40) for step in range(8)]
    (tmp_path / "raw.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = (each for each in examples if "session" in each)
    exec(example.replace("dim=64", "dim=16, epochs=2"), {})
    assert "('i" in capsys.readouterr().out
