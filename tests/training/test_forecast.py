from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.evaluation.evaluator import Evaluation, evaluate
from blin.training import forecast as module
from blin.training.forecast import Forecast, forecast
from blin.training.trainer import Trainer, train
from small import SMALL


def small(dataset: Dataset, **settings: Any) -> Forecast:
    return forecast(dataset, settings={**SMALL, **settings}, device="cpu", threads=1)


def test_it_says_what_the_run_then_has(small_dataset: Dataset, tmp_path: Path) -> None:
    found = small(small_dataset)
    run = train(small_dataset, settings=SMALL, runs_dir=tmp_path, device="cpu", threads=1).run
    state = load_file(run / "checkpoints" / "last.safetensors")

    def num_bytes(prefix: str) -> int:
        return sum(t.nbytes for name, t in state.items() if name.startswith(prefix))

    assert found.memory.weights == found.memory.gradients == num_bytes("model.")
    assert found.memory.optimizer == num_bytes("optimizer.")
    assert 4 * found.parameters == num_bytes("model.")
    assert (found.users, found.batches, found.views) == (120, 4, 2)
    assert (found.epochs, found.fewest_epochs) == (3, 3)
    best = load_file(run / "model" / "model.safetensors").values()
    kept = num_bytes("model.") + num_bytes("optimizer.")
    assert found.run_bytes == sum(tensor.nbytes for tensor in best) + kept
    assert found.settings["max_len"] == SMALL["max_len"]


def test_nothing_is_written_and_the_dataset_stays_as_it_is(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    splits = np.array(small_dataset.splits)
    files = {file: file.stat().st_mtime_ns for file in small_dataset.path.rglob("*")}
    small(small_dataset)
    assert not list(tmp_path.iterdir())
    assert np.array_equal(small_dataset.splits, splits)
    assert {file: file.stat().st_mtime_ns for file in small_dataset.path.rglob("*")} == files


def test_times_are_those_of_a_batch_and_of_the_users_of_a_sample(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step
    ranked = []

    def slow_step(self: Trainer, batch: Any) -> dict[str, float]:
        time.sleep(0.05)
        return step(self, batch)

    def slow_evaluate(*given: Any, **options: Any) -> Evaluation:
        found = evaluate(*given, **options)
        ranked.append((options["split"], found.users))
        return Evaluation(**{**vars(found), "seconds": 0.5})

    monkeypatch.setattr(Trainer, "step", slow_step)
    monkeypatch.setattr(module, "evaluate", slow_evaluate)
    monkeypatch.setattr(module, "RANKED_USERS", 30)
    found = small(small_dataset, epochs=40, patience=5)
    assert ranked == [("valid", 30)]
    assert (found.validated_users, found.validation_seconds) == (120, 2.0)
    assert found.seconds_per_batch >= 0.05
    assert found.epoch_seconds == pytest.approx(4 * found.seconds_per_batch)
    assert found.fewest_epochs == 6
    assert found.training_seconds(6) == pytest.approx(6 * (found.epoch_seconds + 2))


def test_activations_grow_with_the_batch_and_the_weights_do_not(small_dataset: Dataset) -> None:
    one, two = (small(small_dataset, batch_size=size, pack=False) for size in (15, 60))
    assert one.memory.weights == two.memory.weights
    assert 2 < two.memory.activations / one.memory.activations < 5
    # Four blocks' worth of (rows, positions, channels) are the least that two views keep.
    assert two.memory.activations > 4 * 60 * 8 * 16 * 4
    assert two.memory.measured > two.memory.activations
    assert (one.rows, two.rows) == (15, 60)


def test_a_dataset_of_one_batch_is_enough(small_dataset: Dataset) -> None:
    found = small(small_dataset, batch_size=1000)
    assert found.batches == 1
    assert found.epoch_seconds == found.seconds_per_batch


def test_wrong_settings_are_refused(small_dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match='unknown setting "droput"'):
        small(small_dataset, droput=0.1)
    with pytest.raises(ConfigError, match='unknown model "bln"'):
        forecast(small_dataset, model="bln")
