"""Every log that cannot be used gets one line that says where and why."""

from __future__ import annotations

import bz2
import gzip
import lzma
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blin import _core
from blin.errors import ConfigError, DataError

HEADER = "user,item,rating,time\n"
GOOD = "u,a,5,100000000\n"
ZSTD = pa.Codec("zstd").compress(
    "".join(f"u{n},a,{n % 5},{n * n}\n" for n in range(99)).encode(), asbytes=True
)


def message_of(path: Path, content: str | bytes, **options: object) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        _core.read_log([path], **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": expected interactions, found an empty file"),
        ("\n \n", ": expected interactions, found an empty file"),
        (HEADER, ": expected interactions, found a header and no rows"),
        (HEADER + GOOD + "u,a\n", ':3: expected 4 fields separated by ",", found 2'),
        (HEADER + GOOD + "\nu,a,5,1,2\n", ':4: expected 4 fields separated by ",", found 5'),
        (
            "1::2::3::978300760\n" * 2 + "1::2::3\n",
            ':3: expected 4 fields separated by "::", found 3',
        ),
        (
            HEADER + GOOD + "u,a,5,abc\n",
            ':3: column "time": expected a time such as 978300760 or 978300760.25, found "abc"',
        ),
        (
            HEADER + "u,a,5,2001-01-31\nu,a,5,2001-02-30\n",
            ':3: column "time": expected a date such as 2001-01-31 or 2001-01-31T12:00:00Z, '
            'found "2001-02-30"',
        ),
        (
            HEADER + GOOD + f"u,a,5,1{30 * '0'}\n",
            ':3: column "time": expected a time such as 978300760 or 978300760.25, '
            f'found "1{30 * "0"}"',
        ),
        (
            HEADER.encode() + b"caf\xe9,a,5,1\n",
            ':2: column "user": expected text in UTF-8, found "caf�"',
        ),
        ("1 5 6\n2\n3 7 8 9\n", ":2: expected a user and at least one item, found no item"),
        (
            HEADER + 'u,"a,5,1\nu,b,5,2\n',
            ":2: expected a closing quote, found none up to the end of the file",
        ),
        (
            "who,what,time\nann,tea,1\n",
            ': expected a column of users, found columns "who", "what", "time"; '
            "choose one with --user-column",
        ),
        (
            "user,what,time\nann,tea,1\n",
            ': expected a column of items, found columns "user", "what", "time"; '
            "choose one with --item-column",
        ),
        (
            "just some words\n".replace(" ", ""),
            ': expected columns separated by a comma, tab, semicolon, pipe, space or "::", '
            "found none of these in the first line; choose with --delimiter",
        ),
        (b"PAR1\x15\x04", ": expected text in UTF-8, plain, gzip or zstd, found a Parquet file"),
        (
            "user,item".encode("utf-16"),
            ": expected text in UTF-8, plain, gzip or zstd, found UTF-16; save it as UTF-8",
        ),
        (bz2.compress(GOOD.encode()), ": expected text in *, found a bzip2 file; unpack it first"),
        (bz2.compress(b""), ": expected text in *, found a bzip2 file; unpack it first"),
        (lzma.compress(GOOD.encode()), ": expected text in *, found an xz file; unpack it first"),
        (b"PK\x03\x04" + bytes(40), ": expected text in *, found a zip archive; unpack it first"),
        (gzip.compress(GOOD.encode() * 99)[:-9], ": the compressed data ends too early"),
        (ZSTD[:-9], ": the compressed data ends too early"),
        (ZSTD[:5], ": the compressed data ends too early"),
        (ZSTD + b"\x50\x2a\x4d\x18\x09\0\0\0abc", ": the compressed data ends too early"),
        (ZSTD[:20] + b"\xff" + ZSTD[21:], ": the zstd data is damaged: *"),
        (ZSTD + b"rubbish", ": the zstd data is damaged: *"),
        (
            HEADER + GOOD,
            ": no interaction is left by the 5-core of 1 interactions (1 users, 1 items); "
            'was the log read right (users in column "user", items in "item")? If so, try a '
            "smaller --min-interactions",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.startswith(":") else "",
)
def test_a_log_that_cannot_be_used_is_one_clear_line(log, content, message):
    assert fnmatchcase(message_of(log, content), message.replace("[", "[[]"))


def test_the_column_that_was_asked_for_must_be_there(log):
    message = message_of(log, HEADER + GOOD, user_column="buyer")
    assert message == (
        ': expected a column "buyer" (--user-column), '
        'found columns "user", "item", "rating", "time"'
    )


def test_a_rating_that_is_no_number_is_named(log):
    message = message_of(log, HEADER + "u,a,good,1\n", min_rating=4)
    assert message == ':2: column "rating": expected a number, found "good"'


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        _core.read_log([tmp_path / "nowhere.csv"])


def test_a_directory_is_not_a_log(tmp_path):
    with pytest.raises(DataError, match="expected a file, found a directory"):
        _core.read_log([tmp_path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"log_format": "xml"},
            'log_format: expected "table", "sequences" or "jsonl", found "xml"',
        ),
        ({"on_bad_row": "cry"}, 'on_bad_row: expected "fail" or "skip", found "cry"'),
        ({"duplicates": "no"}, 'duplicates: expected "keep", "first" or "last", found "no"'),
        ({"threads": 0}, "threads: expected 1 to 512, found 0"),
        ({"threads": 100_000}, "threads: expected 1 to 512, found 100000"),
        ({"delimiter": ""}, 'delimiter: expected one or more characters within a line, found ""'),
    ],
)
def test_an_option_out_of_its_range_is_named(log, options, message):
    log.write_text(HEADER + GOOD)
    with pytest.raises(ConfigError) as caught:
        _core.read_log([log], **options)
    assert str(caught.value) == message


def test_bad_rows_can_be_skipped_and_are_counted(log):
    log.write_text(HEADER + GOOD + "u,a\n" + GOOD + "u,a,5,soon\n" + "u,b,5,\n" + GOOD)
    report = _core.read_log([log], min_interactions=1, on_bad_row="skip")["report"]
    assert report["interactions"] == 3
    assert report["rows_read"] == 6
    assert report["rows_skipped"] == 3
    assert report["skipped_messages"][0] == f'{log}:3: expected 4 fields separated by ",", found 2'
    assert len(report["skipped_messages"]) == 3


def test_if_every_row_is_skipped_nothing_is_left(log):
    message = message_of(log, HEADER + "u,a,5,soon\n", on_bad_row="skip")
    assert message == (
        ": no interaction is left: all rows were unreadable, without a user or an item, "
        "or below --min-rating"
    )


def test_a_row_of_millions_of_fields_is_counted_and_not_kept(log):
    message = message_of(log, HEADER + "," * 3_000_000 + "\n")
    assert message == ':2: expected 4 fields separated by ",", found 3000001'


def test_a_line_without_end_is_refused_in_bounded_memory(log):
    member = gzip.compress(b"x" * (1 << 20))
    message = message_of(log, member * 20)
    assert message == ": expected lines of at most 16 MiB, found a longer one"


def test_a_quote_that_is_never_closed_is_refused_in_bounded_memory(log):
    member = gzip.compress(b"u,a,5,1\n" * (1 << 17))
    message = message_of(log, gzip.compress(HEADER.encode() + b'"') + member * 3)
    assert message == ":2: expected a closing quote, found none within 1 MiB"


@given(
    content=st.binary() | st.text('0123456789abc,;:| \t\r\n".-TZ').map(str.encode),
    on_bad_row=st.sampled_from(["fail", "skip"]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "header": st.booleans(),
            "delimiter": st.sampled_from([",", "::", " ", "\t", "a"]),
            "log_format": st.sampled_from(["table", "sequences", "jsonl"]),
            "min_rating": st.floats(0, 5),
            "user_column": st.sampled_from(["1", "2", "user"]),
            "item_column": st.sampled_from(["1", "3", "item"]),
        },
    ),
)
@example(content=b'"', on_bad_row="fail", options={})
@example(content=b"\r", on_bad_row="fail", options={})
@example(content=b"\xef\xbb\xbf", on_bad_row="fail", options={})
def test_no_bytes_do_more_harm_than_an_error(tmp_path_factory, content, on_bad_row, options):
    log = tmp_path_factory.getbasetemp() / "bytes"
    log.write_bytes(content)
    try:
        result = _core.read_log([log], min_interactions=1, on_bad_row=on_bad_row, **options)
    except (ConfigError, DataError) as error:
        assert "\n" not in str(error)
    else:
        assert result["report"]["interactions"] > 0
