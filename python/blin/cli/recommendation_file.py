"""Writes recommendations to a Parquet or CSV file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from blin.errors import BlinError
from blin.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa


def write_tables(tables: Iterable[pa.Table], path: Path) -> int:
    """Writes the tables one after the other and returns the number of rows.

    The file takes its name only when it is complete.
    """
    import pyarrow.csv
    import pyarrow.parquet

    open_writer = pyarrow.csv.CSVWriter if path.suffix == ".csv" else pyarrow.parquet.ParquetWriter
    rows = 0
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            remaining = iter(tables)
            table = next(remaining)
            with open_writer(file, table.schema) as writer:
                while table is not None:
                    writer.write_table(table)
                    rows += table.num_rows
                    table = next(remaining, None)
    except OSError as error:
        raise BlinError(f"{path}: not written: {error.strerror or error}") from error
    return rows
