"""Trainings that differ in their seed alone as one row, and rows held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from blin.checkpoint import load_run
from blin.errors import CheckpointError
from blin.evaluation.evaluator import evaluate
from blin.evaluation.per_user import SUFFIX, PerUser, read_per_user
from blin.evaluation.protocol import evaluation_name, metric_suffix
from blin.evaluation.significance import Comparison, clearly_best, compare, values_of
from blin.experiments.keeping import keep_evaluation, weights_of
from blin.experiments.outcomes import finished_runs
from blin.experiments.points import Point, key_of, telling_settings, text_of
from blin.experiments.results import Row
from blin.experiments.seeds import Interval
from blin.models import MODELS
from blin.training.run_directory import read_sittings

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Ranked:
    """A row with the ranks of all its runs by one protocol."""

    row: Row
    evaluations: tuple[PerUser, ...]

    @property
    def name(self) -> str:
        """That of the row."""
        return self.row.point.name

    @cached_property
    def suffix(self) -> str:
        """What the names of its metrics end in."""
        return metric_suffix(self.evaluations[0].protocol)

    def interval(self, metric: str, confidence: float) -> Interval:
        """Returns a metric such as ``NDCG@10`` over the seeds."""
        means = [float(values_of(each, metric).mean()) for each in self.evaluations]
        return Interval.of(means, confidence)


def finished_rows(runs_dir: Path, name: str) -> tuple[list[Row], int]:
    """Returns the finished runs of a dataset as rows.

    Rows are in the order of ``MODELS``, those of one model by their validation.

    Args:
        runs_dir: where runs live.
        name: of the dataset.

    Returns:
        The rows; and how many finished runs are left out because they were trained on other
        sequences than the newest one, or read other times than the newest one that read any.

    Raises:
        CheckpointError: There is none.
        ConfigError: That is no name of a dataset.
    """
    found = finished_runs(runs_dir, name)
    in_order = sorted((run for run, _ in found), key=lambda run: (_begun(run.path), run.path))
    newest = in_order[-1].fingerprint
    times = [run.times for run in in_order if run.fingerprint == newest and run.times is not None]
    alike = [
        (run, outcome)
        for run, outcome in found
        if run.fingerprint == newest and run.times in (None, *times[-1:])
    ]
    rows: dict[str, Row] = {}
    for run, outcome in alike:
        settings = telling_settings(run.settings)
        key = key_of(run.model, settings)
        seed = run.settings.get("seed")
        number = int(str(seed)) if seed is not None else None
        row = rows.setdefault(key, Row(Point(key, run.model, settings, ()), {}))
        rows[key] = replace(row, outcomes={number: outcome, **row.outcomes})
    order = list(MODELS)
    ranked = sorted(rows.values(), key=lambda row: (order.index(row.point.model), -row.value))
    return _named(ranked), len(found) - len(alike)


def best_of_each_model(rows: Sequence[Row]) -> list[Row]:
    """Returns of each model the row that does best on the validation items.

    A model that was distilled is another one than the same without a teacher.
    """
    best: dict[str, Row] = {}
    for row in rows:
        name = _model_name(row)
        if name not in best or row.value > best[name].value:
            best[name] = row
    return [replace(row, point=replace(row.point, name=model)) for model, row in best.items()]


def rank(
    rows: Sequence[Row],
    *,
    data_dir: Path | None = None,
    negatives: int | None = None,
    last: int | None = None,
    device: str = "auto",
    on_progress: Progress | None = None,
) -> list[Ranked]:
    """Returns the ranks of the test items by all runs of the rows.

    They are read from the runs; what a run has not been evaluated by yet is evaluated now and kept
    in it.

    Args:
        rows: finished runs on one dataset.
        data_dir: where their dataset is, if it has moved.
        negatives: uniform ones to rank among; None for full ranking.
        last: items of each history that the models are shown; None for all.
        device: for those that are evaluated.
        on_progress: called with the runs done and the runs to do.
    """
    runs = [outcome.run for row in rows for outcome in row.outcomes.values()]
    found: dict[Path, PerUser] = {}
    for done, run in enumerate(runs):
        found[run] = measured_ranks(
            run, data_dir=data_dir, negatives=negatives, last=last, device=device
        )
        if on_progress is not None:
            on_progress(done + 1, len(runs))
    return [
        Ranked(row, tuple(found[outcome.run] for outcome in row.outcomes.values())) for row in rows
    ]


def best_of(
    ranked: Sequence[Ranked], metric: str, *, level: float, resamples: int, seed: int = 0
) -> str | None:
    """Returns the row that is better than each other by more than chance, or None.

    The unit is the user, whose value is the mean over a row's seeds.
    """
    if len(ranked) < 2:
        return None
    evaluations = {each.name: each.evaluations for each in ranked}
    return clearly_best(evaluations, metric, level=level, resamples=resamples, seed=seed)


def compare_with_first(
    ranked: Sequence[Ranked],
    metrics: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int = 0,
) -> list[Comparison]:
    """Compares all rows with the first, user by user; a user's value is the mean over the seeds."""
    evaluations = {each.name: each.evaluations for each in ranked}
    found = compare(
        evaluations, metrics=metrics, confidence=confidence, resamples=resamples, seed=seed
    )
    return [replace(each, metric=each.metric + ranked[0].suffix) for each in found]


def _begun(run: Path) -> float:
    """Returns when a run was begun, whatever it is called by now: in seconds since 1970."""
    try:
        return datetime.fromisoformat(read_sittings(run)[0]["started"]).timestamp()
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return (run / "config.toml").stat().st_mtime


def _named(rows: Sequence[Row]) -> list[Row]:
    """Returns rows with their models as names, and the settings in which rows of one differ."""
    named = []
    for row in rows:
        peers = [each.point.settings for each in rows if _model_name(each) == _model_name(row)]
        differing = [
            f"{name}={text_of(value)}"
            for name, value in row.point.settings.items()
            if any(peer.get(name) != value for peer in peers)
        ]
        point = replace(row.point, name=" ".join([_model_name(row), *differing]))
        named.append(Row(point, dict(sorted(row.outcomes.items(), key=lambda each: each[0] or 0))))
    return named


def _model_name(row: Row) -> str:
    """Returns the name of a row's model, with that of its teacher's if it has one."""
    teacher = row.point.settings.get("teacher")
    return row.point.model if teacher is None else f"{row.point.model} from {teacher}"


def measured_ranks(
    run: Path,
    *,
    data_dir: Path | None = None,
    negatives: int | None = None,
    last: int | None = None,
    device: str = "auto",
) -> PerUser:
    """Returns the ranks of the test items by a run, which it keeps once they are measured.

    The arguments are those of :func:`rank`.

    Raises:
        CheckpointError: The run or its evaluation is damaged.
        ConfigError: An argument is out of range.
    """
    protocol: Mapping[str, object] = {
        "split": "test",
        "ranking": "full" if negatives is None else f"uniform-{negatives}",
        "targets": "first",
        "repeats": "candidate",
        **({} if negatives is None else {"seed": 0}),
        **({} if last is None else {"history": f"last-{last}"}),
    }
    file = run / "eval" / f"{evaluation_name(protocol)}{SUFFIX}"
    if not file.exists():
        weights = weights_of(run)
        opened = load_run(run, device=device)
        found = evaluate(
            opened.model,
            opened.dataset(data_dir=data_dir),
            k=(10, 20),
            negatives=negatives,
            last=last,
        )
        keep_evaluation(found, run, weights=weights)
    return read_per_user(file)
