"""What is said of a log before it is read is what is found when it is."""

from __future__ import annotations

import gzip
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from blin.data.inspection import inspect
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError


def rows(count: int, *, quote: str = "") -> str:
    draw = random.Random(5)
    lines = [
        f"u{draw.randrange(9999)},{quote}i\n{draw.randrange(999)}{quote},{1_600_000_000 + n}\n"
        if quote
        else f"u{draw.randrange(9999)},i{draw.randrange(999)},{1_600_000_000 + n}\n"
        for n in range(count)
    ]
    return "user,item,time\n" + "".join(lines)


def test_a_small_log_is_described_whole(tmp_path):
    log = tmp_path / "log.tsv"
    log.write_text("when\tcustomer\tsku\tnote\n2024-05-01\tann\ttea\tx\n2024-05-03\tNA\tjam\t\n")
    found = inspect(log)
    assert found["columns"] == [
        {"name": "when", "role": "time", "sample": ["2024-05-01", "2024-05-03"]},
        {"name": "customer", "role": "user", "sample": ["ann", "NA"]},
        {"name": "sku", "role": "item", "sample": ["tea", "jam"]},
        {"name": "note", "role": None, "sample": ["x", ""]},
    ]
    assert (found["format"], found["delimiter"], found["header"]) == ("table", "\t", True)
    assert (found["rows"], found["rows_estimated"], found["rows_without_user"]) == (2, False, 1)
    assert found["time"]["first_date"] == "2024-05-01T00:00:00Z"
    assert found["bytes"] == log.stat().st_size


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_rows_of_a_large_log_are_estimated(tmp_path, compression, quote):
    count = 700_000
    content = rows(count, quote=quote).encode()
    compress = {
        "none": bytes,
        "gzip": lambda text: gzip.compress(text, 1),
        "zstd": lambda text: pa.Codec("zstd").compress(text, asbytes=True),
    }
    log = tmp_path / "log"
    log.write_bytes(compress[compression](content))
    found = inspect(log)
    assert found["compression"] == compression
    assert found["rows_estimated"]
    assert found["rows_looked_at"] < count
    assert abs(found["rows"] - count) < 0.1 * count


@pytest.mark.parametrize(
    "content",
    [
        "ann::tea::5::1700000000\nbob::jam::4::1700000009\n",
        '{"item": "tea", "user": "ann", "x": []}\n' * 3,
        "u1 i3 i9 i4\nu2 i3\n",
        rows(20, quote='"'),
    ],
)
def test_what_is_said_is_what_is_done(tmp_path: Path, content: str):
    log = tmp_path / "log.txt"
    log.write_text(content)
    found = inspect(log)
    metadata = preprocess(log, data_dir=tmp_path, min_interactions=1).metadata
    layout = metadata["layout"]
    assert all(found[key] == layout[key] for key in ("format", "delimiter", "header"))
    assert [column["name"] for column in found["columns"]] == layout["columns"]
    roles = {column["role"]: column["name"] for column in found["columns"] if column["role"]}
    assert roles == {
        role: layout[f"{role}_column"]
        for role in ("user", "item", "time", "rating")
        if layout[f"{role}_column"]
    }
    assert (found["rows"], found["time"]) == (metadata["rows_read"], metadata["time"])


def test_an_option_that_is_tried_shows_in_the_roles(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("who,what,day,moment\nann,tea,1,2\n")
    found = inspect(log, user_column="who", item_column="2", time_column="day,moment")
    assert [column["role"] for column in found["columns"]] == ["user", "item", "time", "tie_break"]
    with pytest.raises(DataError, match="expected a column of users"):
        inspect(log)


def test_of_a_directory_the_first_part_with_content_is_shown(tmp_path):
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "part-1.csv").write_text("user,item\nann,tea\n")
    found = inspect(tmp_path)
    assert (found["parts"], found["path"]) == (2, str(tmp_path / "part-1.csv"))


def test_of_a_directory_a_part_of_more_than_its_header_is_shown(tmp_path):
    (tmp_path / "part-0.csv").write_text("user,item,moment\n")
    (tmp_path / "part-1.csv.gz").write_bytes(
        gzip.compress(b"user,item,moment\nann,tea,1700000009\n")
    )
    found = inspect(tmp_path)
    assert (found["parts"], found["path"]) == (2, str(tmp_path / "part-1.csv.gz"))
    assert found["columns"][2]["role"] == "time"


def test_roles_are_of_columns_and_not_of_their_names(tmp_path):
    log = tmp_path / "log.csv"
    for names, expected in (
        ("id,id,time", ["user", "item", "time"]),
        (",item,time", ["user", "item", "time"]),
        ("time,item,time", ["user", "item", "time"]),
    ):
        log.write_text(f"{names}\n5,tea,1700000000\n")
        columns = ["1", "2", "3"]
        given = dict(zip(("user_column", "item_column", "time_column"), columns, strict=True))
        found = inspect(log, **given)
        assert [column["role"] for column in found["columns"]] == expected


@pytest.mark.parametrize("magic", ["BZhang", "PAR1", "ARROW1"])
def test_an_id_may_begin_as_other_kinds_of_file_do(tmp_path, magic):
    log = tmp_path / "log.csv"
    log.write_text(f"{magic},tea,1700000000\nann,jam,1700000009\n")
    found = inspect(log)
    assert (found["rows"], found["columns"][0]["sample"]) == (2, [magic, "ann"])
    assert preprocess(log, data_dir=tmp_path, min_interactions=1).users == 2


@pytest.mark.parametrize(("rows", "goes_on"), [(9, False), (600_000, True)])
def test_of_a_pipe_that_goes_on_only_what_was_read_is_known(tmp_path, rows, goes_on):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "user,item,time\n" + "u12,i4567,1700000009\n" * rows

    def write() -> None:
        with suppress(BrokenPipeError):
            pipe.write_text(text)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(write)
        found = inspect(pipe)
    assert found["goes_on"] == found["rows_estimated"] == goes_on
    if goes_on:
        assert 0 < found["rows"] == found["rows_looked_at"] < rows
        assert 0 < found["bytes"] < len(text)
    else:
        assert (found["rows"], found["bytes"]) == (rows, len(text))


COLUMNS = {
    "customer": ["ann", None, "bob"],
    "sku": pa.array([7, 8, 7], pa.int32()),
    "ts": pa.array([1_700_000_000_000, 1_700_000_000_500, 1], pa.timestamp("ms", tz="UTC")),
    "note": [{"a": 1}, None, None],
}


def write_columns(folder: Path, kind: str, table: pa.Table) -> Path:
    log = folder / f"log.{kind.replace('lz4', 'feather')}"
    if kind == "parquet":
        pq.write_table(table, log, compression="zstd")
    else:
        compression = "lz4" if kind == "lz4" else "uncompressed"
        pa.feather.write_feather(table, log, compression=compression)
    return log


@pytest.mark.parametrize("kind", ["parquet", "arrow", "lz4"])
def test_columns_are_described_with_their_types(tmp_path, kind):
    log = write_columns(tmp_path, kind, pa.table(COLUMNS))
    found = inspect(log)
    assert found["columns"][:3] == [
        {"name": "customer", "type": "string", "role": "user", "sample": ["ann", "", "bob"]},
        {"name": "sku", "type": "int32", "role": "item", "sample": ["7", "8", "7"]},
        {
            "name": "ts",
            "type": "timestamp[ms, tz=UTC]",
            "role": "time",
            "sample": found["columns"][2]["sample"],
        },
    ]
    assert found["columns"][3]["role"] is None
    assert (found["format"], found["delimiter"], found["header"]) == ("columns", None, None)
    assert (found["rows"], found["rows_estimated"], found["rows_without_user"]) == (3, False, 1)
    assert found["compression"] == ("zstd" if kind == "parquet" else "none")
    metadata = preprocess(log, data_dir=tmp_path, min_interactions=1).metadata
    assert found["time"] == metadata["time"]
    assert [column["name"] for column in found["columns"]] == metadata["layout"]["columns"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_the_rows_of_a_large_file_of_columns_are_exact(tmp_path, kind):
    count = 300_000
    table = pa.table({"user": range(count), "item": range(count), "time": range(count)})
    found = inspect(write_columns(tmp_path, kind, table))
    assert (found["rows"], found["rows_estimated"]) == (count, False)
    assert found["rows_looked_at"] == 1 << 18
    assert found["time"]["last"] == (1 << 18) - 1


def test_options_of_text_are_refused_for_columns(tmp_path):
    log = write_columns(tmp_path, "parquet", pa.table(COLUMNS))
    assert inspect(log, user_column="sku", item_column="1")["columns"][0]["role"] == "item"
    with pytest.raises(ConfigError, match="delimiter: expected nothing for a log of columns"):
        inspect(log, delimiter=",")
    with pytest.raises(DataError, match="expected a column of users"):
        inspect(write_columns(tmp_path, "arrow", pa.table({"x": [1], "y": [2]})))


def test_of_parts_of_columns_the_first_with_rows_is_shown(tmp_path):
    table = pa.table(COLUMNS)
    pq.write_table(table[:0], tmp_path / "part-0.parquet")
    pq.write_table(table, tmp_path / "part-1.parquet")
    assert inspect(tmp_path)["path"] == str(tmp_path / "part-1.parquet")
