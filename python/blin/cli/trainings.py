"""How the commands that train many models train them, and show what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blin.cli import options
from blin.cli.config_file import ConfigFile
from blin.cli.output import Output, duration_of

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from blin.data.dataset import Dataset
    from blin.experiments.points import Point
    from blin.experiments.results import Results
    from blin.experiments.side_by_side import Change, Schedule

METRIC = "NDCG@10"
"""The validation metric that chooses."""


@dataclass(frozen=True)
class Trainings:
    """Where many trainings run, and how many at a time.

    Attributes:
        runs_dir: where runs live.
        device: as for ``blin train``.
        jobs: how many side by side.
        threads: of each; None for an even share of the cores.
        output: where it is said how they go.
    """

    runs_dir: Path
    device: str
    jobs: int
    threads: int | None
    output: Output

    @property
    def threads_of_each(self) -> int:
        """Of each training: as many as were asked for, or an even share of the cores."""
        from blin.experiments.side_by_side import cores

        return self.threads or max(1, cores() // self.jobs)

    def directory(self, dataset: Dataset, name: str) -> Path:
        """Returns where the results of a sweep are kept."""
        return self.runs_dir / dataset.name / "sweeps" / name

    def train(
        self, schedule: Schedule, results: Results, dataset: Dataset, *, total: int, name: str
    ) -> None:
        """Trains all of a schedule and keeps the results, after each training those so far.

        Raises:
            KeyboardInterrupt: A stop was asked for, and all is saved.
        """
        from blin.experiments.results import write_results
        from blin.experiments.side_by_side import Place, train_side_by_side

        directory = self.directory(dataset, name)
        logs = directory / "logs"
        place = Place(dataset, self.runs_dir, logs, self.device, self.threads_of_each)
        with _display(self.output, total, self.jobs) as display:

            def on_change(change: Change) -> None:
                display.show(change)
                if results.take(change):
                    write_results(directory, results, dataset, command=sys.argv)

            try:
                train_side_by_side(schedule, place, jobs=self.jobs, on_change=on_change)
            except KeyboardInterrupt as stop:
                what = str(stop) or "stopped, and saved"
                raise type(stop)(f"{what}: the same command goes on") from None

    def train_points(self, points: Sequence[Point], dataset: Dataset, *, name: str) -> Results:
        """Trains points that are known from the start, and returns what they came to."""
        from blin.experiments.results import Results
        from blin.experiments.side_by_side import InOrder

        results = Results(points)
        trials = [trial for point in points for trial in point.trials(dataset)]
        self.train(InOrder(trials), results, dataset, total=len(trials), name=name)
        return results

    def show_plan(self, points: Sequence[Point], dataset: Dataset) -> None:
        """Says which trainings are finished, which go on and which are new."""
        from blin.experiments.outcomes import KnownRuns

        known = KnownRuns(self.runs_dir, dataset)
        rows = []
        for point in points:
            for trial in point.trials(dataset):
                run, outcome = known.find(trial) or (None, None)
                state = "new" if run is None else "goes on" if outcome is None else "finished"
                seed = "" if trial.seed is None else str(trial.seed)
                rows.append((point.name, seed, state, "" if run is None else str(run)))
        columns = ("point", "seed", "state", "run")
        self.output.result([dict(zip(columns, row, strict=True)) for row in rows])
        self.output.table(columns, rows)

    def show(
        self,
        results: Results,
        dataset: Dataset,
        *,
        title: str,
        name: str,
        confidence: float = 0.95,
    ) -> None:
        """Prints the table of results and what failed."""
        from blin.experiments.seeds import interval_note

        columns, rows = results.table(confidence)
        if rows:
            self.output.table(columns, rows, title=f"{dataset.name}: {title}")
            self.output.note(
                f"{interval_note(confidence)}; the best by valid {METRIC}. "
                f"Kept in {self.directory(dataset, name)}"
            )
        for trial, reason in results.failures.items():
            self.output.warn(f"{trial} failed: {reason}")


def many_trainings(command: options.Function) -> options.Function:
    """Adds what commands share that train much, from ``--dry-run`` to ``--json``.

    They are given ``dry_run``, ``seeds``, ``data_dir`` and, made of the others, ``trainings``.
    """

    @click.option(
        "--dry-run",
        is_flag=True,
        help="Train nothing: only say what there is to train.",
    )
    @click.option(
        "--seeds",
        cls=options.Several,
        type=click.IntRange(min=0),
        metavar="NUMBER...",
        help="Train with each of these seeds: --seeds 0,1,2.  [default: 0]",
    )
    @options.count(
        "--jobs", default=1, help="How many trainings side by side, each a process of its own."
    )
    @partial(options.threads, default="all cores, shared among the jobs")
    @options.device
    @options.data_dir
    @options.runs_dir
    @options.output
    @wraps(command)
    def with_trainings(
        *args: Any,
        jobs: int,
        threads: int | None,
        device: str,
        runs_dir: Path,
        output: Output,
        **given: Any,
    ) -> Any:
        trainings = Trainings(runs_dir, device, jobs, threads, output)
        return command(*args, trainings=trainings, **given)

    return with_trainings  # type: ignore[return-value]


def base_of(
    config: str | None, models: Sequence[str], named: Mapping[str, object]
) -> tuple[tuple[str, ...], dict[str, object]]:
    """Returns the models to train, and the settings that a config and options give all of them.

    Raises:
        ConfigError: There is no such config, or it is not for these models.
    """
    file = None if config is None else ConfigFile.read(config)
    if not models:
        models = ((file and file.model) or "blin",)
    base: dict[str, object] = {}
    if file is not None:
        for model in models:
            file.check(model)
        # A run's config.toml has a seed; here they are chosen apart.
        base = {name: value for name, value in file.settings.items() if name != "seed"}
    return tuple(models), {**base, **{k: v for k, v in named.items() if v is not None}}


def exit_if_failed(results: Results) -> None:
    """Ends the command with exit code 1 if a training failed."""
    if results.failures:
        click.get_current_context().exit(1)


@contextmanager
def _display(output: Output, total: int, jobs: int) -> Iterator[Lines]:
    if not output.live:
        yield Lines(output, total)
        return
    from rich.live import Live

    with Live(console=output.notes, transient=True, auto_refresh=False) as live:
        yield LiveTable(output, total, live=live)


@dataclass
class Lines:
    """Prints one line where a training begins or ends."""

    output: Output
    total: int
    done: int = 0
    failed: int = 0

    def show(self, change: Change) -> None:
        """Says what happened to a training."""
        name, outcome = change.trial.name, change.outcome
        if change.state == "begins":
            self.output.note(f"{name}: begins")
        elif change.state == "goes on":
            self.output.note(f"{name}: goes on after epoch {int(change.epoch)}")
        elif change.state == "epoch":
            if self.output.verbose:
                self.output.note(
                    f"{name}: epoch {change.epoch:.0f}/{change.epochs}  "
                    f"valid {METRIC} {change.valid[METRIC]:.4f}"
                )
        elif change.state == "failed":
            self.failed += 1
            self.output.warn(f"{name} failed: {change.reason}")
        elif outcome is not None:
            self.done += 1
            how = f"best after epoch {outcome.best_epoch} of {outcome.epochs}, "
            self.output.note(
                f"{name}: {'finished before' if change.state == 'known' else 'finished'}, "
                f"{how if outcome.epochs else ''}valid {METRIC} {outcome.valid[METRIC]:.4f}, "
                f"{duration_of(outcome.seconds)} ({self.done} of {self.total})"
            )


@dataclass
class LiveTable(Lines):
    """Shows the running trainings in a table, below the lines of those that ended."""

    live: Live = field(kw_only=True)
    running: dict[str, tuple[Change, float]] = field(default_factory=dict)

    def show(self, change: Change) -> None:
        """Moves the table on."""
        name = change.trial.name
        _, best = self.running.get(name, (change, 0.0))
        if change.state in ("begins", "goes on", "step", "epoch"):
            self.running[name] = change, max(best, change.valid.get(METRIC, 0.0))
        else:
            self.running.pop(name, None)
            super().show(change)
        self.live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        left = self.total - self.done - self.failed - len(self.running)
        caption = f"{self.done} finished, {self.failed} failed, {left} to come"
        table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
        for column in ("training", "epoch", f"best valid {METRIC}"):
            table.add_column(column)
        for name, (change, best) in self.running.items():
            epoch = f"{change.epoch:.1f} of {change.epochs}"
            table.add_row(name, epoch, f"{best:.4f}" if best else "")
        return table
