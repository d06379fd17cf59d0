"""What a run came to, read from its directory, and which runs there are already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blin.checkpoint import TIMES, has_times, read_run_config
from blin.config import check_known
from blin.data.dataset import Dataset
from blin.errors import BlinError, CheckpointError, ConfigError
from blin.experiments.points import Trial, key_of
from blin.files import parse_json
from blin.models import MODELS
from blin.training.distillation import told_of
from blin.training.trainer import METRIC, all_settings, setting_classes


@dataclass(frozen=True)
class Outcome:
    """What a finished run came to.

    Attributes:
        run: its directory.
        epochs: epochs trained; 0 for a model that learns by counting.
        best_epoch: the epoch whose model was kept; 0 likewise.
        seconds: of training and validation, all sittings together.
        valid: metrics of the kept model on the validation items.
        test: metrics of the kept model on the test items.
    """

    run: Path
    epochs: int
    best_epoch: int
    seconds: float
    valid: Mapping[str, float]
    test: Mapping[str, float]


def outcome_of(run: Path) -> Outcome | None:
    """Returns what a run came to, or None if it is not finished or not tested.

    Raises:
        CheckpointError: Its ``config.toml`` is damaged, or of another version.
    """
    config = read_run_config(run)
    try:
        settings, counted = config["settings"], MODELS[config["model"]].counted
        lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        history = [parse_json(line) for line in lines]
        best = max(range(len(history)), key=lambda place: history[place]["valid"][METRIC])
        if not counted:
            patience = len(history) - 1 - best >= settings["patience"]
            if len(history) < settings["epochs"] and not patience:
                return None
        test = parse_json((run / "eval" / "test.json").read_text(encoding="utf-8"))["metrics"]
        return Outcome(
            run=run,
            epochs=0 if counted else len(history),
            best_epoch=0 if counted else best + 1,
            seconds=float(history[-1]["seconds"]),
            valid=_metrics(history[best]["valid"]),
            test=_metrics(test),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
        return None


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics by name; ValueError unless each is a number, KeyError without the metric."""
    found = {name: float(value) for name, value in values.items()}
    if not all(map(math.isfinite, (found[METRIC], *found.values()))):
        raise ValueError(f"expected finite metrics, found {found}")
    return found


def runs_of(runs_dir: Path, dataset: str) -> list[Path]:
    """Returns the runs of a dataset, finished or not, by name.

    Raises:
        ConfigError: That is no name of a dataset, but a way to another directory.
    """
    if dataset in ("", ".", "..") or Path(dataset).name != dataset:
        raise ConfigError(f'dataset: expected the name of a dataset, found "{dataset}"')
    return sorted(file.parent for file in (runs_dir / dataset).glob("[!.]*/config.toml"))


class TrainedRun(NamedTuple):
    """A run, finished or not, and what it was trained with.

    Attributes:
        path: its directory.
        fingerprint: of the dataset.
        model: a key of ``MODELS``.
        settings: all of them, with defaults for those that came after it; of a distilled run, what
            it learned from and how, too, so that it passes for no training of the others alone.
        times: what tells the times that it read; None where it read none, or that is not known.
    """

    path: Path
    fingerprint: str
    model: str
    settings: dict[str, object]
    times: object = None


def trained_runs(runs_dir: Path, dataset: str) -> Iterator[TrainedRun]:
    """Yields the runs of a dataset, by name, that are whole and could be trained today.

    Raises:
        ConfigError: That is no name of a dataset.
    """
    for run in runs_of(runs_dir, dataset):
        with suppress(BlinError):
            config = read_run_config(run)
            settings = {**complete_settings(config), **told_of(config)}
            times = config.get(TIMES)
            yield TrainedRun(run, config["fingerprint"], config["model"], settings, times)


def finished_runs(runs_dir: Path, dataset: str) -> list[tuple[TrainedRun, Outcome]]:
    """Returns the runs of a dataset that are trained to their end and tested, by name.

    Raises:
        CheckpointError: There is none.
        ConfigError: That is no name of a dataset.
    """
    known = ((run, outcome_of(run.path)) for run in trained_runs(runs_dir, dataset))
    found = [(run, outcome) for run, outcome in known if outcome is not None]
    if not found:
        raise CheckpointError(
            f"{runs_dir / dataset}: expected finished runs, found none: train a model with "
            f"blin train --dataset {dataset}, or say with --runs-dir where they are"
        )
    return found


class KnownRuns:
    """The runs of a dataset by what they were trained with.

    Args:
        runs_dir: where runs live.
        dataset: what they were trained on; runs of the same name on other sequences, or that
            read other times, do not count.
    """

    def __init__(self, runs_dir: Path, dataset: Dataset) -> None:
        self._runs: dict[str, list[Path]] = {}
        for run in trained_runs(runs_dir, dataset.name):
            if run.fingerprint == dataset.fingerprint and has_times(dataset, run.times):
                self._runs.setdefault(key_of(run.model, run.settings), []).append(run.path)

    def find(self, trial: Trial) -> tuple[Path, Outcome | None] | None:
        """Returns the run of a training and, if it is finished, what it came to.

        Of several the first finished one, else the one that has come furthest. A model that learns
        by counting cannot go on, so one that was not tested is none.
        """
        runs = self._runs.get(trial.key, [])
        for run in runs:
            if (outcome := outcome_of(run)) is not None:
                return run, outcome
        if not runs or MODELS[trial.model].counted:
            return None
        return max(runs, key=epochs_of), None


def complete_settings(config: Mapping[str, Any]) -> dict[str, object]:
    """Returns the settings of a run, with defaults for those that came after it.

    Raises:
        ConfigError: There is no such model, or it has no such settings.
    """
    check_known(config["settings"], *setting_classes(config["model"]))
    return all_settings(config["model"], config["settings"])


def epochs_of(run: Path) -> int:
    """Returns how many epochs a run has finished."""
    try:
        return len((run / "history.jsonl").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
