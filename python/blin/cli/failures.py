"""From errors to one line on stderr and an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: a full disk, no permission, no memory, a bug |
| 2 | wrong usage: an unknown option, command or setting |
| 3 | bad data: a log, a prepared dataset or an id that cannot be used |
| 4 | a run or a checkpoint that is damaged or does not fit |
| 130 | interrupted by Ctrl-C |
| 143 | ended by SIGTERM |
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn

import click

from blin.errors import BlinError, Terminated, did_you_mean

TRACEBACKS = "blin.tracebacks"
"""Key in a Click context's ``meta`` under which ``-v -v`` asks for tracebacks."""


class ReportingGroup(click.Group):
    """A group of commands whose every failure is one line and a documented exit code."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line and exits with its code."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
            # An id or a path in letters that a terminal lacks is no reason to fail.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with _sigterm_as_exception():
                code = super().main(args, prog_name or "blin", standalone_mode=False, **extra)
        except (click.ClickException, KeyboardInterrupt, OSError) as error:
            code = report(error)
        except click.Abort as error:
            code = report(error.__cause__ or KeyboardInterrupt())
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a subcommand; what it raises is reported here, while its context is known."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if ctx.meta.get(TRACEBACKS) or os.environ.get("BLIN_DEBUG"):
                traceback.print_exc()
            ctx.exit(report(error))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order of the work."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the subcommand, or names the closest one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            hint = did_you_mean(name, known) or f"; the commands are {', '.join(known)}"
            raise click.UsageError(f'no such command "{name}"{hint}', ctx)
        return super().resolve_command(ctx, args)


def report(error: BaseException) -> int:
    """Prints the one line for ``error`` on stderr and returns the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader has left: nobody to tell, and Python must not fail again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, KeyboardInterrupt):
        # Before Python 3.12, whatever is raised while a class is made comes wrapped.
        error = error.__cause__
    message, code = describe(error)
    prefix = "" if isinstance(error, KeyboardInterrupt) else click.style("error: ", fg="red")
    click.echo(prefix + message, err=True, color=False if os.environ.get("NO_COLOR") else None)
    return code


def describe(error: BaseException) -> tuple[str, int]:
    """Returns the one line that tells a user what happened, and the exit code."""
    if isinstance(error, BlinError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return _usage(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted", 143 if isinstance(error, Terminated) else 130
    if isinstance(error, OSError):
        return _os_error(error), 1
    if isinstance(error, MemoryError):
        return "out of memory", 1
    kind = type(error).__name__  # torch is not imported just to fail
    if kind == "OutOfMemoryError":
        return "out of memory on the device: lower --batch-size or choose another --device", 1
    if "DefaultCPUAllocator" in str(error):  # torch has no exception for the memory of a CPU
        return "out of memory", 1
    text = " ".join(f"{kind}: {error}".split())
    return f"{text} (this is a bug in blin; BLIN_DEBUG=1 shows the traceback)", 1


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [name for option in context.command.params for name in option.opts]
        hint = did_you_mean(error.option_name, known)
        message = f'no such option "{error.option_name}"{hint}'
    if context is None:
        return message
    return f"{message.rstrip('.')} (see {context.command_path} --help)"


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Lets SIGTERM unwind the stack as Ctrl-C does, so that what is half-written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated("terminated")
