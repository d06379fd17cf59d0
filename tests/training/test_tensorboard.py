from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from blin.data.dataset import Dataset
from blin.errors import BlinError
from blin.training.trainer import Event, Step, resume, train
from small import SMALL


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads what TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tb")).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def history_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def assert_curves_are_the_history(run: Path) -> None:
    history, curves = history_of(run), curves_of(run)
    expected: dict[str, list[tuple[int, float]]] = {}
    for record in history:
        for group, numbers in (
            ("training/", record["losses"]),
            ("valid/", record["valid"]),
            ("", {name: record[name] for name in ("learning_rate", "users_per_second")}),
        ):
            for name, value in numbers.items():
                expected.setdefault(group + name, []).append((record["epoch"], value))
    del curves["data_wait"]
    assert curves.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in points], name
        assert [value for _, value in curves[name]] == pytest.approx(
            [value for _, value in points], rel=1e-6
        ), name


def small(dataset: Dataset, runs: Path, **options: Any) -> Path:
    settings = {**SMALL, "schedule": "linear", **options.pop("settings", {})}
    return train(dataset, settings=settings, runs_dir=runs, device="cpu", threads=1, **options).run


def test_the_curves_are_the_history(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path, tensorboard=True)
    assert_curves_are_the_history(run)
    curves = curves_of(run)
    assert [step for step, _ in curves["valid/NDCG@10"]] == [1, 2, 3]
    # A straight line down to 0 after 3 epochs of 4 steps; at the middle of each one's last step.
    rates = [0.001 * (3 - epoch + 1 / 8) / 3 for epoch in (1, 2, 3)]
    assert [rate for _, rate in curves["learning_rate"]] == pytest.approx(rates)
    assert all(speed > 0 for _, speed in curves["users_per_second"])


def test_nobody_gets_curves_who_did_not_ask(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path)
    assert not (run / "tb").exists()
    resume(run, device="cpu", tensorboard=True)
    assert_curves_are_the_history(run)


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_run_goes_on_without_doubling_a_step(
    small_dataset: Dataset, tmp_path: Path, step: int
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (2, step):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small(small_dataset, tmp_path, tensorboard=True, on_event=stop)
    run = (tmp_path / "latest").resolve()
    # As if it had been killed with an epoch in the curves that is not in its state.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run / "tb")) as writer:
        writer.add_scalar("valid/NDCG@10", 0.5, 2)
    resume(run, device="cpu", threads=1)
    history = history_of(run)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    curves = curves_of(run)
    assert [point for point, _ in curves["valid/NDCG@10"]] == [1, 2, 3]
    assert len(list((run / "tb").iterdir())) == 1
    if step == 2:
        assert_curves_are_the_history(run)
    else:
        # Stopped after the last step of the epoch: of its speed nothing is known any more.
        assert [point for point, _ in curves["users_per_second"]] == [1, 3]


def test_a_run_with_curves_has_the_weights_of_one_without(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    one = small(small_dataset, tmp_path / "one", settings={"epochs": 1}, tensorboard=True)
    two = small(small_dataset, tmp_path / "two", settings={"epochs": 1})
    model = "model/model.safetensors"
    assert (one / model).read_bytes() == (two / model).read_bytes()


def test_without_the_package_nothing_begins(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small(small_dataset, tmp_path / "runs", settings={"epochs": 1}, tensorboard=True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = r"the curves need TensorBoard: pip install 'blin-rec\[tensorboard\]'"
    with pytest.raises(BlinError, match=message):
        small(small_dataset, tmp_path / "new", tensorboard=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(BlinError, match=message):
        resume(run, device="cpu")
    assert len(history_of(run)) == 1
