"""A distilled run is an ordinary run of its student; what it learned from is checked and kept."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blin.checkpoint import find_run, load_run, read_run_config
from blin.data.dataset import Dataset
from blin.evaluation.evaluator import evaluate
from blin.models.distillation import DistillationConfig
from blin.tensors import read_header
from blin.training import trainer
from blin.training.distillation import KNOWLEDGE_FILE, Distillation
from blin.training.trainer import STATE_FILE, Event, Step
from small import SMALL

HERE: dict[str, Any] = {"device": "cpu", "threads": 1}
STUDENT = {**SMALL, "dim": 8, "num_heads": 2, "epochs": 3, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def teacher(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of blin, in which nothing is written."""
    runs = tmp_path_factory.mktemp("teachers")
    settings = {**SMALL, "epochs": 2, "learning_rate": 0.01}
    return trainer.train(small_dataset, settings=settings, runs_dir=runs, **HERE).run


def distilled(
    dataset: Dataset,
    teacher: Path,
    runs: Path,
    *,
    model: str = "spnn",
    how: dict[str, Any] | None = None,
    stop: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Path:
    return trainer.train(
        dataset,
        model=model,
        settings={**STUDENT, **settings},
        runs_dir=runs,
        distillation=Distillation.of(teacher, dataset, DistillationConfig(**(how or {}))),
        on_event=stop,
        **HERE,
    ).run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def stop_at(epoch: int, step: int) -> Callable[[Event], None]:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def test_a_weight_of_nothing_is_a_plain_training(
    small_dataset: Dataset, teacher: Path, tmp_path: Path
) -> None:
    plain = trainer.train(
        small_dataset, model="spnn", settings=STUDENT, runs_dir=tmp_path, **HERE
    ).run
    nothing = {"distill_weight": 0.0, "cold_share": 0.0}
    run = distilled(small_dataset, teacher, tmp_path, how=nothing)
    assert_equal(weights_of(run), weights_of(plain))
    taught = distilled(small_dataset, teacher, tmp_path, how={"cold_share": 0.0})
    assert any(
        not torch.equal(tensor, weights_of(taught)[name])
        for name, tensor in weights_of(plain).items()
    )


def test_it_is_a_run_of_its_student(small_dataset: Dataset, teacher: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    run = distilled(small_dataset, teacher, tmp_path)
    assert {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()} == before
    assert run.name.endswith("-spnn-distilled-s0")
    assert not any("detector" in name for name in weights_of(run))
    opened = load_run(run, device="cpu")
    assert opened.model.name == "spnn"
    stored = json.loads((run / "eval" / "test.json").read_text())["metrics"]
    again = evaluate(opened.model, opened.dataset(), k=(10, 20))
    assert again.metrics == pytest.approx(stored)
    (first, *_) = (run / "history.jsonl").read_text().splitlines()
    assert list(json.loads(first)["losses"]) == ["sequence", "distill", "detector"]
    told = read_run_config(run)["distillation"]
    assert told["teacher"] == str(teacher.resolve())
    assert told["model"] == "blin"
    assert (told["layers"], told["dim"], told["item_dim"]) == (3, 16, 16)
    assert told["cold_share"] == 0.5
    assert not (run / KNOWLEDGE_FILE).exists()
    assert_equal(weights_of(distilled(small_dataset, teacher, tmp_path)), weights_of(run))


@pytest.mark.parametrize(("epoch", "step"), [(2, 2), (1, 1)])
def test_parts_are_the_whole(
    small_dataset: Dataset, teacher: Path, tmp_path: Path, epoch: int, step: int
) -> None:
    whole = distilled(small_dataset, teacher, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        distilled(small_dataset, teacher, tmp_path / "parts", stop=stop_at(epoch, step))
    parts = find_run(tmp_path / "parts")
    assert (parts / KNOWLEDGE_FILE).exists()
    assert any("detector" in name for name in read_header(parts / STATE_FILE).tensors)
    torch.manual_seed(99)
    trainer.resume(parts, **HERE)
    assert_equal(load_file(parts / STATE_FILE), load_file(whole / STATE_FILE))
    assert_equal(weights_of(parts), weights_of(whole))
