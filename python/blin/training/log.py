"""``log.txt``: what became of a run, each thing with its time, for people to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from blin.errors import Terminated

LOG_FILE = "log.txt"


@contextmanager
def logged(run: Path) -> Iterator[Callable[[str], None]]:
    """Yields what adds a line to a run's log; what ends the sitting early becomes its last line.

    Args:
        run: the run directory.
    """

    def write(text: str) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with (run / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")

    try:
        yield write
    except BaseException as cause:
        # What could not be done matters more than that the log cannot say so.
        with suppress(OSError):
            write(_ending(cause))
        raise


def _ending(cause: BaseException) -> str:
    reason = " ".join(str(cause).split())
    if isinstance(cause, KeyboardInterrupt):
        signal = "SIGTERM" if isinstance(cause, Terminated) else "Ctrl-C"
        return f"stopped by {signal}{f': {reason}' if reason else ''}"
    return f"failed: {reason or type(cause).__name__}"
