"""Trainings side by side, each in a process of its own; none that is finished is repeated."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol

from blin.data.dataset import Dataset
from blin.errors import BlinError
from blin.experiments.outcomes import KnownRuns, Outcome, outcome_of
from blin.experiments.points import Trial
from blin.files import parse_json
from blin.training.interrupts import deferred_interrupts

_WORKER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from blin.experiments.worker import main; sys.exit(main())"
)
"""Its modules are found where those of this process are, and nowhere else."""

_SECONDS_BETWEEN_LOOKS = 0.2

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Change:
    """What happened to a training.

    Attributes:
        trial: the training.
        state: ``known`` (finished before), ``begins``, ``goes on``, ``step``, ``epoch``,
            ``finished``, ``failed`` or ``stopped``.
        epoch: epochs done, with a fraction within one.
        epochs: the most there will be.
        valid: metrics of the validation, after an epoch.
        outcome: what it came to, where it is finished.
        reason: why it failed.
    """

    trial: Trial
    state: str
    epoch: float = 0.0
    epochs: int = 0
    valid: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str = ""


class Schedule(Protocol):
    """What is to be trained."""

    def next(self) -> Trial | None:
        """Returns the next training, or None when there are no more."""

    def ended(self, trial: Trial, outcome: Outcome | None) -> None:
        """Hears what a training came to; None if it failed. One that was stopped has not ended."""


class InOrder:
    """A schedule of trainings that are known from the start."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._trials: Iterator[Trial] = iter(trials)

    def next(self) -> Trial | None:
        """Returns the next training, or None when there are no more."""
        return next(self._trials, None)

    def ended(self, trial: Trial, outcome: Outcome | None) -> None:
        """Changes nothing."""


@dataclass(frozen=True)
class Place:
    """Where trainings read, write and compute.

    Attributes:
        dataset: what is learned from.
        runs_dir: where runs live.
        logs: a directory for what the processes print; it is there while it holds anything.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of each training; one that goes on has as many as before.
    """

    dataset: Dataset
    runs_dir: Path
    logs: Path
    device: str
    threads: int


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_side_by_side(
    schedule: Schedule, place: Place, *, jobs: int, on_change: Callable[[Change], None]
) -> None:
    """Trains all of a schedule; what fails does not stop the others.

    Args:
        schedule: what is to be trained.
        place: where.
        jobs: how many at a time.
        on_change: told what happens, in the thread of the caller.

    Raises:
        KeyboardInterrupt: A stop was asked for; all trainings have saved and ended. The same call
            goes on.
    """
    known = KnownRuns(place.runs_dir, place.dataset)
    running: dict[str, _Job] = {}
    ended: dict[str, Change] = {}
    news: SimpleQueue[tuple[_Job, dict[str, Any] | None]] = SimpleQueue()

    def end(trial: Trial, change: Change, *, for_good: bool = True) -> None:
        ended[trial.key] = change
        if for_good:
            schedule.ended(trial, change.outcome)
        on_change(change)

    with deferred_interrupts() as stop:
        try:
            while True:
                while not stop and len(running) < jobs:
                    trial = schedule.next()
                    if trial is None:
                        break
                    if trial.key in running:
                        running[trial.key].twins.append(trial)
                        continue
                    if trial.key in ended:
                        before = ended[trial.key]
                        state = "known" if before.outcome else "failed"
                        reason = before.reason
                        end(trial, Change(trial, state, outcome=before.outcome, reason=reason))
                        continue
                    run, outcome = known.find(trial) or (None, None)
                    if outcome is not None:
                        end(trial, Change(trial, "known", outcome=outcome))
                        continue
                    running[trial.key] = _Job(trial, run, place, news)
                if not running:
                    break
                if stop:
                    for job in running.values():
                        job.stop()
                try:
                    job, told = news.get(timeout=_SECONDS_BETWEEN_LOOKS)
                except Empty:
                    continue
                if told is not None:
                    job.hear(told, on_change)
                    continue
                del running[job.trial.key]
                last = job.end()
                stopped = last.state == "stopped"
                if stopped and stop:
                    on_change(last)
                    continue
                if stopped:  # by somebody else, or trained by another process
                    reason = f"{last.reason}; the same command goes on"
                    last = replace(last, state="failed", reason=reason)
                end(job.trial, last, for_good=not stopped)
                for twin in job.twins:
                    state = "known" if last.outcome else "failed"
                    change = Change(twin, state, outcome=last.outcome, reason=last.reason)
                    end(twin, change, for_good=not stopped)
        except KeyboardInterrupt:
            for job in running.values():
                job.kill()
            raise
        except BaseException:
            for job in running.values():
                job.stop()
            for job in running.values():
                job.end()
            raise
    if stop:
        raise stop.exception()


def _log_name(trial: Trial) -> str:
    """Returns the name of a training's log, which no file system finds too long."""
    name = re.sub(r"[^A-Za-z0-9.=-]", "_", trial.name)
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(trial.name.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST_NAME - 9]}-{digest}"
    return f"{name}.log"


class _Job:
    """A process that trains."""

    def __init__(
        self,
        trial: Trial,
        run: Path | None,
        place: Place,
        news: SimpleQueue[tuple[_Job, dict[str, Any] | None]],
    ) -> None:
        self.trial = trial
        self.twins: list[Trial] = []
        self._resumed = run is not None
        self._epochs = 0
        self._last: dict[str, Any] = {}
        self._stopping = False
        self._log = place.logs / _log_name(trial)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "dataset": str(place.dataset.path.resolve()),
            "model": trial.model,
            "settings": trial.settings,
            "runs_dir": str(place.runs_dir),
            "device": place.device,
            "threads": place.threads,
            "resume": None if run is None else str(run),
            "command": sys.argv,
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"OMP_NUM_THREADS": str(place.threads), **os.environ},
                # Ctrl-C is for this process alone, which then tells the others.
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with suppress(BrokenPipeError), stdin:
            stdin.write(json.dumps(told).encode())
        threading.Thread(target=self._listen, args=(stdout, news), daemon=True).start()

    def _listen(
        self, stdout: IO[bytes], news: SimpleQueue[tuple[_Job, dict[str, Any] | None]]
    ) -> None:
        try:
            with stdout:
                for line in stdout:
                    # A library may print before the worker keeps its stdout to itself.
                    with suppress(ValueError):
                        told = parse_json(line)
                        if isinstance(told, dict) and "about" in told:
                            news.put((self, told))
        finally:
            news.put((self, None))

    def hear(self, told: dict[str, Any], on_change: Callable[[Change], None]) -> None:
        """Takes in what the process says."""
        about, epoch = told["about"], told.get("epoch", 0.0)
        if about == "started":
            self._epochs = told["epochs"]
            on_change(
                Change(self.trial, "goes on" if self._resumed else "begins", epoch, self._epochs)
            )
        elif about in ("step", "epoch"):
            valid = told.get("valid", {})
            on_change(Change(self.trial, about, epoch, self._epochs, valid))
        else:
            self._last = told

    def end(self) -> Change:
        """Waits for the end of the process, which has said all, and returns how it ended."""
        code = self._process.wait()
        with suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()
                self._log.parent.rmdir()  # the last of them
        about = self._last.get("about")
        if about == "finished":
            reason = f"{self._last['run']}: expected a finished run, found none"
            try:
                outcome = outcome_of(Path(self._last["run"]))
            except BlinError as error:
                outcome, reason = None, str(error)
            if outcome is not None:
                return Change(self.trial, "finished", outcome=outcome)
            self._last = {"reason": reason}
        if about == "stopped" or (about is None and self._stopping):
            reason = self._last.get("reason", "its process was stopped")
            return Change(self.trial, "stopped", reason=reason)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        reason = self._last.get("reason", f"its process {how}, see {self._log}")
        return Change(self.trial, "failed", reason=reason)

    def stop(self) -> None:
        """Asks the process to save and end; asking again does nothing."""
        if not self._stopping:
            self._stopping = True
            self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.wait()
