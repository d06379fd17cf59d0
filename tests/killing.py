"""Commands of blin that are killed where a test says, each in a process of its own.

Starting Python and torch takes seconds, so one process does that and then forks, for each command,
another one that is used up by it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = Path(__file__)

KILLED = -9


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code, or the signal that killed it, below zero.
        writes: how often it was about to change something on disk.
        stderr: what it printed there.
    """

    code: int
    writes: int
    stderr: str


class Commands:
    """Runs commands one after the other."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self.process = process
        self.place = place

    def run(
        self,
        *arguments: object,
        before_write: int | None = None,
        after: float | None = None,
        file_limit: int | None = None,
        memory_limit: int | None = None,
        save_seconds: float | None = None,
    ) -> Done:
        """Runs a command.

        Args:
            arguments: of ``blin``.
            before_write: kill it just before its n-th change on disk, counted from 1.
            after: kill it after so many seconds.
            file_limit: bytes of a file beyond which the system refuses to write.
            memory_limit: bytes that it may take in addition to what it has.
            save_seconds: between two saves of the state.
        """
        request = {
            "arguments": [str(argument) for argument in arguments],
            "place": str(self.place),
            "before_write": before_write,
            "after": after,
            "file_limit": file_limit,
            "memory_limit": memory_limit,
            "save_seconds": save_seconds,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Done(**json.loads(self.process.stdout.readline()))


@contextmanager
def commands(place: Path) -> Iterator[Commands]:
    """Yields what runs commands in a directory."""
    # Not the hashes of the process that runs the tests.
    hashes = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    with subprocess.Popen(
        [sys.executable, str(SERVER)],
        env={**os.environ, "PYTHONHASHSEED": hashes},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Commands(process, place)
        assert process.stdin is not None
        process.stdin.close()


def _serve() -> None:
    import signal
    import tempfile
    import time

    import numpy as np
    import pyarrow as pa
    import torch

    # All that commands import on their way; the first optimiser and the first table import
    # another thousand modules.
    import blin.cli.evaluate
    import blin.cli.preprocess
    import blin.cli.recommend
    import blin.cli.train
    import blin.data.health_page
    import blin.estimator  # noqa: F401

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    pa.table({"count": np.zeros(1)})

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as scratch:
            told = Path(scratch)
            child = os.fork()
            if child == 0:
                _run(request, told)
            if request["after"] is not None:
                time.sleep(request["after"])
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            count, stderr = told / "count", told / "stderr"
            done = {
                "code": os.waitstatus_to_exitcode(status),
                "writes": int(count.read_text()) if count.exists() else 0,
                "stderr": stderr.read_text() if stderr.exists() else "",
            }
        print(json.dumps(done), flush=True)


def _run(request: dict[str, object], told: Path) -> None:
    """Runs one command and ends the process; counts what it is about to change on disk."""
    import resource
    import signal

    place, last = str(request["place"]), request["before_write"]
    os.chdir(place)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(told / name, os.O_WRONLY | os.O_CREAT), stream)
    writes = 0

    def count() -> None:
        nonlocal writes
        writes += 1
        if writes == last:
            os.kill(os.getpid(), signal.SIGKILL)

    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in changes
        if event == "open":
            is_change = bool(int(arguments[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))  # type: ignore[call-overload]
        if is_change and isinstance(arguments[0], str | os.PathLike):
            path = os.path.abspath(os.fspath(arguments[0]))  # noqa: PTH100
            if path.startswith(place):
                count()

    sync = os.fsync

    def counted_sync(descriptor: int) -> None:
        count()
        sync(descriptor)

    os.fsync = counted_sync
    sys.addaudithook(hook)
    if request["file_limit"] is not None:
        limit = int(request["file_limit"])  # type: ignore[call-overload]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if request["memory_limit"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(request["memory_limit"])  # type: ignore[call-overload]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if request["save_seconds"] is not None:
        from blin.training import trainer

        trainer.SAVE_SECONDS = float(request["save_seconds"])  # type: ignore[arg-type]
    from blin.cli import main

    code: object = 1
    try:
        main(request["arguments"])  # type: ignore[arg-type]
    except SystemExit as end:
        code = end.code
    (told / "count").write_text(str(writes))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _serve()
