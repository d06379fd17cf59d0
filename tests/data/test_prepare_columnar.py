"""Tables and Parquet files give the dataset of the equal CSV."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blin.data import columnar
from blin.data.dataset import Dataset, load_dataset
from blin.data.inspection import inspect
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError
from strategies import rows

DAY = datetime(2024, 5, 1, tzinfo=timezone.utc)


class Foreign:
    """A table of another library: all that is known of it is the capsule."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("columnar")


def of_csv(folder: Path, columns: dict[str, list[Any]], **options: Any) -> Dataset:
    log = folder / "log.csv"
    lines = [
        ",".join("" if value is None else str(value) for value in row)
        for row in zip(*columns.values(), strict=True)
    ]
    log.write_text("\n".join([",".join(columns), *lines]))
    options = {"min_interactions": 1, **options}
    return load_dataset(log, data_dir=folder, name="csv", **options)


def of_table(folder: Path, table: pa.Table, **options: Any) -> Dataset:
    options = {"min_interactions": 1, "name": "table", **options}
    return load_dataset(Foreign(table), data_dir=folder, **options)


def assert_equal(found: Dataset, expected: Dataset) -> None:
    assert found.fingerprint == expected.fingerprint
    for side in ("users", "items"):
        tables = [pq.read_table(dataset.path / f"{side}.parquet") for dataset in (found, expected)]
        assert tables[0].equals(tables[1])
    assert (found.timestamps is None) == (expected.timestamps is None)
    if expected.timestamps is not None:
        np.testing.assert_array_equal(found.timestamps, expected.timestamps)
    for key in ("rows_read", "rows_without_user", "rows_without_item", "time"):
        assert found.metadata[key] == expected.metadata[key]


@settings(deadline=None, max_examples=40)
@given(
    interactions=rows(),
    k=st.integers(1, 3),
    chunk=st.integers(1, 20),
    text=st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    parts=st.integers(1, 3),
)
def test_any_log_gives_the_dataset_of_its_csv(folder, interactions, k, chunk, text, parts):
    names = ("user", "item", "time")
    columns = dict(zip(names, map(list, zip(*interactions, strict=True)), strict=True))
    types = (text, text, pa.int64())
    table = pa.table(
        {
            name: pa.array(columns[name], pa.string() if kind == text else kind).cast(kind)
            for name, kind in zip(names, types, strict=True)
        }
    )
    directory = folder / "parts"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for part in range(parts):
        start, stop = (len(table) * end // parts for end in (part, part + 1))
        path = directory / f"part-{part}.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=chunk)
    chunked = pa.Table.from_batches(table.to_batches(max_chunksize=chunk))
    try:
        expected = of_csv(folder, columns, min_interactions=k)
    except DataError as error:
        for source in (directory, Foreign(chunked)):
            with pytest.raises(DataError, match=str(error).split(": ")[1].split(" of ")[0]):
                preprocess(source, data_dir=folder, name="none", min_interactions=k)
        return
    assert_equal(of_table(folder, chunked, min_interactions=k), expected)
    parquet = load_dataset(directory, data_dir=folder, name="parquet", min_interactions=k)
    assert_equal(parquet, expected)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_integers_are_ids_by_their_digits(folder, kind):
    columns = {"user": [7, 0, 7], "item": [100, 101, 100], "time": [3, 2, 1]}
    table = pa.table(columns).cast(pa.schema([(name, pa.type_for_alias(kind)) for name in columns]))
    assert_equal(of_table(folder, table), of_csv(folder, columns))


def test_large_and_negative_integers_are_exact(folder):
    columns = {"user": [-(2**63), 2**63 - 1], "item": [-7, 2**53 + 1]}
    assert_equal(of_table(folder, pa.table(columns)), of_csv(folder, columns))


def test_categories_of_any_text_are_ids(folder):
    places = pa.array([1, None, 0], pa.uint32())
    columns = {"user": ["u", "u", "v"], "item": ["b", None, "a"]}
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        item = pa.DictionaryArray.from_arrays(places, pa.array(["a", "b"]).cast(kind))
        table = pa.table({"user": pa.array(columns["user"]).cast(kind), "item": item})
        assert_equal(of_table(folder, table), of_csv(folder, columns))


def test_integers_that_gaps_made_floats_are_integers(folder):
    columns = {"user": [7, None, 8], "item": [1, 2, None], "time": [5, 6, 7]}
    table = pa.table(columns).cast(
        pa.schema([("user", pa.float64()), ("item", pa.float64()), ("time", pa.float64())])
    )
    found = of_table(folder, table)
    assert_equal(found, of_csv(folder, columns))
    assert found.metadata["rows_without_user"] == found.metadata["rows_without_item"] == 1


def test_an_id_is_called_alike_whatever_stands_beside_it(folder):
    isbns = [9780140449136.0, 9780141439518.0, 9780140449136.0]
    columns = {"user": [1.0, 1.0, 2.0], "item": isbns}
    odd = {"user": [2.0, 2.0, 3.0, float("nan")], "item": [isbns[1], float("nan"), 0.5, isbns[0]]}
    table = pa.concat_tables([pa.table(columns), pa.table(odd)])
    found = of_table(folder, table)
    ids = pq.read_table(found.path / "items.parquet")["id"].to_pylist()
    assert ids == ["9780140449136", "9780141439518", "0.5"]
    assert found.metadata["rows_without_user"] == found.metadata["rows_without_item"] == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_timestamps_are_those_of_iso_dates(folder, unit, zone):
    moments = [DAY + timedelta(hours=5 * n) for n in (2, 0, 1)]
    columns = {"user": ["u"] * 3, "item": ["a", "b", "c"], "when": [m.isoformat() for m in moments]}
    kind = pa.timestamp(unit, zone)
    if zone is None:
        moments = [moment.replace(tzinfo=None) for moment in moments]
    table = pa.table({**columns, "when": pa.array(moments, kind)})
    assert_equal(of_table(folder, table), of_csv(folder, columns))


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_days_are_times(folder, kind):
    days = [date(2024, 5, 3), date(2024, 5, 1), date(1969, 12, 31)]
    columns = {"user": ["u"] * 3, "item": ["a", "b", "c"], "day": days}
    table = pa.table({**columns, "day": pa.array(days, kind)})
    assert_equal(of_table(folder, table), of_csv(folder, columns))


def test_fractions_of_seconds_and_ratings_are_read(folder):
    times = [1_700_000_000.5, 1_700_000_000.25, 1_700_000_001.0]
    columns = {"user": ["u"] * 3, "item": ["a", "b", "c"], "rating": [4.5, 3.0, 2.5], "time": times}
    expected = of_csv(folder, columns, min_rating=3)
    assert_equal(of_table(folder, pa.table(columns), min_rating=3), expected)


def test_parquet_is_reused_and_other_columns_are_not_looked_at(folder):
    log = folder / "Shop.parquet"
    nested = pa.array([[1], None], pa.list_(pa.int64()))
    pq.write_table(pa.table({"tags": nested, "item": ["a", "b"], "user": ["u", "u"]}), log)
    done = []
    report = preprocess(
        log, data_dir=folder, min_interactions=1, on_progress=lambda *seen: done.append(seen)
    )
    assert (report.dataset, report.reused, report.interactions) == ("shop", False, 2)
    assert report.metadata["layout"]["format"] == "columns"
    assert report.metadata["sources"][0]["bytes"] == log.stat().st_size
    assert done[-1] == (log.stat().st_size, log.stat().st_size)
    assert preprocess(log, data_dir=folder, min_interactions=1).reused


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": [[1]], "item": ["a"]}, 'table: column "user": expected integers, text or '
         "times, found list<item: int64>"),
        ({"user": ["u", "u"], "item": ["a", "b"], "time": ["1", "soon"]}, 'table:2: column "time": '
         'expected a time such as 978300760 or 978300760.25, found "soon"'),
        ({"user": ["u"], "what": ["a"]}, 'table: expected a column of items, found columns "user", '
         '"what"; choose one with --item-column'),
        ({"user": [], "item": []}, "table: expected interactions, found no rows"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_one_line(folder, table, message):
    with pytest.raises(DataError) as caught:
        of_table(folder, pa.table(table))
    assert str(caught.value) == message


def test_what_a_library_says_of_its_table_is_one_line(folder):
    class Unlike:
        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            raise ValueError("Duplicate column names found:\n['id', 'id']")

    with pytest.raises(DataError, match=r"^table: expected a table, found: Duplicate .*'id'\]$"):
        load_dataset(Unlike(), data_dir=folder, name="table")


def test_a_column_may_be_given_by_its_number(folder):
    columns = {"item id": ["x", "y"], "user id": ["u", "u"]}
    expected = of_csv(folder, columns)
    numbered = {"user_column": 2, "item_column": 1}
    assert of_csv(folder, columns, **numbered).fingerprint == expected.fingerprint
    assert of_table(folder, pa.table(columns), **numbered).fingerprint == expected.fingerprint


def test_a_time_that_is_missing_is_named_or_skipped(folder):
    table = pa.table({"user": ["u", "u"], "item": ["a", "b"], "time": [1, None]})
    with pytest.raises(DataError, match='table:2: column "time": expected a time .* nothing'):
        of_table(folder, table)
    assert of_table(folder, table, on_bad_row="skip").metadata["rows_skipped"] == 1


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="an older pyarrow has no such type")
def test_uuids_are_what_they_are_written_as(folder):
    # The bytes of the last are text themselves.
    users = [uuid.UUID(int=3), uuid.UUID(int=2**127), uuid.UUID(bytes=b"sixteen letters!")]
    users += [users[0], users[1]]
    stored = pa.array([user.bytes for user in users], pa.binary(16))
    columns = {"user": users, "item": ["a", "b", "c", "b", "a"]}
    expected = of_csv(folder, columns)
    column = pa.ExtensionArray.from_storage(pa.uuid(), stored)
    table = pa.table({**columns, "user": column})
    assert_equal(of_table(folder, table), expected)
    pq.write_table(table, folder / "uuid.parquet")
    assert_equal(
        load_dataset(folder / "uuid.parquet", data_dir=folder, min_interactions=1), expected
    )
    assert inspect(folder / "uuid.parquet")["first_records"][0][0] == str(users[0])
    gap = pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([None, stored[1].as_py()], pa.binary(16))
    )
    table = pa.table({"user": gap, "item": ["a", "b"]})
    assert of_table(folder, table).metadata["rows_without_user"] == 1


@pytest.mark.skipif(not hasattr(pa, "bool8"), reason="an older pyarrow has no such type")
def test_a_type_whose_storage_says_nothing_is_refused(folder):
    columns = {"user": ["u", "v", "u"], "item": ["a", "b", "b"]}
    texts = pa.ExtensionArray.from_storage(pa.json_(), pa.array(columns["user"]))
    assert_equal(of_table(folder, pa.table({**columns, "user": texts})), of_csv(folder, columns))
    column = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))
    with pytest.raises(DataError, match='column "user": expected integers, text or times, found'):
        of_table(folder, pa.table({"user": column, "item": ["a", "b"]}))


def test_options_of_text_are_refused(folder):
    with pytest.raises(ConfigError, match="delimiter: expected nothing for a log of columns"):
        of_table(folder, pa.table({"user": ["u"], "item": ["a"]}), delimiter=",")


def test_a_table_needs_a_name(folder):
    with pytest.raises(ConfigError, match="name: expected one for the dataset of a table"):
        preprocess(pa.table({"user": ["u"], "item": ["a"]}), data_dir=folder)


def test_a_damaged_parquet_file_is_one_line(folder):
    log = folder / "bad.parquet"
    log.write_bytes(b"PAR1\x15 and nothing more")
    with pytest.raises(DataError, match=r"bad\.parquet: expected a table, found: ") as caught:
        preprocess(log, data_dir=folder)
    assert "\n" not in str(caught.value)


def test_a_column_that_cannot_be_read_is_named_with_its_part(folder):
    parts = folder / "lists"
    parts.mkdir()
    pq.write_table(pa.table({"user": ["u"], "item": ["a"]}), parts / "0.parquet")
    pq.write_table(pa.table({"user": ["u"], "item": [["a"]]}), parts / "1.parquet")
    with pytest.raises(DataError, match=r'1\.parquet: column "item": expected integers, text or'):
        preprocess(parts, data_dir=folder)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(1)])
def test_bytes_are_ids_where_they_are_text(folder, kind):
    table = pa.table({"user": pa.array([b"u", b"u", b"\xff", b"v"], kind), "item": list("abcd")})
    dataset = of_table(folder, table, on_bad_row="skip")
    assert (dataset.num_users, dataset.metadata["rows_skipped"]) == (2, 1)
    with pytest.raises(DataError, match='^table:3: column "user": expected text in UTF-8, found'):
        of_table(folder, table)


@pytest.mark.parametrize("empty", [["0"], ["2"], ["0", "2"]])
def test_parts_may_be_empty(tmp_path, empty):
    parts = tmp_path / "parts"
    parts.mkdir()
    pq.write_table(pa.table({"user": ["u"], "item": ["a"]}), parts / "1.parquet")
    for name in empty:
        (parts / f"{name}.parquet").touch()
    report = preprocess(parts, data_dir=tmp_path / "data", min_interactions=1)
    assert report.interactions == 1 and len(report.metadata["sources"]) == 1 + len(empty)


def test_parts_without_the_columns_of_the_first_are_refused(folder):
    parts = folder / "unlike"
    parts.mkdir()
    pq.write_table(pa.table({"user": ["u"], "item": ["a"]}), parts / "0.parquet")
    pq.write_table(pa.table({"user": ["u"], "other": ["a"]}), parts / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: expected the columns of the first file"):
        preprocess(parts, data_dir=folder)
    pq.write_table(pa.table({"other": pa.array([], pa.string())}), parts / "1.parquet")
    assert preprocess(parts, data_dir=folder / "data", min_interactions=1).interactions == 1


def test_parts_whose_times_are_not_all_times_are_refused(folder):
    """Seconds beside nanoseconds would be events of 1970."""
    parts = folder / "times"
    parts.mkdir()
    times = pa.array([DAY], pa.timestamp("us", tz="UTC"))
    for number, ts in enumerate([times, pa.array([1_735_689_600])]):
        path = parts / f"{number}.parquet"
        pq.write_table(pa.table({"user": ["u"], "item": ["a"], "ts": ts}), path)
    with pytest.raises(
        DataError,
        match=r'1\.parquet: column "ts": expected timestamp\[us, tz=UTC\], '
        "as in the first file, found int64",
    ):
        preprocess(parts, data_dir=folder)


def test_a_dictionary_of_times_is_times(folder):
    days = pa.array([DAY + timedelta(days=n) for n in (1, 0)], pa.timestamp("ms"))
    plain = pa.table({"user": ["u", "u"], "item": ["a", "b"], "ts": days})
    encoded = plain.set_column(2, "ts", days.dictionary_encode())
    found, expected = (
        of_table(folder, table, name=name)
        for name, table in (("encoded", encoded), ("plain", plain))
    )
    assert_equal(found, expected)
    assert found.metadata["time_warning"] is None


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us")])
def test_a_day_beyond_nanoseconds_is_a_fault_of_its_row(folder, kind):
    days = [date(2024, 5, 2), None, date(9999, 12, 31), date(2024, 5, 1)]
    table = pa.table({"user": list("uuuv"), "item": list("abca"), "ts": pa.array(days).cast(kind)})
    with pytest.raises(
        DataError,
        match=r'table:2: column "ts": expected a time between 1677.* found '
        "nothing",
    ):
        of_table(folder, table)
    with pytest.raises(DataError, match=r'table:2: column "ts": .* found "9999-12-31'):
        of_table(folder, table.take([0, 2, 3]))
    found = of_table(folder, table, on_bad_row="skip")
    assert found.metadata["rows_skipped"] == 2 and found.num_interactions == 2
    within = of_table(folder, table.take([0, 3]), name="within")
    assert found.fingerprint == within.fingerprint
    np.testing.assert_array_equal(found.timestamps, within.timestamps)


def test_text_that_is_not_utf8_matters_only_where_it_is_looked_at(folder):
    odd = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 4], np.int32)), pa.py_buffer(b"caf\xe9")]
    )
    ids = pa.array(["u"])
    assert (
        of_table(folder, pa.table({"user": ids, "item": ids, "title": odd})).num_interactions == 1
    )
    with pytest.raises(DataError, match=r'table:1: column "item": expected text in UTF-8'):
        of_table(folder, pa.table({"user": ids, "item": odd}))


def test_of_an_arrow_file_only_columns_that_are_looked_at_are_unpacked(folder):
    """A file of one value over and over, hundreds of times smaller than what it holds."""
    count = 1 << 18
    same = pa.array(np.zeros(count, np.int64))
    table = pa.table({"user": np.arange(count) % 9, "item": np.arange(count) % 7, "other": same})
    log = folder / "packed.feather"
    pa.feather.write_feather(table, log, compression="lz4", chunksize=1 << 15)
    before = pa.total_allocated_bytes()
    with columnar._opened(log) as file:
        assert file.num_rows == count
        batches = file.batches(1 << 14, ["item", "user"])
        assert next(iter(batches)).schema.names == ["item", "user"]
        assert pa.total_allocated_bytes() - before < 4 * 8 * (1 << 15)
