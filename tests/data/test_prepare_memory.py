"""A memory limit sends rows to the disk and changes not a byte of the result."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core
from blin.data import memory
from blin.data.prepare import preprocess
from blin.errors import BlinError, ConfigError, DataError
from prepared import raw_ids, raw_sequences, raw_timestamps
from reference import ingest
from strategies import rows

ARRAYS = ("items", "offsets", "timestamps", "splits", "item_counts")
TIMES = ["{}", "{}.5", "{}000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def read(logs: list[Path], limit: int, **options: Any) -> dict[str, Any]:
    """Reads with a limit; if it is less than the least that there is a use for, with that."""
    aside = logs[0].parent / "aside"
    while True:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            result = _core.read_log(logs, spill=(limit, 0, aside), **options)
        except ConfigError as error:
            least = re.search(r"memory_limit: expected at least (\d+) bytes", str(error))
            if least is None:
                raise
            assert int(least.group(1)) > limit
            limit = int(least.group(1))
            continue
        assert {file.name for file in aside.iterdir()} == {
            f"{key}.npy" for key in result["files"]
        }
        for key, path in result["files"].items():
            result[key] = np.load(path)
        return result


def content_of(result: dict[str, Any]) -> dict[str, Any]:
    arrays = [result[key] for key in ARRAYS] + [*result["user_ids"], *result["item_ids"]]
    return {
        "arrays": [None if array is None else (array.dtype, array.tolist()) for array in arrays],
        "report": result["report"],
    }


def write(folder: Path, parts: list[str]) -> list[Path]:
    paths = []
    for number, part in enumerate(parts):
        path = folder / f"part-{number}.csv"
        path.write_text(part)
        paths.append(path)
    return paths


def outcome_of(read: Any) -> Any:
    try:
        return content_of(read())
    except (ConfigError, DataError) as error:
        return str(error)


@given(
    interactions=rows(),
    seconds=st.lists(st.integers(-3, 3), min_size=60, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    styles=st.lists(st.sampled_from(TIMES), min_size=5, max_size=5),
    columns=st.sampled_from(["user,item", "user,item,time", "user,item,day,time"]),
    limit=st.integers(1, 8000),
    options=st.fixed_dictionaries(
        {
            "min_user_interactions": st.integers(1, 4),
            "min_item_interactions": st.integers(1, 4),
            "duplicates": st.sampled_from(["keep", "first", "last"]),
            "threads": st.sampled_from([1, 3]),
        },
        optional={
            "split": st.just("temporal"),
        },
    ),
)
def test_any_limit_gives_the_same_bytes(
    folder, interactions, seconds, cuts, styles, columns, limit, options
):
    """The parts of a log are as many blocks, after each of which rows may go to the disk."""
    bounds = [0, *sorted(cuts), 60]
    parts = []
    for start, end, style in zip(bounds, bounds[1:], styles, strict=False):
        lines = [columns]
        for (user, item, moment), second in list(zip(interactions, seconds, strict=False))[
            start:end
        ]:
            fields = {"user": user, "item": item, "time": style.format(moment), "day": str(second)}
            lines.append(",".join(fields[name] for name in columns.split(",")))
        parts.append("\n".join(lines) + "\n")
    logs = write(folder, parts)
    if "day" in columns:
        options = {**options, "time_column": "day,time"}
    expected = outcome_of(lambda: _core.read_log(logs, **options))
    assert outcome_of(lambda: read(logs, limit, **options)) == expected
