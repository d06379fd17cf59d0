"""Stopping between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from blin.errors import Terminated


class StopRequest:
    """Remembers that the user or the system asked for a stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    def exception(self) -> KeyboardInterrupt:
        """Returns what to raise once all is saved."""
        return Terminated() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def deferred_interrupts() -> Iterator[StopRequest]:
    """Yields a request that Ctrl-C and SIGTERM set; a second signal acts at once.

    Signals belong to the main thread; in any other, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: FrameType | None) -> None:
        if request:
            raise type(request.exception())("stopped at once, without saving")
        request.signal = number

    try:
        for number in before:
            signal.signal(number, remember)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
