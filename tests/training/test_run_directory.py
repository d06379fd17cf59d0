"""Runs that several processes make at once, in one place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blin.checkpoint import TrainedModel, read_run_config
from blin.data.dataset import Dataset
from blin.evaluation.evaluator import evaluate
from blin.models import MODELS
from blin.training.baselines import measure_baselines
from blin.training.run_directory import create_run

RIVAL = """
import sys
from pathlib import Path
from blin.data.dataset import Dataset
from blin.evaluation.evaluator import evaluate
from blin.models import MODELS
from blin.training.baselines import measure_baselines
from blin.training.trainer import train
data, runs = map(Path, sys.argv[1:3])
dataset = Dataset(data)
print("ready", flush=True)
sys.stdin.read(1)
for _ in range(6):
    result = train(dataset, model="popularity", runs_dir=runs, device="cpu", threads=1)
    measure_baselines(dataset, protocol=result.protocol, directory=result.run.parent)
"""


def test_two_processes_that_train_in_one_second_get_a_run_each(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, str(small_dataset.path), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for rival in rivals:
        assert rival.stdout is not None and rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go")
        rival.stdin.flush()
    for rival in rivals:
        _, errors = rival.communicate(timeout=300)
        assert (rival.returncode, errors) == (0, "")
    runs = sorted((tmp_path / small_dataset.name).glob("*/config.toml"))
    assert len(runs) == 12
    assert all((run.parent / "eval" / "test.json").exists() for run in runs)
    latest = (tmp_path / "latest").resolve()
    assert latest in [run.parent for run in runs]
    protocol = evaluate(
        TrainedModel.load(latest / "model"), Dataset(small_dataset.path), k=(10, 20)
    ).protocol
    (kept,) = (tmp_path / small_dataset.name).glob(".baselines-*.json")
    stored = json.loads(kept.read_text())["metrics"]
    (tmp_path / "fresh").mkdir()
    fresh = measure_baselines(small_dataset, protocol=protocol, directory=tmp_path / "fresh")
    assert stored == fresh
    hidden = {file.name for file in tmp_path.rglob(".*")}
    assert hidden == {kept.name}, "something was left behind"


def test_a_name_that_another_process_takes_first_is_left_to_it(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = MODELS["popularity"].module(small_dataset.num_items, MODELS["popularity"].config())
    trained = TrainedModel("popularity", module, small_dataset.item_ids)

    def create() -> Path:
        def fill(new: Path) -> None:
            torch.save({}, new / "anything")

        return create_run(tmp_path, small_dataset, trained, {}, label="a", fill=fill)[0]

    first = create()
    real = Path.exists

    def not_there_yet(path: Path, **options: bool) -> bool:
        """Answers as if the other process had not been done yet, once for each place."""
        if path in asked or path.parent.name != small_dataset.name:
            return real(path, **options)
        asked.add(path)
        return False

    for _ in range(3):  # the second may have changed in between
        asked: set[Path] = set()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", not_there_yet)
            second = create()
        if second.name == f"{first.name}-2":
            break
        first = second
    else:
        pytest.fail("expected the second run beside the first")
    assert read_run_config(first)["dataset"] == read_run_config(second)["dataset"]
