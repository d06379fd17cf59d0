"""A memory limit sends rows to the disk and changes not a byte of the result."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blin import _core
from blin.data import memory
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError
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
        assert {file.name for file in aside.iterdir()} == {f"{key}.npy" for key in result["files"]}
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


@settings(deadline=None)
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
        optional={"split": st.just("temporal"), "test_from": st.sampled_from(["0.5", "0.8"])},
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


@settings(deadline=None)
@given(interactions=rows(), k=st.integers(1, 4), duplicates=st.sampled_from(["keep", "last"]))
def test_rows_on_the_disk_become_what_the_slow_twin_makes_of_them(
    folder, interactions, k, duplicates
):
    expected = ingest.prepare(interactions, k=k, duplicates=duplicates)
    lines = [",".join(map(str, row)) for row in interactions]
    logs = write(folder, ["\n".join(["user,item,time", *lines])])
    if not expected.sequences:
        with pytest.raises(DataError, match="no interaction is left"):
            read(logs, 1, min_interactions=k, duplicates=duplicates)
        return
    result = read(logs, 1, min_interactions=k, duplicates=duplicates)
    assert raw_ids(result, "user") == expected.user_ids
    assert raw_ids(result, "item") == expected.item_ids
    assert raw_sequences(result) == expected.sequences
    assert raw_timestamps(result) == expected.timestamps
    assert result["splits"].tolist() == expected.splits
    report = result["report"]
    assert [report["before_k_core"], *report["k_core_rounds"]] == expected.rounds


def random_log(size: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    lines = [
        f"u{draw.randrange(size // 20)},i{draw.randrange(size // 30)},{draw.randrange(10**9)}\n"
        for _ in range(size)
    ]
    return "user,item,time\n" + "".join(lines)


@pytest.mark.parametrize("options", [{}, {"duplicates": "first"}, {"split": "temporal"}])
def test_many_ranges_of_users_over_many_blocks_give_the_same_bytes(tmp_path, options):
    logs = write(tmp_path, [random_log(120_000), random_log(30_000, seed=1)])
    expected = content_of(_core.read_log(logs, **options))
    for limit in (3_000_000, 1_000_000):
        result = read(logs, limit, **options)
        assert set(result["files"]) == {"items", "timestamps"}
        assert content_of(result) == expected


def test_a_log_that_unravels_slowly_takes_as_many_rounds(tmp_path):
    chain = "".join(f"u{n},i{n + step},{n}\n" for n in range(300) for step in range(2))
    square = "".join(f"v{n},j{m},{n}\n" for n in range(60) for m in range(60))
    logs = write(tmp_path, ["user,item,time\n" + chain + square])
    expected = _core.read_log(logs, min_interactions=2)
    assert len(expected["report"]["k_core_rounds"]) > 100
    for limit in (1, 180_000):
        result = read(logs, limit, min_interactions=2)
        assert result["files"]
        assert content_of(result) == content_of(expected)


def test_a_log_within_the_limit_stays_in_memory(tmp_path):
    logs = write(tmp_path, [random_log(1000)])
    assert read(logs, 10_000_000, min_interactions=1)["files"] == {}


def test_a_limit_below_the_ids_is_one_line(tmp_path):
    logs = write(tmp_path, ["user,item\nann,tea\n"])
    with pytest.raises(ConfigError) as caught:
        _core.read_log(logs, spill=(1_000, 950, tmp_path))
    assert re.fullmatch(
        r"memory_limit: expected at least \d{4} bytes of memory for the ids of users and items, "
        r"which stay there, found 1000 bytes",
        str(caught.value),
    )


def test_a_user_too_long_for_the_limit_is_one_line(tmp_path):
    logs = write(tmp_path, ["user,item,time\n" + "ann,tea,1\n" * 200_000])
    with pytest.raises(ConfigError) as caught:
        _core.read_log(logs, spill=(1_000_000, 0, tmp_path))
    assert re.fullmatch(
        r"memory_limit: expected at least 13 MB of memory for a user of 200000 interactions, "
        r"sorted at once, found 1000000 bytes",
        str(caught.value),
    )


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    logs = write(tmp_path, [random_log(100_000)])
    (tmp_path / "aside").mkdir()
    code = (
        "import sys, signal, resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from blin import _core\n"
        "from blin.errors import BlinError, DataError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (140, 140))\n"
        "try:\n"
        "    _core.read_log([sys.argv[1]], spill=(1_000_000, 0, sys.argv[2]))\n"
        "except BlinError as error:\n"
        "    assert not isinstance(error, DataError)\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, logs[0], tmp_path / "aside"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'aside'}: not written: the disk is full\n"
    assert list((tmp_path / "aside").iterdir()) == []


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing else took memory and little were enough to begin with."""
    monkeypatch.setattr(memory, "_resident_bytes", lambda: 0)
    monkeypatch.setattr(memory, "_BUFFERS", 0)
    monkeypatch.setattr(memory, "_LEAST_FOR_LOG", 0)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.usefixtures("small_memory")
def test_a_prepared_dataset_has_the_same_bytes(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(random_log(60_000))
    usual = preprocess(log, data_dir=tmp_path / "usual")
    limited = preprocess(log, data_dir=tmp_path / "limited", memory_limit="1MB")
    assert files_of(usual.path) == files_of(limited.path)
    assert [path.name for path in (tmp_path / "limited").iterdir()] == ["log"]
    assert preprocess(log, data_dir=tmp_path / "usual", memory_limit="1MB").reused


@pytest.mark.usefixtures("small_memory")
def test_columns_go_to_the_disk_too(tmp_path):
    draw = np.random.default_rng(0)
    columns = {name: draw.integers(0, 2_000, 300_000) for name in ("user", "item", "time")}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "log.parquet")
    usual = preprocess(tmp_path / "log.parquet", data_dir=tmp_path / "usual")
    limit = {"memory_limit": 4_000_000}
    limited = preprocess(tmp_path / "log.parquet", data_dir=tmp_path / "limited", **limit)
    assert files_of(usual.path) == files_of(limited.path)
    in_memory = preprocess(table, name="log", data_dir=tmp_path / "table", **limit)
    assert in_memory.fingerprint == usual.fingerprint


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("after", [1, 2, 5])
def test_an_interrupt_leaves_nothing(tmp_path, after):
    log = tmp_path / "log.csv"
    header, rows = random_log(100_000).split("\n", 1)
    log.write_text(header + "\n" + 10 * rows)
    calls = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        time.sleep(0.11)
        if len(calls) == after or done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(log, data_dir=tmp_path / "data", memory_limit="1MB", on_progress=interrupt)
    left = [path.name for path in (tmp_path / "data").iterdir()]
    # The last call comes when the dataset is there.
    assert left == [] or (left == ["log"] and len(calls) > 1)


def test_what_dead_processes_have_put_aside_is_removed(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(random_log(1000))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "data" / f".log.spill-{dead.pid}").mkdir(parents=True)
    preprocess(log, data_dir=tmp_path / "data", min_interactions=1)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("size", "total"),
    [
        (4_000_000_000, 4_000_000_000),
        ("4000000000", 4_000_000_000),
        ("4GB", 4_000_000_000),
        ("4 gb", 4_000_000_000),
        ("1.5g", 1_500_000_000),
        ("4GiB", 4 << 30),
        ("1TB", 10**12),
    ],
)
def test_sizes_are_read_as_people_write_them(size, total, monkeypatch):
    # What the process holds after other tests must not decide which sizes are enough.
    monkeypatch.setattr(memory, "_resident_bytes", lambda: 64 << 20)
    assert memory.MemoryLimit.parse(size).total == total


@pytest.mark.parametrize("size", ["", "much", "-1GB", "4XB", "1e9", "4Gi B"])
def test_what_is_no_size_is_one_line(size):
    with pytest.raises(ConfigError, match=r"memory_limit: expected a size such as 4GB or 512MiB"):
        memory.MemoryLimit.parse(size)


@pytest.mark.parametrize("size", [0, "1kB", "10MB"])
def test_a_limit_below_what_is_taken_already_is_one_line(tmp_path, size):
    log = tmp_path / "log.csv"
    log.write_text(random_log(1000))
    with pytest.raises(
        ConfigError, match=rf"memory_limit: expected at least \d+ MB, found {size}$"
    ):
        preprocess(log, data_dir=tmp_path / "data", memory_limit=size)
    assert not (tmp_path / "data").exists()


def test_the_command_takes_a_limit(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(random_log(1000))
    command = [
        sys.executable,
        "-c",
        "from blin.cli import main; main()",
        "preprocess",
        log,
        "--data-dir",
        tmp_path / "data",
    ]
    command += ["--min-interactions", "1", "--json"]
    done = subprocess.run([*command, "--memory-limit", "1GB"], capture_output=True, check=True)
    assert json.loads(done.stdout)["users"] == 50
    done = subprocess.run([*command, "--memory-limit", "1MB"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected at least" in done.stderr
    assert done.stderr.count("\n") == 1
