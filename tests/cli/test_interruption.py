"""Ctrl-C ends ``blin preprocess`` within a second, whatever it waits for, and leaves nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pipes and signals there")

HEADER = "user,item,time\n"
ROWS = "".join(f"u{n % 9},i{n % 7},{n}\n" for n in range(60_000))

#: Says on stderr when the command begins and when the signal is heard.
START = """
import faulthandler, signal, sys
faulthandler.dump_traceback_later(240, exit=True)
from blin.cli import main
import blin.data.prepare  # what takes long to load
interrupt = signal.getsignal(signal.SIGINT)
def heard(number, frame):
    print("heard", file=sys.stderr, flush=True)
    interrupt(number, frame)
signal.signal(signal.SIGINT, heard)
print("begins", file=sys.stderr, flush=True)
main(sys.argv[1:])
"""


@contextmanager
def preprocessing(log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = ["preprocess", str(log), "--data-dir", str(log.parent / "data"), *options]
    process = subprocess.Popen(
        [sys.executable, "-c", START, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        while process.stderr.readline() != "begins\n":
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate()


def open_once_read(pipe: Path, process: subprocess.Popen[str]) -> int:
    """Opens a pipe as soon as the process reads from it."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or process.poll() is not None:
                raise
            time.sleep(0.01)


def assert_stops(process: subprocess.Popen[str], folder: Path) -> None:
    """Far more than a second is given, for machines that are busy with other things."""
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (130, "")
    # Before the command itself begins, Click ends the line first.
    assert stderr.replace("\n\n", "\n") == "heard\ninterrupted\n"
    assert not (folder / "data").exists() or not list((folder / "data").iterdir())


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path / "pipe.csv"


@pytest.mark.parametrize("patience", [0.2, 0.7])
def test_a_pipe_that_nobody_writes_to(pipe: Path, patience: float) -> None:
    with preprocessing(pipe) as process:
        time.sleep(patience)
        assert_stops(process, pipe.parent)


@pytest.mark.parametrize("content", ["", "us", HEADER, HEADER + ROWS, HEADER + '"u' + ROWS])
def test_a_pipe_that_stalls(pipe: Path, content: str) -> None:
    with preprocessing(pipe) as process:
        descriptor = open_once_read(pipe, process)
        try:
            os.write(descriptor, content.encode()[: 1 << 16])
            time.sleep(0.3)
            assert_stops(process, pipe.parent)
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.3])
def test_any_moment_of_the_work(tmp_path: Path, delay: float) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "".join(f"u{n * 7 % 99_991},i{n % 999},{n}\n" for n in range(600_000)))
    with preprocessing(log) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    left = [path.name for path in (tmp_path / "data").glob("*")]
    if left:
        # The signal came when all was done.
        assert left == ["log"] and (tmp_path / "data" / "log" / "dataset.json").exists()
    else:
        assert (process.returncode, stdout) == (130, "")
        assert stderr.splitlines()[-1] == "interrupted"
