"""What blin raises when the input, a setting or a file is not as it should be.

Every message is one line that names the place, what was expected and what was found. The command
line prints that line and exits with the class's ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BlinError(Exception):
    """Something a user can mend; the base of all errors raised on purpose."""

    exit_code = 1


class ConfigError(BlinError, ValueError):
    """An option or a configuration key is unknown or out of range."""

    exit_code = 2


class DataError(BlinError, ValueError):
    """A log or a prepared dataset cannot be used."""

    exit_code = 3


class CheckpointError(BlinError):
    """A run directory, a checkpoint or a saved model is damaged or does not fit."""

    exit_code = 4


class LockedError(BlinError):
    """Another process holds what this one needs; nothing is wrong with it."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; handled like Ctrl-C, with its own exit code."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``; did you mean "x"?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def reason_of(cause: BaseException) -> str:
    """Returns why something failed, in one line of at most 200 characters."""
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(reason.split())[:200]
