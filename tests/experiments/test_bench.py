"""What attention costs is measured on models that differ in nothing else, one process a case."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blin.config import build
from blin.data.dataset import load_dataset
from blin.errors import BlinError, ConfigError
from blin.experiments import bench
from blin.experiments.bench import (
    Case,
    Cost,
    Outcome,
    Work,
    draw,
    epoch_seconds,
    exchange_attention,
    measure,
    run_case,
)
from blin.models import MODELS
from blin.nn.attention.linear import LinearAttention
from blin.nn.attention.softmax import SoftmaxAttention

WORK = Work(
    users=12,
    items=9,
    batch_size=4,
    steps=2,
    device="cpu",
    threads=1,
    limit=300,
    settings={"dim": 8},
)
COST = Cost((0.5, 0.1, 0.2), 10_000_000, 4_000_000, 7, ((4, 6, 8),), "cpu", 1)


def model_of(name: str, **settings: Any) -> Any:
    model = MODELS[name]
    torch.manual_seed(0)
    sizes = {"dim": 8, "max_len": 6, "num_blocks": 2, **model.defaults, **settings}
    return model.module(9, build(model.config, sizes)).eval()


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "blin", "blin-d", "esasrec"])
def test_exchanged_attention_keeps_every_parameter(name: str) -> None:
    module = model_of(name)
    before = {key: id(value) for key, value in module.named_parameters()}
    for attention, kind in (("linear", LinearAttention), ("softmax", SoftmaxAttention)):
        assert exchange_attention(module, attention) == 2
        assert sum(isinstance(each, kind) for each in module.modules()) == 2
        assert {key: id(value) for key, value in module.named_parameters()} == before
        assert not any(value.is_meta for value in module.parameters())


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_an_exchanged_model_is_the_one_built_so(attention: str, tmp_path: Path) -> None:
    batch = next(iter(loader_of(tmp_path)))
    other = {"softmax": "linear", "linear": "softmax"}[attention]
    built, exchanged = model_of("blin", attention=attention), model_of("blin", attention=other)
    exchanged.load_state_dict(built.state_dict())
    exchange_attention(exchanged, attention)
    torch.testing.assert_close(
        exchanged.encode(batch.views[0]), built.encode(batch.views[0]), rtol=0, atol=0
    )


def loader_of(place: Path) -> Any:
    from blin.training.trainer import new_trainer

    dataset = load_dataset(bench._histories(place, 6, WORK))
    settings = {"dim": 8, "max_len": 6, "batch_size": 4}
    options: dict[str, Any] = {"device": "cpu", "threads": 1}
    return new_trainer(dataset, model="blin", settings=settings, **options).loader.epoch(0)


def test_histories_fill_their_rows_and_hold_all_items(tmp_path):
    dataset = load_dataset(bench._histories(tmp_path, 6, WORK))
    assert (dataset.num_users, dataset.num_items) == (12, 9)
    assert set((dataset.offsets[1:] - dataset.offsets[:-1]).tolist()) == {9}
    for batch in loader_of(tmp_path / "again"):
        assert (batch.views[0].items > 0).all()
        assert batch.views[0].items.shape == (4, 6)


def test_a_case_is_measured_here(tmp_path):
    found = run_case(Case("blin", "softmax", 6), bench._histories(tmp_path, 6, WORK), WORK)
    assert len(found.seconds) == 2 and min(found.seconds) > 0
    assert found.memory >= found.before > 0
    assert found.parameters == sum(each.numel() for each in model_of("blin").parameters())
    # Two blocks, two views.
    assert found.shapes == ((4, 6, 8),) * 4
    assert (found.device, found.threads, found.rows) == ("cpu", 1, 1)


def test_each_prefix_is_a_row_where_a_model_learns_from_them(tmp_path):
    work = replace(WORK, settings={"dim": 8, "loss_positions": "last"})
    found = run_case(Case("blin", "softmax", 6), bench._histories(tmp_path, 6, work), work)
    assert found.rows == 6
    # 12 histories of 6 prefixes, 4 a step.
    assert epoch_seconds(found, work) == pytest.approx(18 * found.step)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_tells_the_memory_of_its_tensors(tmp_path):
    work = replace(WORK, device="cuda")
    found = run_case(Case("blin", "linear", 6), bench._histories(tmp_path, 6, work), work)
    assert 0 <= found.before < found.memory < 10**9
    assert found.device == "cuda"


def answering(monkeypatch: pytest.MonkeyPatch, answers: dict[tuple[str, int], Any]) -> list[Any]:
    """Lets the processes of cases answer at once; returns the cases that were asked for."""
    asked: list[Any] = []

    def run(command: list[str], *, input: str, timeout: float, **options: Any) -> Any:
        case = json.loads(input)["case"]
        asked.append((case["attention"], case["length"]))
        answer = answers.get(asked[-1], COST)
        if answer == "slow":
            raise subprocess.TimeoutExpired(command, timeout)
        if isinstance(answer, int):
            return subprocess.CompletedProcess(command, answer, "", "Traceback\nValueError: bad\n")
        told = answer if isinstance(answer, dict) else answer.__dict__
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(told)}\n", "")

    monkeypatch.setattr(bench.subprocess, "run", run)
    return asked


def test_what_takes_too_long_is_said_and_longer_cases_are_not_tried(monkeypatch):
    asked = answering(monkeypatch, {("softmax", 6): "slow", ("linear", 7): -9})
    outcomes = measure(["blin"], [7, 5, 6, 6, 8], work=replace(WORK, limit=2.5))
    found = {(each.case.attention, each.case.length): each for each in outcomes}
    assert list(found) == [(kind, n) for n in (5, 6, 7, 8) for kind in ("softmax", "linear")]
    assert found["softmax", 5].cost == found["linear", 6].cost == COST
    assert found["softmax", 6].reason == "too long (over 2.5 s)"
    assert found["softmax", 7].reason == "not tried: too long (over 2.5 s) at 6"
    assert found["linear", 7].reason == "out of memory"
    assert found["linear", 8].reason == "not tried: out of memory at 7"
    assert asked == [(k, n) for k, n in found if not found[k, n].reason.startswith("not tried")]


def test_an_exhausted_memory_is_an_outcome_and_a_failure_is_an_error(monkeypatch):
    answering(monkeypatch, {("linear", 5): {"reason": "out of memory"}})
    assert measure(["blin"], [5], work=WORK)[1].reason == "out of memory"
    answering(monkeypatch, {("linear", 5): 1})
    with pytest.raises(BlinError, match="blin, linear attention, length 5: .* code 1: .*bad"):
        measure(["blin"], [5], work=WORK)


@pytest.mark.parametrize("changed", [{"parameters": 8}, {"shapes": ((4, 6, 9),)}])
def test_attentions_that_differ_in_more_are_refused(monkeypatch, changed):
    answering(monkeypatch, {("linear", 5): replace(COST, **changed)})
    with pytest.raises(BlinError, match=rf"{next(iter(changed))}: expected .*, as with softmax"):
        measure(["blin"], [5], work=WORK)


def test_memory_that_is_not_there_is_told_by_the_process(tmp_path, monkeypatch):
    def full(*given: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(bench, "run_case", full)
    monkeypatch.setattr(bench, "_leave_others_their_memory", lambda: None)
    request = {"case": {"model": "blin", "attention": "linear", "length": 5}, "data": ""}
    assert bench._answer({**request, "work": {}}) == {"reason": "out of memory"}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_may_take_what_is_left_and_no_more():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        bench._leave_others_their_memory()
        limit, most = resource.getrlimit(resource.RLIMIT_DATA)
        assert 0 < limit < 1 << 45
        assert most == before[1]
        with pytest.raises(RuntimeError, match="memory"):
            torch.empty(limit, dtype=torch.int8)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("models", "lengths", "changes", "message"),
    [
        (["popularity"], [5], {}, "popularity learns by counting"),
        (["gru4rec"], [5], {}, "gru4rec: expected a model with softmax or linear attention"),
        (["blni"], [5], {}, "blni"),
        (["blin"], [5], {"settings": {"dimm": 8}}, "dimm"),
        (["blin"], [5], {"items": 97}, "items: expected at most the 96 that are drawn, found 97"),
        (["blin"], [5], {"steps": 0}, "steps: expected at least 1"),
        (["blin"], [0], {}, "lengths of at least 1"),
        ([], [5], {}, "expected models"),
        (["blin"], [5], {"device": "gpu"}, "device"),
        (["blin"], [5], {"device": "xpu"}, "device: expected auto, cpu, cuda or cuda:N"),
        (["blin"], [5], {"limit": float("nan")}, "limit: expected 0 to 1,000,000 seconds"),
        (["blin"], [5], {"limit": float("inf")}, "limit: expected 0 to 1,000,000 seconds"),
        (["blin"], [5], {"settings": {"max_len": 9}}, "max_len: it is no setting of a bench"),
    ],
)
def test_what_cannot_be_measured_is_refused_before(models, lengths, changes, message):
    with pytest.raises(ConfigError, match=message):
        measure(models, lengths, work=replace(WORK, **changes))


def test_epochs_are_scaled_from_the_median_step():
    assert epoch_seconds(COST, WORK) == pytest.approx(3 * 0.2)
    assert epoch_seconds(COST, replace(WORK, users=13)) == pytest.approx(4 * 0.2)
    assert COST.taken == 6_000_000


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_picture_is_drawn_and_is_the_same_each_time(tmp_path, suffix):
    outcomes = [
        Outcome(Case(model, attention, length), None if length == 9 else COST, "")
        for model in ("sasrec", "blin")
        for length in (5, 7, 9)
        for attention in ("softmax", "linear")
    ]
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    draw(outcomes, first, work=WORK)
    draw(outcomes, second, work=WORK)
    assert first.read_bytes() == second.read_bytes()
    if suffix == "svg":
        text = first.read_text()
        assert text.count("sasrec, softmax") == text.count("blin, linear") >= 1


def test_cases_that_take_no_memory_of_their_own_are_drawn(tmp_path):
    cost = replace(COST, memory=COST.before)
    draw([Outcome(Case("blin", "linear", 5), cost, "")], tmp_path / "a.svg", work=WORK)
    assert "blin, linear" in (tmp_path / "a.svg").read_text()
