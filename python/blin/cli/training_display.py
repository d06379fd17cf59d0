"""How training looks: a live bar on a terminal, one line per epoch anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blin.cli.output import Output, duration_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from blin.training.trainer import Event, Started, Step, Validated

METRIC = "NDCG@10"
"""The metric shown while training, and at its end beside those of the baselines."""

LEAST_TOLD = 0.05
"""Of the training data, what may be left out without a word."""


@contextmanager
def training_display(output: Output) -> Iterator[TrainingLines]:
    """Yields what shows the events of the trainer."""
    if not output.live:
        yield TrainingLines(output)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.notes, transient=True, expand=True) as progress:
        yield TrainingBar(output, progress=progress)


@dataclass
class TrainingLines:
    """Prints one line per epoch."""

    output: Output
    run: Path | None = None
    epochs: int = 0
    speed: float = 0.0

    def show(self, event: Event) -> None:
        """Prints what concerns the user of one event."""
        from blin.training.trainer import Started, Step, Validated

        if isinstance(event, Started):
            self.started(event)
        elif isinstance(event, Step):
            self.step(event)
        elif isinstance(event, Validated):
            self.validated(event)

    def started(self, event: Started) -> None:
        """Says what is trained and where the run is kept."""
        self.run, self.epochs = event.run, event.epochs
        self.output.note(
            f"{event.run}: {event.parameters:,} parameters, up to {event.epochs} epochs"
        )
        if told := told_of_left_out(event.left_out):
            self.output.note(told)
        if event.finished:
            self.output.note(
                f"finished after epoch {event.epoch}, nothing is left to train; --epochs and "
                "--set patience=N let it go on"
            )
        elif event.epoch or event.step:
            self.output.note(f"goes on after epoch {event.epoch}, step {event.step} of the next")
        if self.output.verbose:
            for name, value in event.settings.items():
                self.output.note(f"  {name} = {value}")

    def step(self, event: Step) -> None:
        """Remembers how fast it goes."""
        self.speed = event.users_per_second

    def validated(self, event: Validated) -> None:
        """Prints the line of an epoch."""
        self.output.note(
            f"epoch {event.epoch}/{self.epochs}  {losses_of(event.losses)}  "
            f"{self.speed:,.0f} users/s  valid {METRIC} {event.metrics[METRIC]:.4f}"
            f"{' (best)' if event.best else ''}  {duration_of(event.seconds)}"
        )
        if self.output.verbose:
            self.output.note(f"  waited {event.data_wait:.3f} s for data")


@dataclass(kw_only=True)
class TrainingBar(TrainingLines):
    """Moves a live bar with every step, besides the line per epoch."""

    progress: Progress
    steps_per_epoch: int = 0
    best: str = ""

    def started(self, event: Started) -> None:
        """Sets the length of the bar."""
        super().started(event)
        self.steps_per_epoch = event.steps_per_epoch
        total = event.epochs * event.steps_per_epoch
        self.task = self.progress.add_task("", total=total, epoch=1, epochs=event.epochs, state="")

    def step(self, event: Step) -> None:
        """Moves the bar on."""
        super().step(event)
        self.progress.update(
            self.task,
            completed=(event.epoch - 1) * self.steps_per_epoch + event.step,
            epoch=event.epoch,
            state=f"{losses_of(event.losses, gap=' ')} {self.speed:,.0f} users/s{self.best}",
        )

    def validated(self, event: Validated) -> None:
        """Prints the line of an epoch and remembers the best metric for the bar."""
        super().validated(event)
        if event.best:
            self.best = f" {METRIC} {event.metrics[METRIC]:.4f}"


def told_of_left_out(share: float) -> str:
    """Returns what to say of the share of the training data that no row holds; "" for little."""
    if share < LEAST_TOLD:
        return ""
    return (
        f"{share:.0%} of the training steps are older than what a row holds, and not learned "
        "from: --set long_sequences=windows takes them in"
    )


def losses_of(losses: Mapping[str, float], *, gap: str = "  ") -> str:
    """Returns the parts of the loss in one line."""
    return gap.join(f"{name} {loss:.3f}" for name, loss in losses.items())
