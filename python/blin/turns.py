"""Turns that the threads of a process take at what only one of them can do."""

from __future__ import annotations

import os
import threading


class Turn:
    """A lock for ``with``, which the thread that holds it may take again.

    A forked child finds it free: the thread that held it is not there to give it back.
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Waits for the others."""
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        """Lets the next one in."""
        self._lock.release()
