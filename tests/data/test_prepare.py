"""The prepared dataset on the disk: whole, replaced safely, reused, or not there at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blin.data.dataset import load_dataset
from blin.data.inspection import inspect
from blin.data.prepare import preprocess
from blin.errors import BlinError, ConfigError, DataError

LOG = "user,item,time\nann,tea,2\nann,milk,1\nbob,tea,1\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "Visits.csv"
    path.write_text(LOG)
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def prepare(log: Path, data_dir: Path, **options):
    return preprocess(log, data_dir=data_dir, **{"min_interactions": 1, **options})


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_the_directory_holds_the_documented_files(log, data_dir):
    path = prepare(log, data_dir).path
    assert entries(path) == [
        "dataset.json",
        "items.npy",
        "items.parquet",
        "offsets.npy",
        "splits.npy",
        "timestamps.npy",
        "users.parquet",
    ]
    assert np.load(path / "items.npy").tolist() == [2, 1, 1]
    assert np.load(path / "offsets.npy").tolist() == [0, 2, 3]
    assert np.load(path / "timestamps.npy").tolist() == [1, 2, 1]
    assert np.load(path / "splits.npy").tolist() == [[2, 2], [1, 1]]
    assert np.load(path / "items.npy", mmap_mode="r").dtype == np.uint32
    users, items = (pq.read_table(path / f"{side}.parquet") for side in ("users", "items"))
    assert users.to_pydict() == {"id": ["ann", "bob"], "count": [2, 1]}
    assert items.to_pydict() == {"id": ["tea", "milk"], "count": [2, 1]}


def test_the_metadata_tells_what_happened(log, data_dir):
    report = prepare(log, data_dir)
    metadata = json.loads((report.path / "dataset.json").read_text())
    assert metadata == report.metadata
    assert metadata["name"] == "visits"
    assert metadata["format_version"] == 1
    assert metadata["sources"][0]["file"] == "Visits.csv"
    assert metadata["sources"][0]["bytes"] == len(LOG)
    assert metadata["options"]["min_interactions"] == 1
    assert metadata["layout"]["user_column"] == "user"
    assert metadata["k_core_rounds"] == [{"users": 2, "items": 2, "interactions": 3}]
    assert metadata["fingerprint"].startswith("sha256:")


def test_the_fingerprint_is_that_of_the_arrays_on_the_disk(log, data_dir):
    import hashlib

    report = prepare(log, data_dir)
    digest = hashlib.sha256()
    for name, kind in (("offsets", "<i8"), ("items", "<u4"), ("splits", "<i8")):
        digest.update(np.load(report.path / f"{name}.npy").astype(kind).tobytes())
    assert report.fingerprint == f"sha256:{digest.hexdigest()}"


def test_the_report_is_one_object_for_json(log, data_dir):
    facts = prepare(log, data_dir).to_json()
    assert json.loads(json.dumps(facts)) == facts
    expected = {"dataset", "users", "items", "interactions", "rows_read", "fingerprint"}
    expected |= {"k_core_rounds", "seconds", "peak_memory_bytes", "reused", "path", "layout"}
    assert expected <= set(facts)
    assert facts["peak_memory_bytes"] > 1_000_000


def test_without_times_there_is_no_file_of_times(tmp_path, data_dir):
    log = tmp_path / "log.txt"
    log.write_text("u a b c\nv a b\n")
    report = prepare(log, data_dir)
    assert "timestamps.npy" not in entries(report.path)
    assert report.metadata["time"] is None
    assert report.metadata["health"]["ties"] is None
    assert prepare(log, data_dir).reused


def test_the_same_bytes_and_options_are_reused(log, data_dir, tmp_path):
    first = prepare(log, data_dir)
    changed = (first.path / "dataset.json").stat().st_mtime_ns
    second = prepare(log, data_dir)
    assert (first.reused, second.reused) == (False, True)
    assert second.metadata == first.metadata
    assert (first.path / "dataset.json").stat().st_mtime_ns == changed
    copy = tmp_path / "elsewhere" / "visits.tsv"
    copy.parent.mkdir()
    copy.write_text(LOG)
    assert prepare(copy, data_dir).reused


def test_other_bytes_or_options_are_not_reused(log, data_dir):
    prepare(log, data_dir)
    assert not prepare(log, data_dir, duplicates="last").reused
    log.write_text(LOG.replace("milk", "cola"))
    assert not prepare(log, data_dir, duplicates="last").reused


def test_a_damaged_dataset_is_made_again(log, data_dir):
    path = prepare(log, data_dir).path
    (path / "items.npy").unlink()
    assert not prepare(log, data_dir).reused
    (path / "dataset.json").write_text("{")
    assert not prepare(log, data_dir).reused
    for file in ("items.npy", "users.parquet", "items.parquet"):
        content = bytearray((path / file).read_bytes())
        content[len(content) // 2 : -8] = bytes(len(content) - len(content) // 2 - 8)
        (path / file).write_bytes(content)
        assert not prepare(log, data_dir).reused, file
    assert prepare(log, data_dir).reused


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_interactions", -1),
        ("min_user_interactions", 2**32),
        ("min_item_interactions", -5),
        ("threads", 0),
        ("min_rating", float("nan")),
        ("min_rating", "3"),
        ("min_rating", True),
        ("min_interactions", 2.0),
        ("min_interactions", "2"),
        ("min_interactions", True),
        ("threads", "1"),
        ("threads", 2**40),
        ("duplicates", True),
        ("split", None),
        ("on_bad_row", 1),
        ("log_format", 1),
        ("user_column", ["user"]),
        ("time_column", 1.0),
    ],
)
def test_an_option_out_of_its_range_is_refused_before_anything_is_read(data_dir, option, value):
    with pytest.raises(ConfigError, match=f"{option}: expected .*, found"):
        preprocess("missing.csv", data_dir=data_dir, **{option: value})
    assert not data_dir.exists()


def test_numbers_of_numpy_are_numbers(log, data_dir):
    log.write_text("user,item,time,rating\nann,tea,2,4\nann,milk,1,5\nbob,tea,1,1\n")
    report = prepare(
        log,
        data_dir,
        min_interactions=np.int64(1),
        min_rating=np.float32(1),
        threads=np.int8(1),
        user_column=np.int64(1),
        rating_column=4,
    )
    assert not report.reused
    options = {"min_interactions": 1, "min_rating": 1, "user_column": "1", "rating_column": "4"}
    assert report.metadata["options"].items() >= options.items()
    assert prepare(log, data_dir, **options).reused


@pytest.mark.parametrize("paths", [None, 3, np.zeros(2), [3]])
def test_what_is_no_log_is_refused(data_dir, paths):
    with pytest.raises(ConfigError, match="paths: expected a log or a table, found"):
        preprocess(paths, data_dir=data_dir)


def test_threads_may_prepare_one_log(log, data_dir):
    with ThreadPoolExecutor(4) as pool:
        options = {"data_dir": data_dir, "min_interactions": 1}
        logs = list(pool.map(lambda _: load_dataset(log, **options), range(8)))
        table = pa.table({"user": ["a", "a", "b"], "item": ["x", "y", "x"]})
        tables = list(pool.map(lambda _: load_dataset(table, name="table", **options), range(8)))
    for found in (logs, tables):
        assert len({each.fingerprint for each in found}) == 1
        assert all(len(each.item_ids) == each.num_items for each in found)
    assert sorted(path.name for path in data_dir.iterdir()) == sorted({logs[0].name, "table"})


def test_a_dataset_that_is_being_replaced_can_be_opened(log, data_dir):
    options = {"data_dir": data_dir, "name": "visits", "min_interactions": 1}
    preprocess(log, **options)

    def replaced() -> None:
        for number in range(60):
            preprocess(log, duplicates=("first", "last")[number % 2], **options)

    opened = 0
    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replaced)
        while not replacing.done():
            assert len(load_dataset("visits", data_dir=data_dir).item_ids) == 2
            opened += 1
        replacing.result()
    assert opened > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
def test_the_name_of_a_log_need_not_be_text(log, data_dir):
    odd = log.with_name(os.fsdecode(b"caf\xe9.csv"))
    log.rename(odd)
    report = preprocess(odd, data_dir=data_dir, min_interactions=1)
    assert report.dataset == "caf"
    found = json.loads((report.path / "dataset.json").read_bytes())
    assert found["sources"][0]["file"].endswith(odd.name)
    assert preprocess(odd, data_dir=data_dir, min_interactions=1).reused


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Beauty.tsv.gz", "beauty"),
        ("ratings.dat", "ratings"),
        ("a.csv.zst", "a"),
        ("My log (2).csv", "my-log-2"),
        ("latest.csv", "latest-log"),
    ],
)
def test_the_name_is_that_of_the_file(tmp_path, data_dir, file, name):
    log = tmp_path / file
    log.write_text(LOG)
    assert prepare(log, data_dir).dataset == name


def test_a_directory_of_parts_is_one_log_of_its_name(tmp_path, data_dir):
    logs = tmp_path / "Logs.csv"
    parts = {
        "part-2.csv": "user,item,time\nann,jam,2\n",
        "part-0.csv": "",
        "day=1/part-1.csv": "user,item,time\nann,tea,2\n",
        "part-10.csv": "ann,milk,2\n",
        "_SUCCESS": "",
        ".part-2.csv.crc": "crc!",
        "_temporary/part-3.csv": "half a row",
    }
    for name, content in parts.items():
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text(content)
    report = prepare(logs, data_dir)
    assert report.dataset == "logs"
    assert [source["file"] for source in report.metadata["sources"]] == [
        "part-1.csv",
        "part-0.csv",
        "part-10.csv",
        "part-2.csv",
    ]
    items = pq.read_table(report.path / "items.parquet")["id"].to_pylist()
    assert items == ["tea", "milk", "jam"]
    assert prepare(logs, data_dir).reused


def test_links_to_directories_of_parts_are_followed(tmp_path, data_dir):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.csv").write_text("user,item\nbob,jam\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "2024").symlink_to("../elsewhere")
    (tmp_path / "parts" / "a.csv").write_text("user,item\nann,tea\n")
    report = preprocess(tmp_path / "parts", data_dir=data_dir, min_interactions=1)
    assert [source["file"] for source in report.metadata["sources"]] == ["b.csv", "a.csv"]
    (tmp_path / "elsewhere" / "up").symlink_to("../parts")
    with pytest.raises(DataError, match="up: expected log files, found a link to a directory"):
        preprocess(tmp_path / "parts", data_dir=data_dir)


@pytest.mark.parametrize("paths", [["none.csv"], ["log.parquet", "none.csv"]])
def test_a_file_that_is_not_there_is_named(tmp_path, data_dir, paths):
    pq.write_table(pa.table({"user": ["u"], "item": ["a"]}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        preprocess([tmp_path / path for path in paths], data_dir=data_dir)
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        inspect(tmp_path / "none.csv")


def test_a_directory_above_has_its_own_name(tmp_path, data_dir, monkeypatch):
    folder = tmp_path / "Shop" / "new"
    folder.mkdir(parents=True)
    (tmp_path / "Shop" / "a.csv").write_text("user,item\nann,tea\n")
    monkeypatch.chdir(folder)
    assert preprocess("..", data_dir=data_dir, min_interactions=1).dataset == "shop"


def test_a_directory_without_a_log_is_one_line(tmp_path, data_dir):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "_SUCCESS").touch()
    with pytest.raises(DataError, match=r"logs: expected a directory of log files, found none"):
        prepare(tmp_path / "logs", data_dir)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b"])
def test_a_name_that_is_no_file_name_is_refused(log, data_dir, name):
    with pytest.raises(ConfigError, match="name: expected letters"):
        prepare(log, data_dir, name=name)


def test_a_directory_of_something_else_is_not_touched(log, data_dir):
    (data_dir / "visits").mkdir(parents=True)
    (data_dir / "visits" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="expected a prepared dataset or nothing"):
        prepare(log, data_dir)
    assert entries(data_dir / "visits") == ["thesis.tex"]


def test_bad_input_leaves_nothing(log, data_dir):
    log.write_text(LOG + "broken\n")
    with pytest.raises(DataError, match=r"Visits\.csv:5: expected 3 fields"):
        prepare(log, data_dir)
    assert entries(data_dir) == []


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), BlinError, "the disk is full"),
        (OSError(errno.EACCES, "Permission denied"), BlinError, "Permission denied"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=["full disk", "no permission", "Ctrl-C"],
)
@pytest.mark.parametrize("after", range(8))
def test_a_failure_while_writing_leaves_what_was_there(
    log, data_dir, monkeypatch, failure, raised, message, after
):
    before = prepare(log, data_dir)
    log.write_text(LOG.replace("milk", "cola"))
    calls = iter(range(100))
    sync = os.fsync

    def fail_later(descriptor: int) -> None:
        if next(calls) == after:
            raise failure
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_later)
    with pytest.raises(raised, match=message):
        prepare(log, data_dir)
    assert entries(data_dir) == ["visits"]
    assert json.loads((before.path / "dataset.json").read_text()) == before.metadata


def test_a_file_too_large_for_the_disk_is_one_line_and_leaves_nothing(log, data_dir):
    code = (
        "import sys, signal, resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from blin.data.prepare import preprocess\n"
        "from blin.errors import BlinError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (140, 140))\n"
        "try:\n"
        "    preprocess(sys.argv[1], data_dir=sys.argv[2], min_interactions=1)\n"
        "except BlinError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, log, data_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{data_dir / 'visits'}: not written: the disk is full\n"
    assert entries(data_dir) == []


def test_an_interrupt_while_reading_leaves_nothing(tmp_path, data_dir):
    log = tmp_path / "long.csv.gz"
    log.write_bytes(gzip.compress(LOG[15:].encode() * 20_000) * 400)

    def interrupt(done: int, total: int) -> None:
        assert 0 < done <= total == log.stat().st_size
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(log, data_dir, on_progress=interrupt)
    assert entries(data_dir) == []


def test_progress_ends_with_all_bytes(log, data_dir):
    seen = []
    prepare(log, data_dir, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(LOG), len(LOG))


def test_what_a_dead_process_left_is_cleaned_up(log, data_dir):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (data_dir / f".visits.tmp-{dead.pid}").mkdir(parents=True)
    (data_dir / f".visits.tmp-{os.getppid()}").mkdir()
    (data_dir / ".visits.tmp-notes").mkdir()
    prepare(log, data_dir)
    assert entries(data_dir) == [f".visits.tmp-{os.getppid()}", ".visits.tmp-notes", "visits"]


def test_a_dataset_that_a_dead_process_had_put_aside_is_back(log, data_dir):
    path = prepare(log, data_dir).path
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.rename(data_dir / f".visits.old-{dead.pid}")
    assert prepare(log, data_dir).reused
    assert entries(data_dir) == ["visits"]
