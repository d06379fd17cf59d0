"""A run of a model that reads times is of these times; others need not know of any."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blin.checkpoint import load_run, open_run_dataset, read_run_config
from blin.data.dataset import Dataset
from blin.errors import CheckpointError
from blin.experiments.outcomes import KnownRuns
from blin.experiments.points import Trial
from blin.models import MODELS
from blin.models.distillation import DistillationConfig
from blin.training import trainer
from blin.training.distillation import Distillation
from learned import LEARNED, module_of, small_settings

HERE: dict[str, Any] = {"device": "cpu", "threads": 1}
READERS = [name for name, model in MODELS.items() if model.reads_times]


def settings_of(model: str) -> dict[str, Any]:
    return {} if MODELS[model].counted else small_settings(model, epochs=1)


@pytest.fixture(scope="module")
def runs(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each model that reads times, and one of a model that does not."""
    place = tmp_path_factory.mktemp("runs")
    return {
        model: trainer.train(
            small_dataset, model=model, settings=settings_of(model), runs_dir=place, **HERE
        ).run
        for model in (*READERS, "sasrec")
    }


@pytest.fixture(scope="module", params=["later", "none"])
def other(
    request: pytest.FixtureRequest,
    small_dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Dataset:
    """The same sequences with other times, or with none."""
    place = tmp_path_factory.mktemp("data") / small_dataset.name
    shutil.copytree(small_dataset.path, place)
    times = place / "timestamps.npy"
    if request.param == "none":
        times.unlink()
    else:
        np.save(times, np.load(times) * 2)
    return Dataset(place)


def refused(message: str, do: Callable[[], object]) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        do()
    assert "\n" not in str(caught.value)


def without_times(run: Path) -> None:
    """Leaves the config that a version wrote that knew of no times."""
    file = run / "config.toml"
    text, found = re.subn("(?m)^times = .*\n", "", file.read_text())
    assert found == 1
    file.write_text(text)


def test_the_models_that_read_times_are_known() -> None:
    learned = [name for name in LEARNED if module_of(name, 12).batch_spec.times]
    assert [*learned, "recent-popularity"] == READERS


@pytest.mark.parametrize("model", READERS)
def test_the_dataset_of_a_run_has_its_times(
    runs: dict[str, Path], other: Dataset, tmp_path: Path, model: str
) -> None:
    run = shutil.copytree(runs[model], tmp_path / "run")
    elsewhere = other.path.parent
    message = "expected the times it was trained with, crc32:.*, found (crc32|none)"
    refused(message, lambda: load_run(run).dataset(data_dir=elsewhere))
    if not MODELS[model].counted:
        refused(message, lambda: trainer.resume(run, data_dir=elsewhere, **HERE))
    assert load_run(run).dataset().times_checksum != other.times_checksum
    without_times(run)
    assert load_run(run).dataset(data_dir=elsewhere).path == other.path
    if not MODELS[model].counted:
        message = "it belongs to another run: expected times"
        refused(message, lambda: trainer.resume(run, data_dir=elsewhere, **HERE))


def test_any_times_do_for_a_model_that_reads_none(runs: dict[str, Path], other: Dataset) -> None:
    config = read_run_config(runs["sasrec"])
    assert "times" not in config
    found = open_run_dataset(runs["sasrec"], config, data_dir=other.path.parent)
    assert found.path == other.path


@pytest.mark.parametrize("model", [*READERS, "sasrec"])
def test_a_run_of_other_times_is_another_training(
    runs: dict[str, Path], small_dataset: Dataset, other: Dataset, model: str
) -> None:
    settings = trainer.resolved_settings(small_dataset, model, settings_of(model))
    trial = Trial("alone", model, 0, settings)
    place = runs[model].parent.parent
    found = KnownRuns(place, small_dataset).find(trial)
    assert found is not None and found[0] == runs[model]
    elsewhere = KnownRuns(place, other).find(trial)
    assert (elsewhere is None) == MODELS[model].reads_times


def test_the_times_of_a_teacher_are_those_of_its_student(
    runs: dict[str, Path], small_dataset: Dataset, other: Dataset, tmp_path: Path
) -> None:
    teacher, config = runs["spnn"], DistillationConfig()
    refused("expected the times it was", lambda: Distillation.of(teacher, other, config))
    how = Distillation.of(teacher, small_dataset, config)
    settings = small_settings("sasrec", epochs=1)
    run = trainer.train(
        small_dataset,
        model="sasrec",
        settings=settings,
        runs_dir=tmp_path,
        distillation=how,
        **HERE,
    ).run
    assert read_run_config(run)["times"] == read_run_config(teacher)["times"]
    kept = tmp_path / "teacher.safetensors"
    how.kept_knowledge(kept, small_dataset, device="cpu")
    refused(
        "of another teacher: expected times .*: delete it, and it is computed again",
        lambda: how.kept_knowledge(kept, other, device="cpu"),
    )
