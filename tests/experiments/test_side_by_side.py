"""Trainings side by side: none twice, none lost, and one that fails stops no other."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from blin.data.dataset import Dataset
from blin.experiments import side_by_side
from blin.experiments.outcomes import KnownRuns, Outcome, outcome_of
from blin.experiments.points import Trial
from blin.experiments.side_by_side import Change, InOrder, Place, train_side_by_side
from blin.training import trainer
from blin.training.trainer import METRIC, resolved_settings
from small import SMALL

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")


def trial_of(dataset: Dataset, name: str = "a", **settings: Any) -> Trial:
    settings = resolved_settings(dataset, "blin", {**SMALL, **settings})
    return Trial(name, "blin", int(settings["seed"]), settings)


def place_of(dataset: Dataset, tmp_path: Path) -> Place:
    return Place(dataset, tmp_path / "runs", tmp_path / "logs", "cpu", 1)


def weights_of(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def train(
    trials: list[Trial],
    place: Place,
    *,
    jobs: int = 2,
    also: Callable[[Change], None] | None = None,
) -> list[tuple[str, str]]:
    changes: list[Change] = []

    def on_change(change: Change) -> None:
        changes.append(change)
        if also is not None:
            also(change)

    train_side_by_side(InOrder(trials), place, jobs=jobs, on_change=on_change)
    return [(change.trial.point, change.state) for change in changes if change.state != "step"]


def test_ctrl_c_saves_all_and_two_at_once_go_on_to_what_each_comes_to_alone(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(small_dataset, tmp_path)
    trials = [
        trial_of(small_dataset, "a", epochs=40),
        trial_of(small_dataset, "b", kl_weight=0.0),
    ]
    states: list[str] = []

    def also(change: Change) -> None:
        states.append(f"{change.trial.point}: {change.state}")
        # A signal that comes before the first step finds nothing to be saved.
        if change.state == "step" and states.count("a: step") == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(trials, place, jobs=1, also=also)
    assert states[-1] == "a: stopped"
    assert not any(state.startswith("b") for state in states)
    (run,) = (place.runs_dir / small_dataset.name).glob("*-blin-s0")
    assert outcome_of(run) is None
    assert (run / "checkpoints" / "last.safetensors").exists()

    changes = train(trials, place)
    assert ("a", "goes on") in changes and changes.count(("a", "finished")) == 1
    mine = [state for point, state in changes if point == "b"]
    assert mine == ["begins", "epoch", "epoch", "epoch", "finished"]
    known = KnownRuns(place.runs_dir, small_dataset)
    for trial in trials:
        expected = trainer.train(
            small_dataset,
            settings=trial.settings,
            runs_dir=tmp_path / "alone",
            device="cpu",
            threads=1,
        )
        run, outcome = known.find(trial) or (Path(), None)
        assert weights_of(run) == weights_of(expected.run)
        assert outcome is not None
        assert (outcome.test, outcome.valid) == (expected.metrics, expected.valid_metrics)
        assert (outcome.epochs, outcome.best_epoch) == (expected.epochs, expected.best_epoch)
    assert (place.runs_dir / "latest").resolve().parent == place.runs_dir / small_dataset.name
    assert not place.logs.exists()

    monkeypatch.setattr(side_by_side.subprocess, "Popen", None)  # no process is started again
    assert train(trials, place) == [("a", "known"), ("b", "known")]


ACTOR = """
import json, os, signal, sys, time
told = json.load(sys.stdin)
dropout = told["settings"]["dropout"]
def say(**what): print(json.dumps(what), flush=True)
say(about="started", run="x", epoch=0, epochs=1)
if dropout == 0.1: say(about="failed", reason="out of luck"); sys.exit(1)
if dropout == 0.15: say(about="stopped"); sys.exit(1)
if dropout == 0.16: say(about="stopped", reason="7 trains it"); sys.exit(1)
if dropout == 0.2: os.kill(os.getpid(), signal.SIGKILL)
if dropout == 0.3: print("boom", file=sys.stderr); sys.exit(5)
if dropout == 0.4: say(about="finished", run="nowhere"); sys.exit(0)
if dropout == 0.5:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(about="step", epoch=0.5)
    time.sleep(600)
time.sleep(1)
"""
"""In place of a training: what it does depends on the dropout."""


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "_WORKER", ACTOR)


@pytest.mark.usefixtures("acting")
def test_what_fails_is_named_and_stops_no_other(small_dataset: Dataset, tmp_path: Path) -> None:
    place = place_of(small_dataset, tmp_path)
    trials = [trial_of(small_dataset, f"{d}", dropout=d) for d in (0.1, 0.2, 0.3, 0.4)]
    trials += [trial_of(small_dataset, "twin", dropout=0.1)]
    reasons: dict[str, str] = {}

    def also(change: Change) -> None:
        if change.state == "failed":
            reasons[change.trial.point] = change.reason

    train(trials, place, jobs=1, also=also)
    assert reasons == {
        "0.1": "out of luck",
        "0.2": f"its process was killed by signal 9, see {place.logs / '0.2__seed_0.log'}",
        "0.3": f"its process ended with code 5, see {place.logs / '0.3__seed_0.log'}",
        "0.4": "nowhere/config.toml: expected TOML, found: No such file or directory",
        "twin": "out of luck",
    }
    assert [file.name for file in place.logs.iterdir()] == ["0.3__seed_0.log"]
    assert (place.logs / "0.3__seed_0.log").read_text() == "boom\n"


@pytest.mark.usefixtures("acting")
def test_what_somebody_else_stops_is_named_and_has_not_ended(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    ended: list[str] = []

    class Heard(InOrder):
        def ended(self, trial: Trial, outcome: Outcome | None) -> None:
            ended.append(trial.point)

    schedule = Heard(
        [
            trial_of(small_dataset, "stopped", dropout=0.15),
            trial_of(small_dataset, "elsewhere", dropout=0.16),
            trial_of(small_dataset, "unlucky", dropout=0.1),
        ]
    )
    changes: list[Change] = []
    place = place_of(small_dataset, tmp_path)
    train_side_by_side(schedule, place, jobs=1, on_change=changes.append)
    assert [(each.trial.point, each.reason) for each in changes if each.state == "failed"] == [
        ("stopped", "its process was stopped; the same command goes on"),
        ("elsewhere", "7 trains it; the same command goes on"),
        ("unlucky", "out of luck"),
    ]
    assert ended == ["unlucky"]


def test_what_a_library_prints_is_not_listened_to() -> None:
    news: SimpleQueue[Any] = SimpleQueue()
    job: Any = object()
    said = io.BytesIO(b'hello\n\xff\n[1]\n{}\n{"about": "stopped"}\n' + b"[" * 100_000)
    side_by_side._Job._listen(job, said, news)
    assert [news.get() for _ in range(news.qsize())] == [
        (job, {"about": "stopped"}),
        (job, None),
    ]


@pytest.mark.usefixtures("acting")
def test_a_second_ctrl_c_ends_them_at_once(small_dataset: Dataset, tmp_path: Path) -> None:
    place = place_of(small_dataset, tmp_path)
    trial = trial_of(small_dataset, dropout=0.5)

    def also(change: Change) -> None:
        if change.state == "step":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="without saving"):
        train([trial], place, also=also)
    assert time.monotonic() - begin < 300


@pytest.mark.usefixtures("acting")
def test_no_more_than_so_many_at_a_time_and_equal_ones_once(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(small_dataset, tmp_path)
    values = [0.11, 0.12, 0.13, 0.14]
    trials = [trial_of(small_dataset, f"{d}", dropout=d) for d in values]
    trials.insert(1, trial_of(small_dataset, "twin", dropout=0.11))
    started: list[subprocess.Popen[bytes]] = []
    others: list[int] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            others.append(sum(process.poll() is None for process in started))
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(side_by_side.subprocess, "Popen", Counted)
    states = train(trials, place, jobs=2)
    assert (len(started), max(others)) == (4, 1)
    # Two that start one after the other may be heard of in any order.
    assert sorted(point for point, state in states if state == "begins") == list(map(str, values))
    assert sorted(point for point, state in states if state == "failed") == sorted(
        trial.point for trial in trials
    )


def test_a_run_is_finished_when_it_is_tested(small_dataset: Dataset, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 2}
    result = trainer.train(
        small_dataset, settings=settings, runs_dir=tmp_path, device="cpu", threads=1
    )
    outcome = outcome_of(result.run)
    assert outcome is not None and outcome.test == result.metrics
    assert outcome.valid[METRIC] == result.valid_metrics[METRIC]
    trial = trial_of(small_dataset, epochs=2)
    known = KnownRuns(tmp_path, small_dataset)
    assert known.find(trial) == (result.run, outcome)
    assert known.find(trial_of(small_dataset, epochs=3)) is None

    (result.run / "eval" / "test.json").unlink()
    assert outcome_of(result.run) is None
    trainer.resume(result.run, device="cpu")
    assert outcome_of(result.run) == outcome

    history = result.run / "history.jsonl"
    history.write_text(history.read_text().splitlines()[0] + "\n")
    assert outcome_of(result.run) is None
    assert known.find(trial) == (result.run, None)
