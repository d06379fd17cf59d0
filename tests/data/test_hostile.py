"""Logs that are made to break the reader, at a size that tests can bear.

`test_hostile_at_full_size.py` has the same at the size at which memory would run out.
"""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from blin.data.inspection import inspect
from blin.data.prepare import preprocess
from blin.errors import BlinError, DataError

HEADER = "user,item,time\n"


def prepare(log: Path, **options):
    return preprocess(log, data_dir=log.parent / "data", min_interactions=1, **options)


def message_of(log: Path, content: str | bytes, **options) -> str:
    log.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BlinError) as caught:
        prepare(log, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert not (log.parent / "data").exists()
    return message.removeprefix(str(log))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ",".join(f"c{n}" for n in range(10_001)) + "\n",
            ': expected at most 10000 columns separated by ",", found more in the first line',
        ),
        (
            "{" + ", ".join(f'"k{n}": 1' for n in range(10_001)) + "}\n",
            ": expected objects of at most 10000 keys, found more in the first lines",
        ),
        (
            ",".join(f"c{n}" for n in range(40)) + "\n1,2\n",
            ': expected a column of users, found columns "c0", "c1", '
            + ", ".join(f'"c{n}"' for n in range(2, 30))
            + ", 10 more; choose one with --user-column",
        ),
        (
            HEADER.replace("user", '"who\n"'),
            ': expected a column of users, found columns "who\\n",*',
        ),
        (
            HEADER + "u" * 65_537 + ",a,1\n",
            f':2: column "user": expected an id of at most 64 KiB, found "{"u" * 60}…"',
        ),
        (
            HEADER + 'u,"' + "a" * 65_537 + '",1\n',
            f':2: column "item": expected an id of at most 64 KiB, found "{"a" * 60}…"',
        ),
        (
            '{"user": "%s", "item": "a"}\n' % ("u" * 65_537),
            f':1: column "user": expected an id of at most 64 KiB, found "{"u" * 60}…"',
        ),
        (
            "u a " + "b" * 65_537 + "\nv a c\n",
            f':1: expected items that are an id of at most 64 KiB, found "{"b" * 60}…"',
        ),
        (
            HEADER + "u,a,9783040760\nu,b,1.5e9\n",
            ": expected times that fit into 64 bits of nanoseconds (years 1678 to 2261), "
            "found integers and decimals that together do not",
        ),
        *[
            (
                HEADER + f"u,a,1\nu,a,{time}\n",
                ':3: column "time": expected a time such as 978300760 or 978300760.25, '
                f'found "{time}"',
            )
            for time in ["1" + 30 * "0", "-1" + 30 * "0", "1e30", "1e400", "nan", "inf"]
        ],
        (
            HEADER + "u\0,a,1\n",
            ':2: column "user": expected text without NUL characters, found "u\\0"',
        ),
        (
            '{"user": "u", "item": "a\\u0000"}\n',
            ':1: column "item": expected text without NUL characters, found "a\\0"',
        ),
        (bytes(5000), ": expected text in UTF-8, found NUL bytes, as UTF-16 and binary files*"),
        (HEADER.encode("utf-16-le"), ": expected text in UTF-8, found NUL bytes, as UTF-16*"),
        ("user,item\ra,b\rc,d\r", ": expected lines that end with a newline, found carriage*"),
        ("[" * 1_000_000, ": expected columns separated by*"),
        (
            '{"user": "u", "item": ' + "[" * 1_000_000 + "\n",
            ": expected JSON lines, one object on each, found none in the first lines",
        ),
        (
            '{"user": "u", "item": "a"}\n{"user": "u", "x": ' + "[" * 1_000_000 + "\n",
            ":2: expected a JSON object, found one with a fault at its character 1000019: "
            "EOF while parsing a list",
        ),
        (
            '{"user": "u", "item": ' + "[" * 9_999 + "]" * 9_999 + "}\n",
            ':1: column "item": expected text or a number, found a list',
        ),
        (b"PAR1" + bytes(99) + b"PAR1", ": expected a table, found: *"),
        (b"PAR1\x15" + b"\xff" * 99, ": expected a table, found: *"),
        (b"\x1f\x8b\x08\0rubbish", ": the compressed data ends too early"),
        (b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9, ": corrupt deflate stream"),
        # A window of 2^40 bytes.
        (
            b"\x28\xb5\x2f\xfd\x00\xf0\x01\0\0",
            ": expected zstd with a window of at most 100 MiB, found 1048576 MiB",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.startswith(":") else "",
)
def test_a_hostile_log_is_one_clear_line(log, content, message):
    found = message_of(log, content)
    assert found.startswith(message[:-1]) if message.endswith("*") else found == message


def test_a_small_file_that_unpacks_to_endless_rows_is_refused(log):
    member = gzip.compress(b"u,a," + b"x" * (8 << 20) + b"\n")
    assert message_of(log, gzip.compress(b"user,item,text\n") + member * 17) == (
        ": expected beyond 128 MiB at most 250 bytes for each packed one, "
        "found more; if it is no mistake, unpack the file first"
    )


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_that_unpack_to_endless_rows_are_refused(tmp_path, form):
    rows = 6_000_000
    column = pa.array(np.zeros(rows, np.int64))
    table = pa.table({"user": column, "item": column, "time": column, "not needed": column})
    log = tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(table, log, compression="zstd")
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(log, table.schema, options=options) as file:
            file.write_table(table)
    assert log.stat().st_size * 250 < rows * 24
    with pytest.raises(DataError) as caught:
        prepare(log)
    assert str(caught.value) == (
        f"{log}: expected beyond 128 MiB at most 250 bytes for each packed one, found more; "
        "if it is no mistake, write it without compression and dictionaries first"
    )
    assert not (tmp_path / "data").exists()


def test_skipping_does_not_skip_what_makes_all_times_too_wide(log):
    content = HEADER + "u,a,9783040760\nu,b,1.5e9\n"
    message = ": expected times that fit into 64 bits of nanoseconds"
    assert message_of(log, content, on_bad_row="skip").startswith(message)


def test_a_wide_table_of_the_widest_kind_is_read(log):
    names = [f"c{n}" for n in range(9_998)]
    log.write_text(",".join([*names, "user", "item"]) + "\n" + "1," * 9_998 + "u,a\n")
    assert prepare(log).interactions == 1


@pytest.mark.parametrize("place", [0, 2])
def test_a_stray_quote_costs_its_line_and_no_other(log, place):
    lines = [f"u{n % 50},i{n % 70},{1_700_000_000 + n}" for n in range(90_000)]
    lines[place] = '"u,i,1'
    log.write_text(HEADER + "\n".join(lines) + "\n")
    report = prepare(log, on_bad_row="skip")
    assert report.interactions == 89_999
    assert report.metadata["skipped_messages"] == [
        f"{log}:{place + 2}: expected a closing quote, found none within 1 MiB"
    ]


def test_the_line_of_a_stray_quote_is_the_one_where_it_begins(log):
    log.write_text(HEADER + '"u\n1",a,1\nv,"a\nb","2\nw,b,3\n')
    report = prepare(log, on_bad_row="skip")
    assert report.metadata["rows_read"] == 3
    assert report.metadata["skipped_messages"] == [
        f"{log}:5: expected a closing quote, found none up to the end of the file"
    ]
    assert report.users == 2


@pytest.mark.parametrize(
    ("times", "line", "unit"),
    [
        ([1_700_000_000, 1_700_000_001_000, 1_700_000_002], 3, "ms, times before as one in s"),
        ([1_700_000_000_000, 0, 1_700_000_001], 4, "s, times before as one in ms"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_seconds_among_milliseconds_are_named(log, times, line, unit, quote):
    log.write_text(HEADER + "".join(f"{quote}u{quote},a,{time}\n" for time in times))
    report = prepare(log)
    assert report.metadata["time_warning"] == (
        f"{log}:{line}: this time is as large as one in {unit}: "
        "all are taken as they stand, so the order is wrong if the units differ"
    )
    assert inspect(log)["time_warning"] == report.metadata["time_warning"]


@pytest.mark.parametrize(
    "times", [["1700000000", "0", "-1"], ["5", "9999999"], ["1700000000.5", "1700000000000"]]
)
def test_times_that_are_not_mixed_up_are_not_warned_about(log, times):
    log.write_text(HEADER + "".join(f"u,a,{time}\n" for time in times))
    assert prepare(log).metadata["time_warning"] is None


def test_a_pipe_gives_the_same_as_a_file(log):
    log.write_text(HEADER + "u,a,1\nv,b,2\n")
    expected = prepare(log, name="file").fingerprint
    pipe = log.parent / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(log.read_bytes()))
    writer.start()
    assert prepare(pipe).fingerprint == expected
    writer.join()


def test_a_column_that_comes_twice_in_parquet_is_one_clear_line(log):
    columns = [pa.array(["u"]), pa.array(["a"]), pa.array(["v"]), pa.array(["w"])]
    twice = pa.table(columns, names=["user", "item", "other", "other"])
    pq.write_table(twice, log)
    assert prepare(log).interactions == 1
    pq.write_table(twice.rename_columns(["user", "item", "x", "user"]), log)
    with pytest.raises(DataError) as caught:
        prepare(log)
    assert str(caught.value) == f'{log}: expected one column "user", found 2 of this name'


def test_a_device_without_end_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"^/dev/zero: expected lines of at most 16 MiB"):
        preprocess("/dev/zero", data_dir=tmp_path)
