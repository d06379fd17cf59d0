"""JSON lines: keys as columns, values exactly as written, one clear line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import _core
from blin.errors import DataError
from prepared import raw_ids, raw_sequences, raw_timestamps
from reference import ingest
from strategies import raw_ids as any_ids
from strategies import rows

GOOD = '{"user": "u", "item": "a", "time": 1}\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.jsonl"


def read(log: Path, content: str | bytes, **options: Any) -> dict[str, Any]:
    log.write_bytes(content if isinstance(content, bytes) else content.encode())
    return _core.read_log([log], **{"min_interactions": 1, **options})


def lines(objects: list[dict[str, Any]], **style: Any) -> str:
    return "".join(json.dumps(value, **style) + "\n" for value in objects)


def test_amazon_reviews_need_no_option(log):
    review = {
        "reviewerID": "A2",
        "asin": "0001713353",
        "reviewerName": 'J. "Mac" \\ Wonder',
        "helpful": [0, {"of": 0}],
        "reviewText": "{not: json}\n",
        "overall": 5.0,
        "summary": None,
        "unixReviewTime": 1112313600,
        "reviewTime": "04 1, 2005",
    }
    later = {**review, "asin": "B7", "overall": 2.0, "unixReviewTime": 1112400000}
    result = read(log, lines([later, review]))
    assert raw_sequences(result) == {"A2": ["0001713353", "B7"]}
    assert raw_timestamps(result) == {"A2": [1112313600, 1112400000]}
    layout = result["report"]["layout"]
    assert (layout["format"], layout["delimiter"], layout["header"]) == ("jsonl", None, None)
    assert (layout["user_column"], layout["rating_column"]) == ("reviewerID", "overall")
    assert raw_sequences(read(log, lines([later, review]), min_rating=3)) == {"A2": ["0001713353"]}


@given(interactions=rows(), k=st.integers(0, 3))
def test_a_log_becomes_what_the_slow_twin_makes_of_it(log, interactions, k):
    expected = ingest.prepare(interactions, k=k)
    content = lines([dict(zip(("user", "item", "time"), row, strict=True)) for row in interactions])
    if not expected.sequences:
        with pytest.raises(DataError, match="no interaction is left"):
            read(log, content, min_interactions=k)
        return
    result = read(log, content, min_interactions=k)
    assert raw_sequences(result) == expected.sequences
    assert raw_timestamps(result) == expected.timestamps
    assert result["splits"].tolist() == expected.splits


@given(ids=st.lists(any_ids(), min_size=1, max_size=20), ascii_only=st.booleans())
def test_any_id_comes_back_exactly(log, ids, ascii_only):
    content = lines([{"item": name, "user": name} for name in ids], ensure_ascii=ascii_only)
    result = read(log, content)
    distinct = list(dict.fromkeys(ids))
    assert raw_ids(result, "user") == raw_ids(result, "item") == distinct


def test_numbers_are_ids_by_their_digits(log):
    content = '{"user": 7, "item": 1.0}\n{"user": "7", "item": 12345678901234567890123}\n'
    content += '{"user": "07", "item": -1e5}\n'
    result = read(log, content)
    assert raw_ids(result, "user") == ["7", "07"]
    assert raw_ids(result, "item") == ["1.0", "12345678901234567890123", "-1e5"]


def test_keys_are_found_in_any_order_and_blank_space_does_not_count(log):
    content = '\ufeff\n { "time" : 2 , "item":"a", "x": [], "user":"u" } \r\n\n' + GOOD
    assert raw_sequences(read(log, content)) == {"u": ["a", "a"]}
    assert raw_timestamps(read(log, content)) == {"u": [1, 2]}


def test_of_a_key_that_comes_twice_the_last_counts(log):
    assert raw_ids(read(log, '{"user": "u", "item": "a", "user": "v"}\n'), "user") == ["v"]


def test_dates_are_times(log):
    content = GOOD.replace("1}", '"2001-01-31T00:00:00.5Z"}')
    assert read(log, content)["report"]["time"]["unit"] == "ms"


def test_null_is_nobody_and_nothing(log):
    content = GOOD + GOOD.replace('"u"', "null") + GOOD.replace('"a"', "null")
    report = read(log, content)["report"]
    assert (report["rows_without_user"], report["rows_without_item"]) == (1, 1)
    assert report["interactions"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"user": "u", "time": 1}\n', ':2: column "item": expected text or a number, found '
         "no such key"),
        ('{"user": ["u"], "item": "a", "time": 1}\n', ':2: column "user": expected text or a '
         "number, found a list"),
        ('{"user": "u", "item": {}, "time": 1}\n', ':2: column "item": expected text or a number, '
         "found an object"),
        ('{"user": true, "item": "a", "time": 1}\n', ':2: column "user": expected text or a '
         "number, found true"),
        (GOOD.replace("1}", '"soon"}'), ':2: column "time": expected a time such as 978300760 or '
         '978300760.25, found "soon"'),
        ('{"user": "u", "item"\n', ":2: expected a JSON object, found one with a fault at its "
         "character 20: EOF while parsing an object"),
        ('{"user": "éé" "item": "a"}\n', ":2: expected a JSON object, found one with a fault at "
         "its character 15: expected `,` or `}`"),
        (GOOD[:-1] + GOOD, ":2: expected a JSON object, found one with a fault at its character "
         "38: trailing characters"),
        ("u,a,1\n", ':2: expected a JSON object, found "u,a,1"'),
        (b'{"user": "caf\xe9"}\n', ":2: expected a JSON object, found bytes that are not UTF-8"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used_is_named(log, content, message):
    content = content.encode() if isinstance(content, str) else content
    with pytest.raises(DataError) as caught:
        read(log, GOOD.encode() + content)
    assert str(caught.value) == f"{log}{message}"
    report = read(log, GOOD.encode() + content + GOOD.encode(), on_bad_row="skip")["report"]
    assert (report["rows_skipped"], report["interactions"]) == (1, 2)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('[\n{"user": 1}]', "one list of JSON; write its objects to lines"),
        ("{'user': 1}", "dictionaries of Python; write them as JSON"),
        ('{\n"user": 1\n}', "none in the first lines"),
    ],
)
def test_json_that_is_not_in_lines_is_refused(log, content, found):
    with pytest.raises(DataError) as caught:
        read(log, content)
    assert str(caught.value) == f"{log}: expected JSON lines, one object on each, found {found}"


@given(
    head=st.sampled_from(["", GOOD]),
    content=st.text('{}[]":,\\u0123 \nusertm\x00é').map(str.encode) | st.binary(),
    on_bad_row=st.sampled_from(["fail", "skip"]),
)
def test_no_bytes_do_more_harm_than_an_error(log, head, content, on_bad_row):
    try:
        result = read(log, head.encode() + content, on_bad_row=on_bad_row, log_format="jsonl")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert result["report"]["interactions"] > 0


def test_a_value_nested_without_end_is_one_line(log):
    content = GOOD + '{"user": "u", "item": "a", "time": 1, "x": ' + "[" * 1_000_000 + "\n"
    with pytest.raises(DataError, match=":2: expected a JSON object"):
        read(log, content)


def test_a_row_without_a_user_or_an_item_may_lack_all_else(log):
    content = GOOD + '{"user": null, "item": "b"}\n{"user": "v", "item": ""}\n{"item": "c"}\n'
    with pytest.raises(DataError, match='log.jsonl:4: column "user": .* no such key'):
        read(log, content)
    report = read(log, content.rsplit("{", 1)[0])["report"]
    assert (report["rows_without_user"], report["rows_without_item"]) == (1, 1)
