"""What a training says to the process that started it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blin.errors import Terminated
from blin.experiments.worker import Speaker, _terminate
from blin.training.trainer import Started, Step, Validated


def test_it_says_what_happens_and_only_some_of_the_steps() -> None:
    stream = io.StringIO()
    speaker = Speaker(stream)
    speaker.tell(Started(Path("run"), 1, 0, False, 9, 4, 100, 0.0, {}))
    for step in range(1, 5):
        speaker.tell(Step(2, step, {"loss": 1.0}, 10.0))
    speaker.tell(Validated(2, {}, {"NDCG@10": 0.25}, True, 1.0, 0.0))
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert told == [
        {"about": "started", "run": "run", "epoch": 1, "epochs": 9},
        {"about": "step", "epoch": 1.25},
        {"about": "epoch", "epoch": 2, "valid": {"NDCG@10": 0.25}},
    ]


def test_where_nobody_listens_any_more_the_training_is_asked_to_stop() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with open(writing, "w", buffering=1, encoding="utf-8") as stream:  # noqa: PTH123
            speaker = Speaker(stream)
            with pytest.raises(Terminated):
                speaker.say("anything")
            speaker.say("stopped")  # while it ends it is not stopped again
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("LockedError('7 trains it')", {"about": "stopped", "reason": "7 trains it"}),
        ("BlinError('out of luck')", {"about": "failed", "reason": "out of luck"}),
        ("KeyError('x')", {"about": "failed", "reason": "KeyError: 'x'"}),
        ("Terminated()", {"about": "stopped"}),
    ],
)
def test_it_says_how_it_ends(error: str, said: dict[str, str]) -> None:
    code = f"""
import sys
from blin.errors import BlinError, LockedError, Terminated
from blin.experiments import worker
def train(told, speaker): raise {error}
worker._train = train
sys.exit(worker.main())
"""
    told = json.dumps({"command": ["blin"]})
    ended = subprocess.run(
        [sys.executable, "-c", code], input=told, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, json.loads(ended.stdout)) == (1, said), ended.stderr
