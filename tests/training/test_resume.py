"""Stopped anywhere, a run goes on as if it had not been; one process at a time."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blin.checkpoint import find_run, load_run, read_run_config
from blin.cli.config_file import ConfigFile
from blin.data.dataset import Dataset
from blin.errors import BlinError, CheckpointError, ConfigError
from blin.evaluation.evaluator import evaluate
from blin.experiments.outcomes import trained_runs
from blin.experiments.report import gather
from blin.experiments.report_page import page
from blin.files import lock, remove_leftovers, replacing
from blin.tensors import read_header
from blin.training import trainer
from blin.training.log import LOG_FILE
from blin.training.run_directory import read_sittings
from blin.training.trainer import BEST_FILE, LOCK_FILE, STATE_FILE, Event, Started, Step, Validated
from html_page import Page
from small import SMALL

Stop = Callable[[Event], None]
HERE = {"device": "cpu", "threads": 1}


def begin(
    dataset: Dataset, runs: Path, *, model: str = "blin", stop: Stop | None = None, **settings: Any
) -> Path:
    settings = {**SMALL, **settings}
    return trainer.train(
        dataset, model=model, settings=settings, runs_dir=runs, on_event=stop, **HERE
    ).run


def stop_at(epoch: int, step: int) -> Stop:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def content_of(run: Path) -> dict[str, Any]:
    """All that must be equal, the loader's position and the early-stopping state included."""
    progress = read_header(run / STATE_FILE).about["progress"]
    for record in progress["history"]:
        del record["seconds"], record["data_wait"], record["users_per_second"]
    del progress["seconds"]
    return {
        "tensors": load_file(run / STATE_FILE),
        "progress": progress,
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "test": json.loads((run / "eval" / "test.json").read_text())["metrics"],
    }


def log_of(run: Path) -> list[str]:
    """The lines of a run's log, without their times."""
    lines = [line.split("  ", 1) for line in (run / LOG_FILE).read_text().splitlines()]
    times = [datetime.fromisoformat(time) for time, _ in lines]
    assert times == sorted(times) and all(time.tzinfo is not None for time in times)
    return [text for _, text in lines]


def assert_same(one: Path, other: Path) -> None:
    first, second = content_of(one), content_of(other)
    tensors, others = first.pop("tensors"), second.pop("tensors")
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    assert first == second


WAYS: dict[str, dict[str, Any]] = {
    "paper": {"model": "blin-paper", "batch_size": 256},
    "softmax": {"model": "blin-d", "positions": "reversed"},
    "repeat": {"padding": "random-repeat", "copies": "attend", "fit": "truncate"},
    "negatives": {"negatives_per": "position", "loss": "bce", "num_negatives": 1},
    "linear": {"schedule": "linear", "warmup_epochs": 1.5, "padding": "repeat"},
}


@pytest.mark.parametrize("way", WAYS)
def test_two_epochs_and_a_bit_and_the_rest_are_the_whole(
    small_dataset: Dataset, tmp_path: Path, way: str
) -> None:
    """Others are in test_trainer.py."""
    settings = {"epochs": 4, "learning_rate": 0.01, **WAYS[way]}
    whole = begin(small_dataset, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path / "parts", stop=stop_at(3, 2), **settings)
    parts = find_run(tmp_path / "parts")
    progress = read_header(parts / STATE_FILE).about["progress"]
    assert (progress["epoch"], progress["step"]) == (2, 2)
    torch.manual_seed(99)
    trainer.resume(parts, **HERE)
    assert_same(whole, parts)


def test_a_run_goes_on_without_what_was_added_since(small_dataset: Dataset, tmp_path: Path) -> None:
    """An eSASRec of a time when no items were dropped, for which its config has no setting."""
    settings = {"model": "esasrec", "item_dropout": 0.0, "epochs": 3, "num_negatives": 5}
    whole = begin(small_dataset, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path / "parts", stop=stop_at(2, 1), **settings)
    parts = find_run(tmp_path / "parts")
    config = (parts / "config.toml").read_text()
    assert "item_dropout = 0.0\n" in config
    (parts / "config.toml").write_text(config.replace("item_dropout = 0.0\n", ""))
    trainer.resume(parts, **HERE)
    assert_same(whole, parts)
    told = [ConfigFile.read(str(run / "config.toml")).settings for run in (whole, parts)]
    known = [run.settings for run in trained_runs(tmp_path / "parts", small_dataset.name)]
    assert told[0] == told[1] == read_run_config(parts)["settings"] == known[0]


def test_patience_is_counted_through_a_stop(small_dataset: Dataset, tmp_path: Path) -> None:
    settings = {"epochs": 60, "learning_rate": 0.1, "patience": 3}
    whole = begin(small_dataset, tmp_path / "whole", **settings)
    epochs = len((whole / "history.jsonl").read_text().splitlines())
    assert epochs < 60
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path / "parts", stop=stop_at(epochs, 1), **settings)
    parts = find_run(tmp_path / "parts")
    trainer.resume(parts, **HERE)
    assert_same(whole, parts)


def test_a_patience_that_was_outrun_is_refused(small_dataset: Dataset, tmp_path: Path) -> None:
    settings = {"epochs": 12, "learning_rate": 0.1}
    run = begin(small_dataset, tmp_path / "whole", patience=12, **settings)
    lines = (run / "history.jsonl").read_text().splitlines()
    values = [json.loads(line)["valid"]["NDCG@10"] for line in lines]
    waits = [end - values.index(max(values[: end + 1])) for end in range(len(values) - 1)]
    before = (run / "config.toml").read_bytes()
    with pytest.raises(ConfigError, match=f"patience: expected more than the {max(waits)} epochs"):
        trainer.resume(run, settings={"patience": max(waits)}, **HERE)
    assert (run / "config.toml").read_bytes() == before
    trainer.resume(run, settings={"patience": max(waits) + 1}, **HERE)
    assert_same(begin(small_dataset, tmp_path / "o", patience=max(waits) + 1, **settings), run)


def test_a_stop_during_the_validation_is_not_lost(small_dataset: Dataset, tmp_path: Path) -> None:
    """Also not in the last epoch, after which there is no other step."""

    def stop(event: Event) -> None:
        if isinstance(event, Validated) and event.epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path / "parts", stop=stop)
    parts = find_run(tmp_path / "parts")
    assert not (parts / "eval" / "test.json").exists()
    trainer.resume(parts, **HERE)
    assert_same(begin(small_dataset, tmp_path / "whole"), parts)


def test_a_second_signal_stops_at_once_and_says_so(small_dataset: Dataset, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped at once, without saving"):
        begin(small_dataset, tmp_path, stop=stop)
    run = find_run(tmp_path, unsaved=True)
    assert not (run / STATE_FILE).exists()
    trainer.resume(run, **HERE)
    assert find_run(tmp_path) == run


def test_the_log_says_what_became_of_a_run(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path, stop=stop_at(2, 3))
    stopped = find_run(tmp_path)
    trainer.resume(stopped, **HERE)
    first, epoch, stop, on, *epochs, end = log_of(stopped)
    assert first.startswith("begins: ") and first.endswith(
        "4 steps an epoch, up to 3 epochs, on cpu"
    )
    history = [json.loads(line) for line in (stopped / "history.jsonl").read_text().splitlines()]
    loss, metric = history[0]["losses"]["sequence"], history[0]["valid"]["NDCG@10"]
    kl = history[0]["losses"]["kl"]
    assert epoch == (
        f"epoch 1: sequence {loss:.4f}, kl {kl:.4f}, validation NDCG@10 {metric:.4f}, the best"
    )
    assert (stop, on) == ("stopped by Ctrl-C", "goes on after epoch 1, step 3 of the next")
    assert [line.split(":")[0] for line in epochs] == ["epoch 2", "epoch 3"]
    metrics = json.loads((stopped / "eval" / "test.json").read_text())["metrics"]
    assert f"test HR@10 {metrics['HR@10']:.4f}, " in end


def test_the_log_says_why_a_run_failed(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BlinError) as error:
        begin(small_dataset, tmp_path, learning_rate=1e20)
    assert log_of(find_run(tmp_path, unsaved=True))[-1] == f"failed: {error.value}"


def test_the_state_is_saved_within_a_long_epoch(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def look(event: Event) -> None:
        if isinstance(event, Step):
            (run,) = tmp_path.glob("saved/small/[!.]*")
            state = run / STATE_FILE
            steps.append(read_header(state).about["progress"]["step"] if state.exists() else 0)

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    saved = begin(small_dataset, tmp_path / "saved", stop=look, epochs=1)
    assert steps == [0, 1, 2, 3]
    monkeypatch.undo()
    assert_same(saved, begin(small_dataset, tmp_path / "unsaved", epochs=1))


def test_a_finished_run_says_so_and_nothing_changes(small_dataset: Dataset, tmp_path: Path) -> None:
    run = begin(small_dataset, tmp_path)
    other = begin(small_dataset, tmp_path, seed=1)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    events: list[Event] = []
    result = trainer.resume(run, on_event=events.append, **HERE)
    assert result.epochs == 3
    assert [type(event) for event in events] == [Started]
    assert isinstance(events[0], Started) and events[0].finished and events[0].epoch == 3
    # Who held the lock, and when it was tested.
    metrics = json.loads(files.pop(run / "eval" / "test.json"))["metrics"]
    del files[run / LOCK_FILE], files[run / LOG_FILE]
    *_, said, finished = log_of(run)
    assert said == "nothing is left to train after epoch 3: tested again"
    assert finished.startswith("finished: ")
    assert {path: path.read_bytes() for path in files} == files
    assert json.loads((run / "eval" / "test.json").read_text())["metrics"] == metrics
    assert find_run(tmp_path) == other.resolve()


def test_more_epochs_are_kept_in_mind(small_dataset: Dataset, tmp_path: Path) -> None:
    run = begin(small_dataset, tmp_path / "parts", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.resume(run, settings={"epochs": 5}, on_event=stop_at(4, 2), **HERE)
    assert read_run_config(run)["settings"]["epochs"] == 5
    assert trainer.resume(run, **HERE).epochs == 5
    assert_same(begin(small_dataset, tmp_path / "whole", epochs=5), run)


HOLD = """
import fcntl, os, signal, sys
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.truncate(0)
    print(os.getpid(), file=file, flush=True)
    print("held", flush=True)
    signal.pause()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks on Windows")
def test_a_run_belongs_to_one_process_at_a_time(small_dataset: Dataset, tmp_path: Path) -> None:
    run = begin(small_dataset, tmp_path, epochs=1)
    command = [sys.executable, "-c", HOLD, str(run / LOCK_FILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            with pytest.raises(BlinError, match=f"process {process.pid} is training") as caught:
                trainer.resume(run, settings={"epochs": 2}, **HERE)
            assert caught.value.exit_code == 1
            assert read_run_config(run)["settings"]["epochs"] == 1
        finally:
            process.kill()
    # What a killed process leaves locks nothing.
    assert (run / LOCK_FILE).exists()
    assert trainer.resume(run, settings={"epochs": 2}, **HERE).epochs == 2


def test_a_run_is_held_from_its_first_moment(small_dataset: Dataset, tmp_path: Path) -> None:
    def again(event: Event) -> None:
        if isinstance(event, Started):
            with pytest.raises(BlinError, match=f"process {os.getpid()} is training it"):
                trainer.resume(event.run, **HERE)

    begin(small_dataset, tmp_path, stop=again, epochs=1)


def test_without_locks_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock(tmp_path / "lock", what="it"), lock(tmp_path / "lock", what="it"):
        pass


def dead_process() -> int:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    return int(done.stdout)


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = dead_process()
    left = [f".model.tmp-{gone}", f".latest.tmp-{gone}", f".old.tmp-{os.getpid()}"]
    kept = [
        f".live.tmp-{os.getppid()}",
        f".mine.tmp-{os.getpid()}",
        "x.tmp-1",
        ".tmp-1",
        ".a.tmp-b",
    ]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / left[-1], (1, 1))
    (tmp_path / f".new-x.tmp-{gone}" / "run").mkdir(parents=True)
    (tmp_path / f".link.tmp-{gone}").symlink_to(tmp_path)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "nowhere")


def test_weights_of_an_epoch_that_was_never_saved_are_dropped(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    """Killed between the weights of a new best epoch and the state that counts it."""
    run = begin(small_dataset, tmp_path / "parts", learning_rate=0.01)
    longer = begin(small_dataset, tmp_path / "longer", learning_rate=0.01, epochs=8)
    shutil.copyfile(longer / "model" / "model.safetensors", run / BEST_FILE)
    assert read_header(run / BEST_FILE).about["epoch"] > 3
    before = content_of(run)
    trainer.resume(run, **HERE)
    assert not (run / BEST_FILE).exists()
    assert content_of(run)["model"] == before["model"]


def test_weights_of_the_best_epoch_are_moved_once_the_state_knows_of_them(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    """Killed between that state and the move; then before the history was written."""
    run = begin(small_dataset, tmp_path)
    before = content_of(run)
    (run / "model" / "model.safetensors").rename(run / BEST_FILE)
    (run / "history.jsonl").unlink()
    trainer.resume(run, **HERE)
    assert not (run / BEST_FILE).exists()
    assert content_of(run)["model"] == before["model"]
    assert len((run / "history.jsonl").read_text().splitlines()) == 3


def test_a_run_whose_model_is_gone_says_so_at_once(small_dataset: Dataset, tmp_path: Path) -> None:
    run = begin(small_dataset, tmp_path)
    (run / "model" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*No such file"):
        trainer.resume(run, settings={"epochs": 9}, **HERE)


def test_a_run_goes_on_where_it_was_moved_to(small_dataset: Dataset, tmp_path: Path) -> None:
    begin(small_dataset, tmp_path / "runs", epochs=2)
    run = find_run(tmp_path / "runs")
    moved = tmp_path / "elsewhere" / "mine"
    shutil.copytree(run, moved)
    data = Path(shutil.copytree(small_dataset.path.parent, tmp_path / "data"))
    trainer.resume(moved, data_dir=data, settings={"epochs": 3}, **HERE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "elsewhere", "runs"]
    assert [path.name for path in moved.parent.iterdir()] == ["mine"]
    assert_same(begin(small_dataset, tmp_path / "whole", epochs=3), moved)


@pytest.mark.parametrize("gone", ["eval", "environment.json", "history.jsonl", LOCK_FILE])
def test_what_may_be_deleted_is_not_missed(
    small_dataset: Dataset, tmp_path: Path, gone: str
) -> None:
    run = begin(small_dataset, tmp_path)
    shutil.rmtree(run / gone) if gone == "eval" else (run / gone).unlink()
    assert trainer.resume(run, settings={"epochs": 4}, **HERE).epochs == 4
    assert (run / "eval" / "test.json").exists() and (run / "history.jsonl").exists()


def test_the_latest_is_found_again_when_it_fails_before_it_saves(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed between its first state and the link to it, and then the disk was full."""
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path, stop=stop_at(1, 2))
    run = find_run(tmp_path)
    (tmp_path / "latest").unlink()
    assert find_run(tmp_path, unsaved=True) == run

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(trainer, "save_state", full)
        trainer.resume(run, **HERE)
    assert find_run(tmp_path, unsaved=True) == run
    trainer.resume(run, settings={"epochs": 1}, **HERE)


def test_every_sitting_is_written_down_and_shown(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path, stop=stop_at(1, 2))
    run = find_run(tmp_path)
    (first,) = read_sittings(run)
    assert first["platform"] == platform.platform() and first["threads"] == 1
    monkeypatch.setattr(platform, "platform", lambda: "Elsewhere-1")
    monkeypatch.setattr(sys, "argv", ["blin", "train", "--resume", "latest"])
    trainer.resume(run, settings={"epochs": 2}, **HERE)
    trainer.resume(run, **HERE)  # finished: nothing is trained
    trainer.resume(run, settings={"epochs": 3}, device="cpu", threads=2)
    torch.set_num_threads(1)
    sittings = read_sittings(run)
    assert sittings[0] == first
    assert [(each["epoch"], each["step"]) for each in sittings[1:]] == [(0, 2), (2, 0)]
    assert [each["platform"] for each in sittings[1:]] == ["Elsewhere-1"] * 2
    assert [each["threads"] for each in sittings] == [1, 1, 2]
    shown = Page(page(gather([run], resamples=99))).text
    for words in ("after epoch 0, step 2", "after epoch 2", "1, 2", "blin train --resume latest"):
        assert words in shown
    (run / "environment.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"environment.json: expected JSON of a run"):
        trainer.resume(run, settings={"epochs": 4}, **HERE)


def test_a_run_whose_state_was_deleted_still_has_its_model(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    run = begin(small_dataset, tmp_path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"last.safetensors: missing: train a new run"):
        trainer.resume(run, **HERE)
    assert load_run(run).model.num_items == small_dataset.num_items


def test_the_latest_to_resume_may_have_saved_nothing(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    """Killed in its first epoch, it is not the latest to evaluate, but the latest to go on with."""
    first = begin(small_dataset, tmp_path)
    begun = Path(shutil.copytree(first, first.parent / "begun"))
    for name in (STATE_FILE, "history.jsonl", "model/model.safetensors", "eval/test.json"):
        (begun / name).unlink()
    later = (first / STATE_FILE).stat().st_mtime_ns + 1
    os.utime(begun / "config.toml", ns=(later, later))
    assert find_run(tmp_path) == first.resolve()
    assert find_run(tmp_path, unsaved=True) == begun.resolve()
    trainer.resume(begun, **HERE)
    assert_same(first, begun)
    assert find_run(tmp_path) == find_run(tmp_path, unsaved=True) == begun.resolve()


def test_an_error_of_the_disk_names_the_file_that_was_to_be(tmp_path: Path) -> None:
    for given in (None, str(tmp_path / f".x.json.tmp-{os.getpid()}")):
        full = pytest.raises(OSError, match="No space left on device")
        with full as caught, replacing(tmp_path / "x.json"):
            raise OSError(errno.ENOSPC, "No space left on device", given)
        assert caught.value.filename == str(tmp_path / "x.json")


@pytest.mark.parametrize("settings", [{"epochs": "7"}, {"patience": 0}])
def test_a_resumed_run_refuses_what_a_new_one_would(
    small_dataset: Dataset, tmp_path: Path, settings: dict[str, object]
) -> None:
    run = begin(small_dataset, tmp_path, epochs=1)
    with pytest.raises(ConfigError):
        trainer.resume(run, settings=settings, **HERE)
    assert read_run_config(run)["settings"]["epochs"] == 1


def test_evaluations_of_an_earlier_model_do_not_stay(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    """A run is evaluated half-way, goes on, and is stopped again before it is tested."""
    with pytest.raises(KeyboardInterrupt):
        begin(small_dataset, tmp_path, stop=stop_at(2, 1), learning_rate=0.01)
    (config,) = tmp_path.glob("*/*/config.toml")
    run = config.parent
    evaluate(load_run(run).model, small_dataset).save(run / "eval")
    assert sorted(file.name for file in (run / "eval").iterdir()) == [
        "test.json",
        "test.per_user.parquet",
    ]
    with pytest.raises(KeyboardInterrupt):
        trainer.resume(run, device="cpu", on_event=stop_at(3, 1))
    assert load_run(run).model is not None
    assert list((run / "eval").iterdir()) == []
