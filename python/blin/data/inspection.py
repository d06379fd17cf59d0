"""What would be understood of a log, before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blin import _core
from blin.data.prepare import log_parts, time_range

ROLES = ("user", "item", "time", "tie_break", "rating")


def inspect(log: str | Path, **options: Any) -> dict[str, Any]:
    r"""Reads the beginning of a log and returns how it is understood, as JSON can hold it.

    Args:
        log: The log; of a directory, the first part that holds something is looked at.
        options: Those of :func:`blin.data.prepare.preprocess` that say how a log is read:
            ``delimiter``, ``header``, ``log_format``, ``min_rating`` and the columns.

    Raises:
        DataError: The log cannot be used; the message says where and why.
        ConfigError: An option is out of its range.

    Example:
        >>> import pathlib, tempfile
        >>> log = pathlib.Path(tempfile.mkdtemp()) / "visits.csv"
        >>> _ = log.write_text("user,item,time\nann,tea,1700000000\nbob,jam,1700000009\n")
        >>> found = inspect(log)
        >>> found["rows"], found["time"]["unit"], found["columns"][1]
        (2, 's', {'name': 'item', 'role': 'item', 'sample': ['tea', 'jam']})
    """
    parts = log_parts(Path(log))
    path = next((part for part in parts if part.stat().st_size > 0), parts[0])
    if options.get("delimiter") == r"\t":
        options = options | {"delimiter": "\t"}
    found = _core.inspect_log(path, **options)
    layout = found["layout"]
    is_whole = found["bytes_used"] >= found["bytes"]
    rows = found["rows_read"]
    if not is_whole:
        rows = round(rows * found["bytes"] / max(found["bytes_used"], 1))
    roles = {layout[f"{role}_column"]: role for role in ROLES if layout[f"{role}_column"]}
    return {
        "path": str(path),
        "parts": len(parts),
        "bytes": found["bytes"],
        "compression": found["compression"],
        "format": layout["format"],
        "delimiter": layout["delimiter"],
        "header": layout["header"],
        "columns": [
            {
                "name": name,
                "role": roles.get(name),
                "sample": [row[place] for row in found["sample"] if place < len(row)],
            }
            for place, name in enumerate(layout["columns"])
        ],
        "first_records": found["sample"],
        "rows": rows,
        "rows_estimated": not is_whole,
        "rows_looked_at": found["rows_read"],
        "rows_skipped": found["rows_skipped"],
        "rows_without_user": found["rows_without_user"],
        "rows_without_item": found["rows_without_item"],
        "skipped_messages": found["skipped_messages"],
        "time": time_range(found["time"]),
        "time_warning": found["time_warning"],
    }
