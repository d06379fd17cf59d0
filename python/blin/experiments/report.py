"""What runs have to show, gathered from their directories for one page.

Metrics stand in one table only where their passports, the protocols they were measured by, are the
same to the last entry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from blin.checkpoint import (
    TIMES,
    WEIGHTS_FILE,
    count_parameters,
    open_run_dataset,
    read_run_config,
)
from blin.errors import BlinError, CheckpointError, reason_of
from blin.evaluation.per_user import SUFFIX, PerUser, read_per_user
from blin.evaluation.significance import clearly_best
from blin.experiments.outcomes import complete_settings
from blin.experiments.points import key_of, telling_settings, text_of
from blin.experiments.seeds import Interval
from blin.files import parse_json, read_bounded
from blin.models import MODELS
from blin.training.distillation import told_of
from blin.training.run_directory import read_sittings
from blin.training.trainer import all_settings

LEVEL = 0.05
"""Of significance, for a best value to be marked."""

AGREEMENT = "kl_weight"
"""The setting that is λ, the weight of the agreement between two views."""

_LIMIT = 64 << 20
"""Bytes of a file of a run, enough for the history of some 100,000 epochs."""

Progress = Callable[[int, int], None]


class Epoch(NamedTuple):
    """A line of a history.

    Attributes:
        number: 1, 2, …; 0 for a model that learns by counting.
        losses: the parts of the training loss.
        valid: the metrics of the validation items.
        seconds: since the training began.
    """

    number: int
    losses: dict[str, float]
    valid: dict[str, float]
    seconds: float


class Evaluated(NamedTuple):
    """An evaluation of a run.

    Attributes:
        name: of its file, such as ``test``.
        protocol: its passport.
        metrics: by name.
        intervals: of the metrics that have one.
        groups: kind → group → ``users``, ``targets`` and ``metrics``.
        versions: of what computed it.
    """

    name: str
    protocol: dict[str, Any]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    groups: dict[str, dict[str, dict[str, Any]]]
    versions: dict[str, Any]


@dataclass(frozen=True)
class ReportedRun:
    """What a run directory says.

    Attributes:
        letter: A, B, …: what it is called on the page.
        path: the directory.
        config: ``config.toml``.
        sittings: what trained it, as :func:`read_sittings` returns them.
        history: its epochs.
        parameters: numbers that the model learned; None if it was not saved yet.
        evaluations: all that are kept in it.
    """

    letter: str
    path: Path
    config: dict[str, Any]
    sittings: tuple[dict[str, Any], ...]
    history: tuple[Epoch, ...]
    parameters: int | None
    evaluations: tuple[Evaluated, ...]

    @property
    def name(self) -> str:
        """The end of its path, which is the same wherever the runs are."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.config["model"])

    @property
    def label(self) -> str:
        """The name of the model, with that of its teacher's if it has one."""
        teacher = told_of(self.config).get("teacher")
        return self.model if teacher is None else f"{self.model} from {teacher}"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings."""
        return self.config["settings"]  # type: ignore[no-any-return]

    def trained_by(self, what: str) -> list[str]:
        """Returns what of a kind, such as ``device``, trained it: one, or several that took turns.

        Args:
            what: an entry of a sitting.
        """
        known = self.config.get(what, "unknown")
        return list(dict.fromkeys(str(sitting.get(what, known)) for sitting in self.sittings))

    @cached_property
    def telling_settings(self) -> dict[str, Any]:
        """The settings in which runs differ by more than chance.

        Of a distilled run, what it was distilled from and how is told, too.
        """
        try:
            settings = complete_settings(self.config)
        except BlinError:
            settings = self.settings
        return telling_settings(settings) | told_of(self.config)

    @cached_property
    def epochs(self) -> int:
        """How many epochs it was trained for; 0 for a model that learns by counting."""
        return self.history[-1].number if self.history else 0

    @cached_property
    def best_epoch(self) -> int:
        """The epoch with the best validation, as training chooses it; 0 without any."""
        if not self.history:
            return 0
        return max(self.history, key=lambda epoch: epoch.valid.get("NDCG@10", -1.0)).number

    @property
    def seconds(self) -> float | None:
        """Of the whole training with its validations; None before the first epoch's end."""
        return self.history[-1].seconds if self.history else None

    @property
    def seconds_per_epoch(self) -> float | None:
        """On average; None for a model that learns by counting."""
        return self.history[-1].seconds / self.epochs if self.epochs else None


@dataclass(frozen=True)
class Table:
    """Evaluations by one protocol.

    Attributes:
        name: of the evaluations.
        protocol: the passport of all of them.
        rows: each run with its evaluation.
        best: metric → the letter of the run that is better than all others by more than chance.
        untested: why nothing could be tested; None where it was.
    """

    name: str
    protocol: dict[str, Any]
    rows: tuple[tuple[ReportedRun, Evaluated], ...]
    best: dict[str, str]
    untested: str | None

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, in the order in which they come."""
        return list(dict.fromkeys(name for _, found in self.rows for name in found.metrics))

    def metric(self, name: str) -> str | None:
        """Returns what a metric, such as ``NDCG@10``, is called under this protocol."""
        return next((each for each in self.metrics if each.partition("[")[0] == name), None)


class Seeds(NamedTuple):
    """Runs that differ in their seed alone.

    Attributes:
        runs: all of them.
        seeds: how many they have.
        intervals: metric → its mean over the seeds, with the interval of that mean.
    """

    runs: tuple[ReportedRun, ...]
    seeds: int
    intervals: dict[str, Interval]


class Sweep(NamedTuple):
    """Runs that differ in λ, the weight of the agreement, and perhaps in their seed.

    Attributes:
        metric: what was measured.
        runs: all of them.
        values: λ → the metric of each of its seeds; λ ascending.
    """

    metric: str
    runs: tuple[ReportedRun, ...]
    values: dict[float, list[float]]


@dataclass(frozen=True)
class DatasetReport:
    """All runs on the same sequences.

    Attributes:
        name: of the dataset.
        fingerprint: of its sequences and their split.
        runs: in the order given.
        tables: one for each passport.
        metadata: ``dataset.json``; None where the dataset is not to be had.
        missing: why it is not.
    """

    name: str
    fingerprint: str
    runs: tuple[ReportedRun, ...]
    tables: tuple[Table, ...]
    metadata: Mapping[str, Any] | None
    missing: str | None

    @cached_property
    def differences(self) -> dict[str, str]:
        """Letter → the settings that are not its model's defaults, where runs are not alike."""
        told = {run.letter: run.telling_settings for run in self.runs}
        names = dict.fromkeys(name for settings in told.values() for name in settings)
        values = {
            name: {text_of(each[name]) if name in each else None for each in told.values()}
            for name in names
        }
        defaults = {
            run.letter: all_settings(run.model, MODELS[run.model].defaults)
            for run in self.runs
            if run.model in MODELS
        }
        return {
            letter: ", ".join(
                f"{name} = {text_of(value)}"
                for name, value in settings.items()
                if len(values[name]) > 1 and value != defaults.get(letter, {}).get(name)
            )
            for letter, settings in told.items()
        }


def letter_of(place: int) -> str:
    """Returns A, B, …, Z, A1, B1, … for 0, 1, …."""
    turn, letter = divmod(place, 26)
    return chr(ord("A") + letter) + (str(turn) if turn else "")


def gather(
    paths: Sequence[Path],
    *,
    data_dir: Path | None = None,
    resamples: int = 9999,
    on_progress: Progress | None = None,
) -> list[DatasetReport]:
    """Reads runs and tests which of their metrics are best by more than chance.

    Args:
        paths: run directories.
        data_dir: where their datasets are, if they have moved.
        resamples: of each permutation test.
        on_progress: called with the tests done and the tests to do.

    Returns:
        A report for each dataset, in the order in which they come.

    Raises:
        CheckpointError: A run is damaged.
    """
    runs = [read_run(path, letter_of(place)) for place, path in enumerate(paths)]
    datasets: dict[tuple[str, str], list[ReportedRun]] = {}
    for run in runs:
        key = (run.config["dataset"], run.config["fingerprint"])
        datasets.setdefault(key, []).append(run)
    groups = {key: _by_passport(members) for key, members in datasets.items()}
    total = sum(len(_shared(rows)) for tables in groups.values() for rows in tables)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    reports = []
    for (name, fingerprint), members in datasets.items():
        metadata, missing = _metadata(members, data_dir)
        tables = tuple(_table(rows, resamples, advance) for rows in groups[(name, fingerprint)])
        reports.append(DatasetReport(name, fingerprint, tuple(members), tables, metadata, missing))
    return reports


def read_run(path: Path, letter: str) -> ReportedRun:
    """Reads what a run directory says.

    Raises:
        CheckpointError: A file is damaged.
    """
    config = read_run_config(path)
    saved = (path / "model" / WEIGHTS_FILE).exists()
    return ReportedRun(
        letter=letter,
        path=path,
        config=config,
        sittings=tuple(read_sittings(path)),
        history=_read_history(path / "history.jsonl"),
        parameters=count_parameters(path / "model") if saved else None,
        evaluations=tuple(
            _read_evaluation(file) for file in sorted((path / "eval").glob("[!.]*.json"))
        ),
    )


def seeds_of(table: Table) -> list[Seeds]:
    """Returns the rows of a table with those together that differ in their seed alone.

    Of several runs of one seed the first counts. Metrics that one of them has not are left out.
    """
    members: dict[str, list[tuple[ReportedRun, Evaluated]]] = {}
    for run, found in table.rows:
        key = key_of(run.model, {**run.telling_settings, TIMES: run.config.get(TIMES)})
        members.setdefault(key, []).append((run, found))
    groups = []
    for rows in members.values():
        told: dict[object, Evaluated] = {}
        for run, found in rows:
            told.setdefault(run.settings.get("seed"), found)
        values = {
            metric: [found.metrics[metric] for found in told.values()]
            for metric in table.metrics
            if all(metric in found.metrics for found in told.values())
        }
        groups.append(
            Seeds(
                tuple(run for run, _ in rows),
                len(told),
                {metric: Interval.of(each) for metric, each in values.items()},
            )
        )
    return groups


def sweeps_of(table: Table, metric: str) -> list[Sweep]:
    """Returns the rows of a table that differ in λ and perhaps in their seed, if any do.

    Of several runs of one λ and seed the first counts.

    Args:
        table: evaluations by one protocol.
        metric: such as ``NDCG@10``.
    """
    name = table.metric(metric)
    members: dict[str, list[tuple[float, ReportedRun, float]]] = {}
    for run, found in table.rows:
        weight = run.settings.get(AGREEMENT)
        if name is None or name not in found.metrics or not isinstance(weight, (int, float)):
            continue
        module = MODELS[run.model].module.__name__ if run.model in MODELS else run.model
        rest = {k: v for k, v in run.telling_settings.items() if k != AGREEMENT}
        rest[TIMES] = run.config.get(TIMES)
        key = key_of(module, rest)
        members.setdefault(key, []).append((float(weight), run, found.metrics[name]))
    found_sweeps = []
    for rows in members.values():
        values: dict[float, dict[object, float]] = {}
        for weight, run, value in sorted(rows, key=lambda row: row[0]):
            values.setdefault(weight, {}).setdefault(run.settings.get("seed"), value)
        if len(values) > 1 and name is not None:
            told = {weight: list(seeds.values()) for weight, seeds in values.items()}
            found_sweeps.append(Sweep(name, tuple(run for _, run, _ in rows), told))
    return found_sweeps


def _by_passport(runs: Iterable[ReportedRun]) -> list[list[tuple[ReportedRun, Evaluated]]]:
    """Returns the evaluations by passport: the test first, and the usual protocol before others."""
    found: dict[str, list[tuple[ReportedRun, Evaluated]]] = {}
    for run in runs:
        for each in run.evaluations:
            found.setdefault(json.dumps(each.protocol, sort_keys=True), []).append((run, each))

    def place(rows: list[tuple[ReportedRun, Evaluated]]) -> tuple[bool, bool, bool]:
        protocol = rows[0][1].protocol
        return (
            protocol.get("split") != "test",
            protocol.get("ranking") != "full",
            "history" in protocol,
        )

    return sorted(found.values(), key=place)


def _table(
    rows: Sequence[tuple[ReportedRun, Evaluated]], resamples: int, advance: Callable[[], None]
) -> Table:
    best: dict[str, str] = {}
    untested = None
    names = _shared(rows)
    try:
        ranks: dict[str, PerUser] = {
            run.letter: read_per_user(run.path / "eval" / f"{each.name}{SUFFIX}")
            for run, each in (rows if names else ())
        }
        for name in names:
            letter = clearly_best(ranks, name.partition("[")[0], level=LEVEL, resamples=resamples)
            if letter is not None:
                best[name] = letter
            advance()
    except BlinError as error:
        untested = str(error)
    return Table(rows[0][1].name, rows[0][1].protocol, tuple(rows), best, untested)


def _shared(rows: Sequence[tuple[ReportedRun, Evaluated]]) -> list[str]:
    """Returns the metrics to be tested: those that all of two or more rows have."""
    if len(rows) < 2:
        return []
    return [name for name in rows[0][1].metrics if all(name in each.metrics for _, each in rows)]


def _metadata(
    runs: Iterable[ReportedRun], data_dir: Path | None
) -> tuple[Mapping[str, Any] | None, str | None]:
    """Returns the ``dataset.json`` of what runs were trained on, or why it cannot be shown."""
    missing = None
    for run in runs:
        try:
            metadata = open_run_dataset(run.path, run.config, data_dir=data_dir).metadata
        except BlinError as error:
            missing = missing or str(error)
            continue
        if "health" in metadata:
            return metadata, None
        missing = f"{run.config['dataset']}: its dataset.json has no health: prepare it again"
    return None, missing


def _read_history(file: Path) -> tuple[Epoch, ...]:
    if not file.exists():
        return ()
    try:
        records = [parse_json(line) for line in read_bounded(file, limit=_LIMIT).splitlines()]
        return tuple(
            Epoch(
                int(record["epoch"]),
                _numbers(record["losses"]),
                _numbers(record["valid"]),
                _numbers({"seconds": record["seconds"]})["seconds"],
            )
            for record in records
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as cause:
        raise CheckpointError(
            f"{file}: expected a line of JSON for each epoch, found: {reason_of(cause)}"
        ) from cause


def _read_evaluation(file: Path) -> Evaluated:
    record = _read_object(file)
    try:
        protocol, groups = record["protocol"], record.get("groups", {})
        return Evaluated(
            file.stem,
            {str(name): value for name, value in protocol.items()},
            _numbers(record["metrics"]),
            {
                str(name): (float(low), float(high))
                for name, (low, high) in record.get("intervals", {}).items()
            },
            {
                str(kind): {
                    str(name): {
                        "users": int(group["users"]),
                        "targets": int(group["targets"]),
                        "metrics": _numbers(group["metrics"]),
                    }
                    for name, group in members.items()
                }
                for kind, members in groups.items()
            },
            dict(record.get("versions", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as cause:
        raise CheckpointError(
            f"{file}: expected metrics and their protocol, found: {reason_of(cause)}: "
            "run blin evaluate again"
        ) from cause


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_bounded(file, limit=_LIMIT))
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{file}: expected JSON, found: {reason_of(cause)}") from cause
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object, found {content!r:.100}")
    return content


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in values.items()}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return numbers
