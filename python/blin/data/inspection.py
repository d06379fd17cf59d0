"""What would be understood of a log, before anything is done with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blin import _core
from blin.data import columnar
from blin.data.prepare import log_parts, time_range

_COLUMNS = ("user_column", "item_column", "time_column", "rating_column")
_DEFAULTS = {
    "on_bad_row": "skip",
    "min_interactions": 1,
    "min_user_interactions": None,
    "min_item_interactions": None,
    "duplicates": "keep",
    "split": "leave-one-out",
    "valid_from": None,
    "test_from": None,
}


def inspect(log: str | Path, **options: Any) -> dict[str, Any]:
    r"""Reads the beginning of a log and returns how it is understood, as JSON can hold it.

    Args:
        log: The log; of a directory, the part that tells most is looked at: the first of more
            than one line, or that holds something.
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
    path = next((part for part in parts if _holds_something(part)), parts[0])
    if options.get("delimiter") == r"\t":
        options = options | {"delimiter": "\t"}
    is_estimate = goes_on = False
    if columnar.is_columnar(path):
        found = _inspect_columns(path, options)
        rows, types, size = found["num_rows"], found["types"], path.stat().st_size
    else:
        found = _core.inspect_log(
            [part for part in parts if not columnar.is_columnar(part)], **options
        )
        path, size = found["path"], found["bytes"]
        rows, types = found["rows_read"], None
        if size == 0:  # a pipe
            size, goes_on = found["bytes_used"], not found["has_ended"]
        is_estimate = goes_on or found["bytes_used"] < size
        if is_estimate:
            rows = round(rows * size / max(found["bytes_used"], 1))
    layout = found["layout"]
    return {
        "path": str(path),
        "parts": len(parts),
        "bytes": size,
        "compression": found["compression"],
        "format": layout["format"],
        "delimiter": layout["delimiter"],
        "header": layout["header"],
        "columns": [
            {
                "name": name,
                "role": found["roles"][place],
                **({} if types is None else {"type": types[place]}),
                "sample": [row[place] for row in found["sample"] if place < len(row)],
            }
            for place, name in enumerate(layout["columns"])
        ],
        "first_records": found["sample"],
        "rows": rows,
        "rows_estimated": is_estimate,
        "goes_on": goes_on,
        "rows_looked_at": found["rows_read"],
        "rows_skipped": found["rows_skipped"],
        "rows_without_user": found["rows_without_user"],
        "rows_without_item": found["rows_without_item"],
        "skipped_messages": found["skipped_messages"],
        "time": time_range(found["time"]),
        "time_warning": found["time_warning"],
    }


def _holds_something(part: Path) -> bool:
    if columnar.is_columnar(part):
        return columnar.has_rows(part)
    return part.stat().st_size > 0


def _inspect_columns(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    columnar.refuse_options_of_text(options)
    columns = {option: options.get(option) for option in (*_COLUMNS, "min_rating")}
    return columnar.inspect_file(path, {**_DEFAULTS, **columns})
