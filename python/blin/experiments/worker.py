"""One training in a process of its own: told on stdin what to train, it says on stdout how it goes.

Both are JSON, one object a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from blin.data.dataset import load_dataset
from blin.errors import BlinError, LockedError, Terminated, reason_of
from blin.training import trainer
from blin.training.trainer import Event, Started, Step, Validated

_SECONDS_BETWEEN_STEPS = 0.5


class Speaker:
    """Says how a training goes to whoever started it; if nobody listens any more, stops it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_step = 0.0
        self._unheard = False

    def say(self, about: str, **what: object) -> None:
        """Writes one line."""
        if self._unheard:
            return
        try:
            print(json.dumps({"about": about, **what}), file=self._stream, flush=True)
        except OSError:
            self._unheard = True  # it stops once: while it saves and ends there is nobody to tell
            signal.raise_signal(signal.SIGTERM)

    def tell(self, event: Event) -> None:
        """Says what happens in the training."""
        if isinstance(event, Started):
            self.say("started", run=str(event.run), epoch=event.epoch, epochs=event.epochs)
            self._steps = event.steps_per_epoch
        elif isinstance(event, Validated):
            self.say("epoch", epoch=event.epoch, valid=event.metrics)
        elif isinstance(event, Step) and time.monotonic() > self._next_step:
            self._next_step = time.monotonic() + _SECONDS_BETWEEN_STEPS
            self.say("step", epoch=event.epoch - 1 + event.step / self._steps)


def main() -> int:
    """Trains what stdin says, or goes on with it."""
    told: dict[str, Any] = json.load(sys.stdin)
    sys.argv = told["command"]
    speaker = Speaker(os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints
    signal.signal(signal.SIGTERM, _terminate)
    try:
        speaker.say("finished", run=str(_train(told, speaker)))
        return 0
    except KeyboardInterrupt:
        speaker.say("stopped")
    except LockedError as error:  # it goes on elsewhere: that is no failure
        speaker.say("stopped", reason=str(error))
    except BlinError as error:
        speaker.say("failed", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        named = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        speaker.say("failed", reason=f"{named}{kind}{reason_of(error)}")
    return 1


def _train(told: Mapping[str, Any], speaker: Speaker) -> Path:
    device, data = told["device"], Path(told["dataset"])
    if told["resume"] is not None:
        run = Path(told["resume"])
        return trainer.resume(run, data_dir=data.parent, device=device, on_event=speaker.tell).run
    return trainer.train(
        load_dataset(data),
        model=told["model"],
        settings=told["settings"],
        runs_dir=Path(told["runs_dir"]),
        device=device,
        threads=told["threads"],
        on_event=speaker.tell,
    ).run


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
