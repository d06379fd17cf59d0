"""All that the Blin paper measures on a dataset, as points to train, and what that will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from blin.data.dataset import Dataset
from blin.errors import BlinError
from blin.experiments.ablation import ablation, whole
from blin.experiments.bench import LENGTHS, Work
from blin.experiments.outcomes import KnownRuns, epochs_of
from blin.experiments.points import Point, grid, key_of, text_of
from blin.experiments.published import TABLE_2
from blin.models import BASELINES, MODELS
from blin.training.forecast import forecast
from blin.training.trainer import all_settings

WEIGHTS = (0.1, 0.5, 1, 2, 3)
"""The weights of the agreement in the paper's Figure 5."""

QUICK_WEIGHTS = (0.5, 2)

QUICK_EPOCHS = 2

QUICK_LENGTHS = (50, 100)

Settings = Callable[[str], Mapping[str, object]]
"""Returns the settings of a model."""


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        table: the models of Table 2 that there are, and the baselines.
        ablation: Table 3.
        sweep: the weights of Figure 5.
        restored: settings that the ablation has by default, where those of the dataset lack what
            a row of it takes away.
    """

    table: Sequence[Point]
    ablation: Sequence[Point]
    sweep: Sequence[Point]
    restored: Mapping[str, object] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """All of them, each once."""
        every = [*self.table, *self.ablation, *self.sweep]
        return list({point.name: point for point in every}.values())

    def without(self, names: Mapping[str, str]) -> Plan:
        """Returns it without some points."""
        table, ablation, sweep = (
            [point for point in part if point.name not in names]
            for part in (self.table, self.ablation, self.sweep)
        )
        return replace(self, table=table, ablation=ablation, sweep=sweep)


def plan(settings_of: Settings, *, seeds: Sequence[int], quick: bool) -> Plan:
    """Returns what is trained.

    Args:
        settings_of: the settings of each model, for the dataset.
        seeds: of each point.
        quick: two epochs and fewer weights: to see it work, not to believe what it says.
    """
    short = {"epochs": QUICK_EPOCHS} if quick else {}

    def settings(model: str) -> dict[str, object]:
        return {**settings_of(model), **({} if MODELS[model].counted else short)}

    models = [name for name in (*BASELINES, *TABLE_2) if name in MODELS]
    weights = {"kl_weight": QUICK_WEIGHTS if quick else WEIGHTS}
    swept = grid(["blin"], settings("blin"), weights, seeds=seeds)
    base, gone = whole(settings("blin"))
    restored = {name: all_settings("blin", base)[name] for name in gone}
    told = "".join(f" {name}={text_of(value)}" for name, value in restored.items())
    return Plan(
        table=[Point(name, name, settings(name), tuple(seeds)) for name in models],
        ablation=[replace(p, name=f"{p.name}{told}") for p in ablation(base, seeds)],
        sweep=[Point(f"blin {p.name}", p.model, p.settings, p.seeds) for p in swept],
        restored=restored,
    )


def most_negatives(dataset: Dataset) -> int:
    """Returns how many negatives can be drawn for every user: nobody's are what they have had."""
    users = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    pairs = np.unique(users * (dataset.num_items + 1) + dataset.items.astype(np.int64))
    had = np.bincount(pairs // (dataset.num_items + 1))
    return dataset.num_items - int(had.max())


def attention_costs(
    *, quick: bool, device: str, threads: int | None
) -> tuple[tuple[int, ...], Work]:
    """Returns the lengths of Figure 6, and what its cases are measured with.

    Args:
        quick: fewer lengths, and one small step.
        device: as for :func:`blin.training.trainer.train`.
        threads: of each case; None for torch's default.
    """
    work = Work(users=256, batch_size=8, steps=2, device=device, threads=threads)
    if quick:
        return QUICK_LENGTHS, replace(work, users=8, items=100, steps=1)
    return LENGTHS, work


@dataclass(frozen=True)
class PointForecast:
    """What the trainings of a point will take that are not finished.

    Attributes:
        point: the name of the point.
        model: what it trains.
        epochs: the most of each training; None of a model that learns by counting.
        finished: trainings that are.
        left: trainings that are not.
        fewest: seconds of those, if the first epoch of each stays the best.
        most: seconds of those, if all epochs are trained.
    """

    point: str
    model: str
    epochs: int | None
    finished: int
    left: int
    fewest: float
    most: float


def forecast_points(
    points: Sequence[Point],
    dataset: Dataset,
    runs_dir: Path,
    *,
    device: str,
    threads: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[PointForecast], dict[str, str]]:
    """Measures, on a few batches of each kind of model, what is still to be trained.

    Points whose settings differ in the weight of an agreement that both have cost the same, and are
    measured once. A training that several points share is counted at the first of them.

    Args:
        points: what is to be trained.
        dataset: what is learned from.
        runs_dir: where finished runs are.
        device: as for :func:`blin.training.trainer.train`.
        threads: of each training.
        on_progress: called with the points done and the points to do.

    Returns:
        The forecasts; and, by point, why it cannot be trained on this dataset.
    """
    known = KnownRuns(runs_dir, dataset)
    measured: dict[str, tuple[float, float]] = {}
    found, refused = [], {}
    seen: set[str] = set()
    for done, point in enumerate(points):
        states = [(trial, known.find(trial)) for trial in point.trials(dataset)]
        left = [(trial, at) for trial, at in states if at is None or at[1] is None]
        finished = len(states) - len(left)
        left = [(trial, at) for trial, at in left if trial.key not in seen]
        fewest = most = 0.0
        model = MODELS[point.model]
        if left and model.counted and model.reads_times and dataset.timestamps is None:
            refused[point.name] = f"{dataset.path}: expected interactions with times, found none"
        elif left and not model.counted:
            trial = left[0][0]
            weight = {"kl_weight": trial.settings.get("kl_weight", 0) != 0, "seed": 0}
            key = key_of(point.model, {**trial.settings, **weight})
            try:
                if key not in measured:
                    once = forecast(
                        dataset,
                        model=point.model,
                        settings=trial.settings,
                        device=device,
                        threads=threads,
                    )
                    measured[key] = (
                        once.training_seconds(once.fewest_epochs),
                        once.training_seconds(once.epochs),
                    )
            except BlinError as error:
                refused[point.name] = str(error)
            else:
                for each, at in left:
                    share = (
                        0.0 if at is None else epochs_of(at[0]) / int(str(each.settings["epochs"]))
                    )
                    fewest += max(0.0, measured[key][0] - share * measured[key][1])
                    most += max(0.0, (1 - share) * measured[key][1])
        if point.name not in refused:
            seen |= {trial.key for trial, _ in left}
            epochs = states[0][0].settings.get("epochs")
            found.append(
                PointForecast(
                    point.name,
                    point.model,
                    None if epochs is None else int(str(epochs)),
                    finished,
                    len(left),
                    fewest,
                    most,
                )
            )
        if on_progress is not None:
            on_progress(done + 1, len(points))
    return found, refused
