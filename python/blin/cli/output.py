"""What the commands print: results on stdout, everything else on stderr.

On a terminal results are tables and progress is a live bar; anywhere else both are plain lines.
With ``--json`` the one JSON value is all that stdout gets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from blin.markup import markdown_row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Output:
    """Where one command says what it has to say."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True

    @cached_property
    def results(self) -> Console:
        """The console of results: stdout."""
        return _console(stderr=False)

    @cached_property
    def notes(self) -> Console:
        """The console of everything else: stderr."""
        return _console(stderr=True)

    @property
    def live(self) -> bool:
        """Whether a progress bar may be drawn."""
        return self.progress and not self.quiet and self.notes.is_terminal

    def note(self, text: str = "") -> None:
        """Says something by the way."""
        if not self.quiet:
            self.notes.print(text)

    def warn(self, text: str) -> None:
        """Says what the user must know even under ``--quiet``."""
        self.notes.print(f"warning: {text}", style="yellow")

    def result(self, value: object) -> None:
        """Prints the one JSON value; does nothing without ``--json``."""
        if self.json:
            text = json.dumps(value, ensure_ascii=False)
            try:
                text.encode(sys.stdout.encoding or "ascii")
            except UnicodeEncodeError:
                text = json.dumps(value)
            click.echo(text)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = ""
    ) -> None:
        """Prints a table of results; numbers are right-aligned."""
        if self.json:
            return
        if title:
            self.results.print(title, style="bold")
        table = _table(columns, rows, ruled=self.results.is_terminal)
        if self.results.is_terminal:
            self.results.print(table)
            return
        with self.results.capture() as captured:
            self.results.print(table)
        for line in captured.get().splitlines():
            click.echo(line.rstrip())

    def markdown(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = ""
    ) -> None:
        """Prints a table of results as Markdown."""
        if title:
            click.echo(f"{title}\n")
        for cells in (columns, ["---"] * len(columns), *rows):
            click.echo(markdown_row(map(text_of, cells)))
        click.echo()

    def facts(self, facts: Mapping[str, object]) -> None:
        """Prints named facts, one a line; those that are None are left out."""
        if self.json:
            return
        width = max(map(len, facts))
        for name, value in facts.items():
            if value is not None:
                self.results.print(f"{name:<{width}}  {text_of(value)}", overflow="ignore")

    def next_commands(self, commands: Mapping[str, str]) -> None:
        """Suggests what to type next, each with what it does."""
        if self.json or self.quiet:
            return
        width = max(map(len, commands))
        self.note()
        self.note("Next:")
        for command, purpose in commands.items():
            self.note(f"  {command:<{width}}   {purpose}")

    @contextmanager
    def bar(self, label: str, *, of_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
        """Yields a function of (done, total) that moves a progress bar; 0 is an unknown total."""
        if not self.live:
            yield lambda done, total: None
            return
        from rich import progress

        amount = progress.DownloadColumn() if of_bytes else progress.MofNCompleteColumn()
        speed = [progress.TransferSpeedColumn()] if of_bytes else []
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            amount,
            *speed,
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self.notes, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)


def text_of(value: object) -> str:
    """Returns a number as people read it: ``12,345`` and ``0.0415``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def size_of(num_bytes: int) -> str:
    """Returns a number of bytes as people read it."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} bytes"


def duration_of(seconds: float) -> str:
    """Returns a time span as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def format_of(layout: Mapping[str, Any]) -> str:
    """Returns how the fields of a log are told apart, as people say it."""
    if layout["format"] in ("jsonl", "columns"):
        return {"jsonl": "JSON lines", "columns": "columns of Parquet or Arrow"}[layout["format"]]
    header = "with" if layout["header"] else "without"
    return (
        f"{layout['format']}, fields separated by {_named(layout['delimiter'])}, {header} a header"
    )


def _named(delimiter: str) -> str:
    return {"\t": "a tab", " ": "a space"}.get(delimiter, f'"{delimiter}"')


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 10_000
    return console


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, ruled: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if ruled else None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) for row in rows)
        # A terminal too narrow may break lines between words, but must not cut numbers.
        words = " ".join([column, *(text_of(row[index]) for row in rows)]).split()
        widest = max(map(cell_len, words), default=0)
        table.add_column(Text(column), justify="right" if numeric else "left", min_width=widest)
    for row in rows:
        table.add_row(*(Text(text_of(value)) for value in row))
    return table
