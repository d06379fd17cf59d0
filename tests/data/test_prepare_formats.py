"""Every way to write a log down gives the same sequences."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core
from blin.errors import DataError
from prepared import raw_ids, raw_sequences, raw_timestamps

ROWS = [
    ("196", "242", "3", "881250949"),
    ("186", "302", "3", "891717742"),
    ("196", "377", "1", "881250948"),
    ("022", "302", "2", "878887116"),
]
SEQUENCES = {"196": ["377", "242"], "186": ["302"], "022": ["302"]}


def read(path: Path, content: str | bytes, **options: Any) -> dict[str, Any]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return _core.read_log([path], min_interactions=1, **options)


def table(delimiter: str, *, header: str | None = None, end: str = "\n") -> str:
    lines = [delimiter.join(row) for row in ROWS]
    names = [] if header is None else [delimiter.join(header.split())]
    return "".join(line + end for line in names + lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("header", [None, "user_id item_id rating timestamp"])
@pytest.mark.parametrize("delimiter", [",", "\t", "::", ";", "|", " "])
def test_the_delimiter_and_the_header_are_recognised(log, delimiter, header):
    result = read(log, table(delimiter, header=header))
    layout = result["report"]["layout"]
    assert raw_sequences(result) == SEQUENCES
    assert (layout["format"], layout["delimiter"]) == ("table", delimiter)
    assert layout["header"] == (header is not None)


@pytest.mark.parametrize("delimiter", ["||", "#", "->", "\x01"])
def test_any_other_delimiter_can_be_given(log, delimiter):
    assert raw_sequences(read(log, table(delimiter), delimiter=delimiter)) == SEQUENCES


@pytest.mark.parametrize(
    "header",
    [
        "userId movieId rating timestamp",
        "reviewerID asin overall unixReviewTime",
        "user_id parent_asin rating timestamp",
        "user_id:token item_id:token rating:float timestamp:float",
        "visitorid itemid score ts",
        "SessionId ProductID stars Date",
        "customer sku rate eventdate",
        "shopper_name product_title points visit_time",
        "USER-ID BUSINESS_ID Stars DATE",
    ],
)
def test_columns_are_recognised_by_their_names(log, header):
    result = read(log, table(",", header=header))
    assert raw_sequences(result) == SEQUENCES
    assert result["report"]["layout"]["time_column"] == header.split()[3]


def test_columns_are_found_wherever_they_stand(log):
    lines = ["timestamp,stars,business_id,name,user_id"]
    lines += [f"{time},{stars},{item},x,{user}" for user, item, stars, time in ROWS]
    assert raw_sequences(read(log, "\n".join(lines))) == SEQUENCES


def test_a_user_column_counts_before_a_session_column(log):
    result = read(log, "sessionId,userId,itemId,time\ns1,u,a,1\ns2,u,b,2\n")
    assert raw_sequences(result) == {"u": ["a", "b"]}


def test_columns_can_be_chosen_by_name_and_by_number(log):
    content = "who,what,zeit,extra\nann,tea,2,7\nann,milk,1,8\n"
    options = {"user_column": "who", "item_column": "what"}
    assert raw_sequences(read(log, content, **options, time_column="zeit")) == {
        "ann": ["milk", "tea"]
    }
    assert raw_sequences(read(log, content, **options, time_column="3")) == {"ann": ["milk", "tea"]}
    assert raw_timestamps(read(log, content, **options, time_column="4")) == {"ann": [7, 8]}


def test_without_a_time_column_the_order_of_the_file_counts(log):
    result = read(log, "user,item\nu,b\nv,a\nu,a\n")
    assert raw_sequences(result) == {"u": ["b", "a"], "v": ["a"]}
    assert result["timestamps"] is None
    assert result["report"]["time"] is None


def test_text_without_a_header_is_data(log):
    result = read(log, "ann,tea\nbob,milk\nann,milk\n")
    assert raw_sequences(result) == {"ann": ["tea", "milk"], "bob": ["milk"]}


def test_a_header_of_odd_names_over_numbers_is_recognised(log):
    result = read(log, "buyer_code,product_ref,moment\n1,5,100\n1,6,50\n")
    assert result["report"]["layout"]["header"]
    assert raw_sequences(result) == {"1": ["5", "6"]}


def test_sequence_files_are_recognised(log):
    result = read(log, "1 5 6 7\n2 6 8\n3 5 6 7 8 9\n")
    assert result["report"]["layout"]["format"] == "sequences"
    assert raw_sequences(result) == {
        "1": ["5", "6", "7"],
        "2": ["6", "8"],
        "3": ["5", "6", "7", "8", "9"],
    }
    assert result["report"]["rows_read"] == 10


def test_sequences_of_equal_length_are_recognised(log):
    result = read(log, "1 5 6 7\n2 6 8 5\n3 5 6 7\n")
    assert raw_sequences(result)["2"] == ["6", "8", "5"]


def test_whoever_speaks_of_columns_means_a_table(log):
    content = "1 5 6\n2 6 8\n3 5 6\n"
    for options in ({"user_column": "1"}, {"item_column": "2"}, {"rating_column": "3"}):
        assert raw_sequences(read(log, content, **options)) == {"1": ["5"], "2": ["6"], "3": ["5"]}
    result = read(log, content, rating_column="3", min_rating=7.0)
    assert raw_sequences(result) == {"2": ["6"]}
    with pytest.raises(Exception, match="format: expected table, .* found .sequences"):
        read(log, content, log_format="sequences", item_column="2")


@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n"), ("\r\n", "")])
def test_parts_may_end_their_lines_differently(tmp_path, ends):
    parts = [tmp_path / "1.csv", tmp_path / "2.csv"]
    parts[0].write_bytes(f"user,item{ends[0]}a,x{ends[0]}b,y{ends[0]}".encode())
    rest = f"user,item{ends[1]}a,z{ends[1]}" if ends[1] else "user,item"
    parts[1].write_bytes(rest.encode())
    found = raw_sequences(_core.read_log(parts, min_interactions=1))
    assert found == {"a": ["x", *(["z"] if ends[1] else [])], "b": ["y"]}


def test_a_header_may_end_in_a_tab(log):
    assert raw_sequences(read(log, "user\titem\t\na\tx\t\n")) == {"a": ["x"]}


def test_a_user_on_two_lines_of_a_sequence_file_is_one_user(log):
    result = read(log, "u a b\r\nv c\r\n\r\nu c d e \r\n")
    assert raw_sequences(result) == {"u": ["a", "b", "c", "d", "e"], "v": ["c"]}


def test_sequence_files_with_another_delimiter_can_be_asked_for(log):
    for delimiter in ("\t", ","):
        content = delimiter.join("uab") + "\n" + delimiter.join("vb") + "\n"
        result = read(log, content, log_format="sequences")
        assert raw_sequences(result) == {"u": ["a", "b"], "v": ["b"]}


@pytest.mark.parametrize("delimiter", [" ", "\t", ","])
def test_a_line_of_a_sequence_file_is_whole_or_left_out(log, delimiter):
    """Half of a line would end in another item."""
    lines = [b"u a b \xff c d".split(), b"v a b".split()]
    content = b"\n".join(delimiter.encode().join(line) for line in lines)
    result = read(log, content, log_format="sequences", on_bad_row="skip", delimiter=delimiter)
    assert raw_sequences(result) == {"v": ["a", "b"]}
    report = result["report"]
    assert (report["rows_read"], report["rows_skipped"]) == (7, 5)
    assert len(report["skipped_messages"]) == 1


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_a_line_without_a_user_has_no_other_user(log, delimiter):
    content = f"{delimiter}a{delimiter}b\nu{delimiter}c{delimiter * 2}d\n"
    result = read(log, content, log_format="sequences", delimiter=delimiter)
    assert raw_sequences(result) == {"u": ["c", "d"]}
    assert result["report"]["rows_without_user"] == 2


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blanks_at_the_end_of_a_line_belong_to_the_last_item(log, end):
    content = f"u,a ,b {end}v,b ,a {end}  {end}"
    result = read(log, content, log_format="sequences", delimiter=",")
    assert raw_sequences(result) == {"u": ["a ", "b "], "v": ["b ", "a "]}


PARTS = {
    "names that only numbers below tell from a row": ("who,what,stamp\n", "ann,tea,1700000009\n"),
    "a column that only its values tell to be times": (
        "user,item,moment\n",
        "ann,tea,1700000009\n",
    ),
    "dates": ("user,item,ts\n", "ann,tea,2023-11-14T22:13:29Z\n"),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("empty", [[0], [0, 1], [0, 2]])
def test_a_header_by_itself_tells_nothing_of_a_log(log, parts, empty):
    """Engines that write a file per task write such files."""
    header, row = PARTS[parts]
    whole = header + row + row.replace("ann", "bob")
    paths = [log.with_name(str(number)) for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text(header if number in empty else whole)
    columns = dict(
        zip(("user_column", "item_column", "time_column"), header.split(","), strict=True)
    )
    columns = {key: value.strip() for key, value in columns.items()} if "who" in header else {}
    result = _core.read_log(paths, min_interactions=1, **columns)
    times = 3 - len(empty)
    assert raw_sequences(result) == {"ann": ["tea"] * times, "bob": ["tea"] * times}
    assert set(result["timestamps"].tolist()) == {1_700_000_009}
    assert _core.inspect_log(paths, **columns)["layout"] == result["report"]["layout"]


@pytest.mark.parametrize("header", [None, True])
@pytest.mark.parametrize(
    "rows",
    [
        ["ann,tea,1700000009\nbob,jam,1700000008\n"],
        ["ann,tea,1700000009\n", "bob,jam,1700000008\n"],
    ],
)
@pytest.mark.parametrize("parts", [["user,item,moment\n"], ["\n", "\ufeffuser,item,moment"]])
def test_the_header_may_stand_in_a_part_of_its_own(log, parts, rows, header):
    paths = [log.with_name(str(number)) for number in range(len(parts + rows))]
    for path, text in zip(paths, parts + rows, strict=True):
        path.write_text(text)
    options = {"header": header, "time_column": "moment"}
    result = _core.read_log(paths, min_interactions=1, **options)
    assert raw_sequences(result) == {"ann": ["tea"], "bob": ["jam"]}
    assert result["report"]["layout"]["columns"] == ["user", "item", "moment"]
    found = _core.inspect_log(paths, **options)
    assert found["layout"] == result["report"]["layout"]
    assert found["sample"][0] == ["ann", "tea", "1700000009"]


def test_a_header_in_a_part_of_its_own_tells_a_table_from_sequences(log):
    paths = [log.with_name(str(number)) for number in range(2)]
    paths[0].write_text("uid iid val\n")
    paths[1].write_text("1 1025 4\n2 1003 3\n3 1025 5\n")
    result = _core.read_log(paths, min_interactions=1)
    assert raw_sequences(result) == {"1": ["1025"], "2": ["1003"], "3": ["1025"]}
    assert _core.inspect_log(paths)["layout"] == result["report"]["layout"]


def test_blank_lines_may_stand_above_the_header_of_any_part(log):
    other = log.with_name("other")
    for first, second in (("", "\n\r\n"), ("\n", ""), ("  \n", "\n \n"), ("", " \n")):
        log.write_text(first + "user,item,time\nu,a,1\n")
        other.write_text(second + '"user",item,time\nu,b,soon\n')
        lines = len(second.split("\n")) + 1
        with pytest.raises(DataError, match=f'other:{lines}: column "time"'):
            _core.read_log([log, other], min_interactions=1)
        other.write_text(second + "user,item,time\nu,b,2\n")
        result = _core.read_log([log, other], min_interactions=1)
        assert raw_sequences(result) == {"u": ["a", "b"]}
        assert result["report"]["rows_read"] == 2


def test_rows_may_stand_in_a_file_each(log):
    paths = [log.with_name(str(number)) for number in range(6)]
    lines = ["u,b,2", "", "user,item,time", "u,a,1\nu,c,3", "u,d,4", ""]
    for path, line in zip(paths, lines, strict=True):
        path.write_text(line)
    result = _core.read_log(paths, min_interactions=1, header=False)
    assert result["report"]["rows_read"] == 5 and result["report"]["layout"]["time_column"] is None
    del lines[2], paths[2]
    for told in (None, False):
        result = _core.read_log(paths, min_interactions=1, header=told)
        assert raw_sequences(result) == {"u": ["b", "a", "c", "d"]}
        assert [entry["path"] for entry in result["report"]["sources"]] == paths
    paths = paths[:1] + paths[3:]
    assert raw_sequences(_core.read_log(paths, min_interactions=1)) == {"u": ["b", "d"]}


def test_parts_may_quote_their_header_differently(log):
    other = log.with_name("other")
    log.write_text("user,item,time\nu,a,1\n")
    other.write_text('"user","item",time\r\nu,"b",2\r\n')
    result = _core.read_log([log, other], min_interactions=1)
    assert raw_sequences(result) == {"u": ["a", "b"]}
    assert result["report"]["rows_read"] == 2


def test_times_are_what_most_of_them_are(log):
    content = "user,item,time\nz,x,0\na,c,2024-01-02\na,b,2024-01-01\n"
    result = read(log, content, on_bad_row="skip")
    assert raw_sequences(result) == {"a": ["b", "c"]}
    with pytest.raises(DataError, match='log:2: column "time": expected a date .* found "0"'):
        read(log, content)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + table(",", header="user item rating time"),
        "\ufeff" + table(","),
        table(",", header="user item rating time", end="\r\n"),
        table(",", end="\r\n"),
        table(",", header="user item rating time", end="\n\n"),
        "\n\r\n" + table(",", header="user item rating time"),
        table(",", header="user item rating time", end=",\n"),
        table(",", header="user item rating time").replace("9\n", "9,\n"),
        table("::", end="::\n"),
        table(",", header="user item rating time").rstrip("\n"),
        table('","', header="user item rating time", end='"\n"').rstrip('"\n').join('""'),
    ],
    ids=[
        "byte order mark",
        "byte order mark without header",
        "CRLF",
        "CRLF without header",
        "blank lines",
        "blank lines first",
        "trailing delimiters",
        "one trailing delimiter",
        "trailing long delimiters",
        "no newline at the end",
        "quotes",
    ],
)
def test_what_programs_add_to_a_log_changes_nothing(log, content):
    assert raw_sequences(read(log, content)) == SEQUENCES


def test_gzip_is_recognised_by_its_content_and_may_have_many_members(log):
    content = table(",", header="user item rating time").encode()
    single = gzip.compress(content)
    members = b"".join(gzip.compress(content[at : at + 7]) for at in range(0, len(content), 7))
    assert raw_sequences(read(log, single)) == SEQUENCES
    assert raw_sequences(read(log, members)) == SEQUENCES


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


def test_zstd_is_recognised_by_its_content_and_may_have_many_frames(log):
    content = table(",", header="user item rating time").encode()
    frames = b"".join(zstd(content[at : at + 7]) for at in range(0, len(content), 7))
    skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    for compressed in (zstd(content), frames, skippable + zstd(content) + skippable):
        assert raw_sequences(read(log, compressed)) == SEQUENCES


@given(
    rows=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 10**9)), min_size=1),
    frame_bytes=st.integers(1, 300),
    repeats=st.integers(1, 40),
)
def test_zstd_gives_what_its_content_gives(tmp_path_factory, rows, frame_bytes, repeats):
    log = tmp_path_factory.getbasetemp() / "log"
    content = "".join(f"{user},{item}\n" for user, item in rows * repeats).encode()
    starts = range(0, len(content), frame_bytes * repeats)
    frames = [zstd(content[start : start + frame_bytes * repeats]) for start in starts]
    plain = read(log, b"user,item\n" + content)
    compressed = read(log, zstd(b"user,item\n") + b"".join(frames))
    assert compressed["report"]["fingerprint"] == plain["report"]["fingerprint"]


def test_quoted_fields_may_hold_delimiters_quotes_and_newlines(log):
    content = 'user,item,time\n"a, ""b""\r\nc",tea,2\n"a, ""b""\r\nc","milk\n\n",1\n'
    result = read(log, content)
    assert raw_sequences(result) == {'a, "b"\r\nc': ["milk\n\n", "tea"]}


def test_a_quote_inside_a_plain_field_is_text(log):
    result = read(log, 'user,item,time\nu,12" vinyl,1\nu,7" vinyl,2\n')
    assert raw_sequences(result) == {"u": ['12" vinyl', '7" vinyl']}


def test_ids_that_look_like_the_same_number_stay_apart(log):
    result = read(log, "user,item,time\n007,1,1\n7,01,2\n7.0,1 ,3\n")
    assert raw_ids(result, "user") == ["007", "7", "7.0"]
    assert raw_ids(result, "item") == ["1", "01", "1 "]


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        (["978300760", "978300761"], "s", [978300760, 978300761]),
        (["978300760000", "978300760001"], "ms", [978300760000, 978300760001]),
        (["978300760000000", "978300760000001"], "us", [978300760000000, 978300760000001]),
        (["978300760000000000"] * 2, "ns", [978300760000000000] * 2),
        (["-1000000000", "978300760"], "s", [-1000000000, 978300760]),
        (["1", "2"], "number", [1, 2]),
        (["1700000000.0", "1700000001.0"], "s", [1700000000, 1700000001]),
        (["1700000000", "1700000000.5"], "ms", [1700000000000, 1700000000500]),
        (["1700000000.000001", "1700000001"], "us", [1700000000000001, 1700000001000000]),
        (["1.7E9", "1.700000001e+9"], "s", [1700000000, 1700000001]),
        (["1700000000123.25", "1700000000124"], "us", [1700000000123250, 1700000000124000]),
        (["2001-01-31", "2001-02-01"], "s", [980899200, 980985600]),
        (["2001-01-31 12:00", "2001-01-31 12:00:01"], "s", [980942400, 980942401]),
        (["2001-01-31T12:00:00Z", "2001-01-31T12:00:00.5Z"], "ms", [980942400000, 980942400500]),
        (["2001-01-31T14:00:00+02:00", "2001-01-31T12:00:01Z"], "s", [980942400, 980942401]),
        (["2001-01-31T06:30:00-0530", "2001-01-31T12:00:01UTC"], "s", [980942400, 980942401]),
        (["1969-12-31T23:59:59", "2000-02-29"], "s", [-1, 951782400]),
    ],
)  # fmt: skip
def test_times_are_read_exactly_and_their_unit_is_recognised(log, times, unit, expected):
    lines = [f"u,i{place},{time}" for place, time in enumerate(times)]
    result = read(log, "\n".join(["user,item,time", *lines]))
    assert result["report"]["time"]["unit"] == unit
    assert result["timestamps"].tolist() == expected


def test_two_events_one_second_apart_stay_apart(log):
    """Float32 has steps of 128 s there."""
    content = "user,item,time\nu,late,1700000001.0\nu,early,1700000000.0\n"
    assert raw_sequences(read(log, content)) == {"u": ["early", "late"]}


def test_inspection_tells_the_layout_and_passes_over_what_cannot_be_read(log):
    log.write_text(table("::") + "broken\n")
    found = _core.inspect_log([log])
    assert found["rows_skipped"] == 1
    assert found["layout"] == {
        "format": "table",
        "delimiter": "::",
        "header": False,
        "columns": ["1", "2", "3", "4"],
        "user_column": "1",
        "item_column": "2",
        "time_column": "4",
        "tie_break_column": None,
        "rating_column": "3",
    }
