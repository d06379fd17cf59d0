"""``blin inspect``: what is understood of a log, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from blin.cli import options
from blin.cli.output import Output, format_of, size_of

_SHOWN_CHARACTERS = 30


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@options.log_layout
@options.output
def inspect(log: Path, output: Output, **layout: Any) -> None:
    """Show how a log is understood, without doing anything.

    Reads the beginning of LOG and shows its format, its columns with their types (of Parquet and
    Arrow), their first values and the role each was given, the unit and range of the times, the
    number of rows, and the options that correct what was guessed wrong. They can be tried here and
    then given to blin preprocess.
    """
    from blin.data import inspection

    found = inspection.inspect(log, **layout)
    output.result(found)
    for message in found["skipped_messages"]:
        output.warn(f"cannot be read: {message}")
    if found["time_warning"] is not None:
        output.warn(found["time_warning"])
    output.facts(_understood(found))
    if found["columns"]:
        types = ("type",) if "type" in found["columns"][0] else ()
        output.table(
            ("column", *types, "role", "first values"), [_column(c) for c in found["columns"]]
        )
    suggestions = {
        f"blin preprocess {log}": "prepare it so, with the same options",
        "--user-column, --item-column, --time-column, --rating-column": "choose other columns",
    }
    if found["format"] != "columns":
        suggestions["--format, --delimiter, --header or --no-header"] = "read it in another way"
    output.next_commands(suggestions)


def _understood(found: Mapping[str, Any]) -> dict[str, str | None]:
    compression = "" if found["compression"] == "none" else f", {found['compression']}"
    parts = "" if found["parts"] == 1 else f", of {found['parts']} parts"
    time = found["time"]
    beyond = "more than " if found["goes_on"] else ""
    about = "about " if found["rows_estimated"] and not beyond else ""
    rows = f"{beyond}{about}{found['rows']:,}"
    bad = {
        "unreadable": found["rows_skipped"],
        "without a user": found["rows_without_user"],
        "without an item": found["rows_without_item"],
    }
    if any(bad.values()):
        rows += f"; of the first {found['rows_looked_at']:,}"
        rows += "".join(f", {count:,} {why}" for why, count in bad.items() if count)
    return {
        "log": f"{found['path']} ({beyond}{size_of(found['bytes'])}{compression}{parts})",
        "format": format_of(found),
        "rows": rows,
        "times": _times(time, is_part=found["goes_on"] or found["rows_looked_at"] < found["rows"]),
        "first": None if found["columns"] else " ".join(found["first_records"][0]),
    }


def _times(time: Mapping[str, Any] | None, *, is_part: bool) -> str:
    if time is None:
        return "none: the order of the log counts"
    first, last = (time[f"{end}_date"] or time[end] for end in ("first", "last"))
    return f"{first} to {last}{' in the first rows' if is_part else ''}, in {time['unit']}"


def _column(column: Mapping[str, Any]) -> tuple[str, ...]:
    values = (
        value if len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 1] + "…"
        for value in column["sample"]
    )
    role = (column["role"] or "").replace("_", "-")
    types = (column["type"],) if "type" in column else ()
    shown = ", ".join(" ".join(value.split()) for value in values)
    return column["name"], *types, role, shown
