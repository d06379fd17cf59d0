"""Log to sequences: blin against polars, DuckDB and pandas, side by side in one run.

The job: read a log (user, item, timestamp), filter to the 5-core's fixed point, index users and
items, sort by user and time. Logs have 5 and 20 million rows, ids that are integers or text, and
are CSV or Parquet. Every contestant runs in a process of its own, so that its peak memory is its
own, and must give the same sequences as blin before its time counts. The machine's limit is a plain
loop that reads the file's bytes and copies them once.

    python benches/ingest.py --setup          # once: polars, DuckDB, pandas in an environment apart
    python benches/ingest.py                  # everything; takes minutes and 3 GB of disk
    python benches/ingest.py --rows 5e6 --ids integer --format csv
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(os.environ.get("BLIN_BENCH_CACHE", Path.home() / ".cache" / "blin-bench"))
OURS = ("blin", "preprocess")
PEERS = ("polars", "duckdb", "pandas")
K = 5
READ_BYTES = 1 << 20

#: Raw users, raw items and times, row by row; of raw ids of text the number in them.
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Log:
    """One of the logs."""

    rows: int
    ids: str
    format: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return CACHE / f"log-{self.rows}-{self.ids}.{self.format}"

    @property
    def title(self) -> str:
        """What tables call it."""
        return f"{self.rows / 1e6:g} M rows, {self.ids} ids, {self.format}"


@dataclass(frozen=True)
class Contestant:
    """One way to do the job."""

    version: str
    #: What is timed: takes the log and the number of threads.
    job: Callable[[Log, int], Any]
    #: What is not: turns the job's result into columns.
    columns: Callable[[Any], Columns]


def main() -> None:
    arguments = _arguments()
    if arguments.setup:
        _set_up_peers()
        return
    if arguments.run:
        print(json.dumps(_run_here(arguments.run, _only_log(arguments), arguments.threads)))
        return
    peers = _installed_peers()
    races = []
    for rows, ids, file_format in product(arguments.rows, arguments.ids, arguments.format):
        log = Log(int(rows), ids, file_format)
        _make(log)
        race = _race(log, (*OURS, *peers), arguments)
        _print_table(log, race)
        races.append({**vars(log), "bytes": log.path.stat().st_size, **race})
    if arguments.json:
        facts = {"machine": _machine(), "threads": arguments.threads, "races": races}
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="install the peers in a venv apart")
    parser.add_argument("--rows", type=float, nargs="+", default=[5e6, 20e6])
    parser.add_argument(
        "--ids", nargs="+", default=["integer", "text"], choices=["integer", "text"]
    )
    parser.add_argument("--format", nargs="+", default=["csv", "parquet"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-limit", help="of blin preprocess")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


def _only_log(arguments: argparse.Namespace) -> Log:
    return Log(int(arguments.rows[0]), arguments.ids[0], arguments.format[0])


def _race(log: Log, names: tuple[str, ...], arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs everyone in turn, several times round, so that a busy minute hits all alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    limits = []
    for _ in range(arguments.repeats):
        limits.append(_read_and_copy(log.path))
        for name in names:
            runs[name].append(_run_apart(name, log, arguments))
    digest = runs["blin"][0]["digest"]
    for name, results in runs.items():
        if any(result["digest"] != digest for result in results):
            sys.exit(f"{name}: other sequences than blin's, so its time means nothing")
    ours = [result["seconds"] for result in runs["blin"]]
    return {
        "limit_seconds": min(limits),
        "output_bytes": runs["preprocess"][0]["output_bytes"],
        "results": {
            name: {
                "version": results[0]["version"],
                "seconds": min(result["seconds"] for result in results),
                "every_run": [result["seconds"] for result in results],
                "ratio": statistics.median(
                    result["seconds"] / own for result, own in zip(results, ours, strict=True)
                ),
                "peak_bytes": max(result["peak_bytes"] for result in results),
                "bytes_before": results[0]["bytes_before"],
            }
            for name, results in runs.items()
        },
    }


def _read_and_copy(path: Path) -> float:
    """Reads a file in a plain loop and copies every byte once; returns the seconds it took."""
    buffer, copy = bytearray(READ_BYTES), bytearray(READ_BYTES)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer):
            copy[:read] = memoryview(buffer)[:read]
    return time.perf_counter() - start


def _run_apart(name: str, log: Log, arguments: argparse.Namespace) -> dict[str, Any]:
    python = _peers_python() if name in PEERS else Path(sys.executable)
    threads = str(arguments.threads)
    command = [python, __file__, "--run", name, "--threads", threads]
    command += ["--rows", str(log.rows), "--ids", log.ids, "--format", log.format]
    environment = {**os.environ, "POLARS_MAX_THREADS": threads}
    if arguments.memory_limit:
        environment["BLIN_BENCH_MEMORY_LIMIT"] = arguments.memory_limit
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _run_here(name: str, log: Log, threads: int) -> dict[str, Any]:
    contestant = CONTESTANTS[name](log)
    before = _peak_bytes()
    start = time.perf_counter()
    outcome = contestant.job(log, threads)
    seconds = time.perf_counter() - start
    peak = _peak_bytes()
    output = sum(path.stat().st_size for path in outcome.iterdir()) if name == "preprocess" else 0
    return {
        "version": contestant.version,
        "seconds": seconds,
        "peak_bytes": peak,
        "bytes_before": before,
        "output_bytes": output,
        "digest": _digest(*contestant.columns(outcome)),
    }


def _digest(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> str:
    """Adds up a hash of every interaction by raw ids.

    Every tool numbers users and items in its own way and may order events of one user at one time
    as it likes (blin keeps the file's order, which costs the others more), so ids are raw and the
    order does not enter; that each tool did group and sort is checked before.
    """
    same_user = users[1:] == users[:-1]
    if np.count_nonzero(~same_user) + 1 != len(np.unique(users)):
        sys.exit("the rows are not grouped by user")
    if np.any(same_user & (times[1:] < times[:-1])):
        sys.exit("the rows of a user are not in time order")
    hashes = np.zeros(len(users), np.uint64)
    for column in (users, items, times):
        hashes = (hashes ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(32)
    return f"{len(hashes)} rows, {int(hashes.sum()):016x}"


def _peak_bytes() -> int:
    """Returns the most memory this process has held; ``ru_maxrss`` would count its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _numbers(ids: list[str]) -> np.ndarray:
    """Returns the number in each raw id of text or, of an integer, itself."""
    bases = {"u": 16, "B": 36}
    return np.array([int(raw[2:], bases[raw[0]]) if raw[0] in bases else int(raw) for raw in ids])


def _blin(log: Log) -> Contestant:
    """The core alone: what the peers do, in memory."""
    from blin import _core
    from blin.data import columnar

    options = {
        **dict.fromkeys(("user_column", "item_column", "time_column", "rating_column")),
        **dict.fromkeys(("min_rating", "min_user_interactions", "min_item_interactions")),
        **dict.fromkeys(("valid_from", "test_from")),
        "on_bad_row": "fail",
        "min_interactions": K,
        "duplicates": "keep",
        "split": "leave-one-out",
    }

    def job(log: Log, threads: int) -> dict[str, Any]:
        if log.format == "csv":
            return _core.read_log([log.path], **options, threads=threads)
        return columnar.read_files(
            [log.path], options, lambda path, is_stopped: "", threads=threads, on_progress=None
        )

    def columns(result: dict[str, Any]) -> Columns:
        users, items = (_numbers(_texts(*result[f"{side}_ids"])) for side in ("user", "item"))
        rows = np.repeat(users, np.diff(result["offsets"]))
        return rows, items[result["items"].astype(np.int64) - 1], result["timestamps"]

    return Contestant(_blin_version(), job, columns)


def _texts(text: np.ndarray, offsets: np.ndarray) -> list[str]:
    raw, bounds = text.tobytes().decode("ascii"), offsets.tolist()
    return [raw[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _preprocess(log: Log) -> Contestant:
    """The whole command: also hashes the log and writes the prepared dataset to the disk."""
    import pyarrow.parquet as pq

    from blin.data.prepare import preprocess

    limit = os.environ.get("BLIN_BENCH_MEMORY_LIMIT")

    def job(log: Log, threads: int) -> Path:
        shutil.rmtree(CACHE / "prepared", ignore_errors=True)
        return preprocess(
            log.path, data_dir=CACHE / "prepared", threads=threads, memory_limit=limit
        ).path

    def columns(path: Path) -> Columns:
        items, offsets, timestamps = (
            np.load(path / f"{name}.npy") for name in ("items", "offsets", "timestamps")
        )
        user_ids, item_ids = (
            _numbers(pq.read_table(path / f"{side}.parquet")["id"].to_pylist())
            for side in ("users", "items")
        )
        users = np.repeat(user_ids, np.diff(offsets))
        return users, item_ids[items.astype(np.int64) - 1], timestamps

    return Contestant(_blin_version(), job, columns)


def _blin_version() -> str:
    from importlib.metadata import version

    return version("blin-rec")


def _polars(log: Log) -> Contestant:
    import polars as pl

    id_type = pl.UInt32 if log.ids == "integer" else pl.String
    schema = {"user": id_type, "item": id_type, "timestamp": pl.Int64}

    def core(rows: pl.DataFrame) -> pl.DataFrame:
        while True:
            lazy = frequent = rows.lazy()
            for column in ("user", "item"):
                counts = lazy.group_by(column).len().filter(pl.col("len") >= K)
                frequent = frequent.join(counts, on=column, how="semi")
            left = frequent.collect(engine="streaming")
            if len(left) == len(rows):
                return rows
            rows = left

    def job(log: Log, threads: int) -> tuple[pl.DataFrame, ...]:
        is_csv = log.format == "csv"
        rows = pl.read_csv(log.path, schema=schema) if is_csv else pl.read_parquet(log.path)
        rows = core(rows)
        tables = []
        for side in ("user", "item"):
            ids = rows.select(pl.col(side).unique()).with_row_index(f"{side}_index")
            rows = rows.join(ids, on=side, how="left").drop(side)
            tables.append(ids)
        return rows.sort("user_index", "timestamp"), *tables

    def columns(result: tuple[pl.DataFrame, ...]) -> Columns:
        rows, users, items = result
        users, items = (
            _numbers(ids[side].cast(pl.String).to_list())
            for ids, side in ((users, "user"), (items, "item"))
        )
        indices = (rows[f"{side}_index"].to_numpy() for side in ("user", "item"))
        user_indices, item_indices = indices
        return users[user_indices], items[item_indices], rows["timestamp"].to_numpy()

    return Contestant(pl.__version__, job, columns)


def _duckdb(log: Log) -> Contestant:
    import duckdb

    id_type = "UINTEGER" if log.ids == "integer" else "VARCHAR"
    source = (
        f"read_csv('{log.path}', header = true, columns = "
        f"{{'user': '{id_type}', 'item': '{id_type}', 'timestamp': 'BIGINT'}})"
        if log.format == "csv"
        else f"read_parquet('{log.path}')"
    )

    def job(log: Log, threads: int) -> tuple[Any, dict[str, np.ndarray]]:
        database = duckdb.connect(config={"threads": threads})
        database.execute(f"create table rows as select * from {source}")
        left = -1
        while (before := database.execute("select count(*) from rows").fetchone()[0]) != left:
            left = before
            database.execute(
                "create or replace table rows as select * from rows "
                f"where user in (select user from rows group by user having count(*) >= {K}) "
                f"and item in (select item from rows group by item having count(*) >= {K})"
            )
        for side in ("user", "item"):
            database.execute(
                f"create table {side}s as select {side}, row_number() over () - 1 as {side}_index "
                f"from (select distinct {side} from rows)"
            )
        rows = database.execute(
            "select user_index, item_index, timestamp from rows "
            "join users using (user) join items using (item) order by user_index, timestamp"
        ).fetchnumpy()
        return database, rows

    def columns(result: tuple[Any, dict[str, np.ndarray]]) -> Columns:
        database, rows = result

        def ids(side: str) -> np.ndarray:
            query = f"select {side}::varchar from {side}s order by {side}_index"
            return _numbers([raw for (raw,) in database.execute(query).fetchall()])

        users, items = ids("user")[rows["user_index"]], ids("item")[rows["item_index"]]
        return users, items, rows["timestamp"]

    return Contestant(duckdb.__version__, job, columns)


def _pandas(log: Log) -> Contestant:
    import pandas as pd

    id_type = np.uint32 if log.ids == "integer" else "str"
    types = {"user": id_type, "item": id_type, "timestamp": np.int64}

    def job(log: Log, threads: int) -> tuple[pd.DataFrame, list[Any]]:
        is_csv = log.format == "csv"
        rows = pd.read_csv(log.path, dtype=types) if is_csv else pd.read_parquet(log.path)
        tables = []
        for side in ("user", "item"):
            rows[side], ids = pd.factorize(rows[side])
            tables.append(ids)
        while True:
            counts = [rows[side].map(rows[side].value_counts()) for side in ("user", "item")]
            frequent = (counts[0] >= K) & (counts[1] >= K)
            if frequent.all():
                break
            rows = rows[frequent]
        for place, side in enumerate(("user", "item")):
            indices, left = pd.factorize(rows[side])
            rows = rows.assign(**{side: indices})
            tables[place] = tables[place][left]
        return rows.iloc[np.lexsort((rows["timestamp"], rows["user"]))], tables

    def columns(result: tuple[pd.DataFrame, list[Any]]) -> Columns:
        rows, (users, items) = result
        users, items = (_numbers([str(raw) for raw in ids]) for ids in (users, items))
        return users[rows["user"]], items[rows["item"]], rows["timestamp"].to_numpy()

    return Contestant(pd.__version__, job, columns)


CONTESTANTS = {
    "blin": _blin,
    "preprocess": _preprocess,
    "polars": _polars,
    "duckdb": _duckdb,
    "pandas": _pandas,
}


def _peers_python() -> Path:
    return CACHE / "peers" / "bin" / "python"


def _set_up_peers() -> None:
    venv.create(CACHE / "peers", with_pip=True)
    packages = ["numpy", "pyarrow", *PEERS]
    subprocess.run([_peers_python(), "-m", "pip", "install", "-q", *packages], check=True)


def _installed_peers() -> list[str]:
    if not _peers_python().exists():
        print("no peers to compare with; install them with --setup", file=sys.stderr)
        return []
    found = [
        subprocess.run([_peers_python(), "-c", f"import {peer}"], capture_output=True, check=False)
        for peer in PEERS
    ]
    return [peer for peer, done in zip(PEERS, found, strict=True) if done.returncode == 0]


def _make(log: Log) -> None:
    """Writes the log by a seeded generator if it is not there yet.

    Users' activity and items' popularity have long tails, ids have gaps, times span five years and
    the rows come in the order of nothing in particular.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if log.path.exists():
        return
    log.path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    num_users, num_items = max(log.rows // 20, 10), max(log.rows // 60, 10)
    activity = generator.lognormal(0, 1.1, num_users).cumsum()
    popularity = (1 / np.arange(1, num_items + 1) ** 0.9).cumsum()
    ids = [_raw_ids(log, "user", num_users), _raw_ids(log, "item", num_items)]
    schema = pa.schema([("user", ids[0].type), ("item", ids[1].type), ("timestamp", pa.int64())])
    part = log.path.with_suffix(".part")
    writer = (
        pyarrow.csv.CSVWriter(
            part, schema, write_options=pyarrow.csv.WriteOptions(quoting_style="none")
        )
        if log.format == "csv"
        else pyarrow.parquet.ParquetWriter(part, schema)
    )
    with writer:
        for start in range(0, log.rows, 1_000_000):
            size = min(1_000_000, log.rows - start)
            users = np.searchsorted(activity, generator.random(size) * activity[-1])
            items = np.searchsorted(popularity, generator.random(size) * popularity[-1])
            times = 1_420_070_400 + generator.integers(0, 157_766_400, size)
            columns = [ids[0].take(pa.array(users)), ids[1].take(pa.array(items)), pa.array(times)]
            writer.write_table(pa.table(columns, schema=schema))
    part.rename(log.path)


def _raw_ids(log: Log, side: str, size: int) -> Any:
    """Returns integers with gaps, or text such as ``u_9e3779b1`` and ``B00FJV7YPC``."""
    import pyarrow as pa

    numbers = np.arange(size, dtype=np.uint64)
    if log.ids == "integer":
        step, start = (7, 1_000) if side == "user" else (11, 500)
        return pa.array((numbers * step + start).astype(np.uint32))
    scattered = ((numbers + 1) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)).tolist()
    if side == "user":
        return pa.array([f"u_{number:08x}" for number in scattered])
    return pa.array([f"B0{np.base_repr(number, 36):0>8}" for number in scattered])


def _print_table(log: Log, race: dict[str, Any]) -> None:
    megabytes, limit = log.path.stat().st_size / 1e6, race["limit_seconds"]
    print(f"\n{log.title}: {megabytes:.0f} MB, prepared {race['output_bytes'] / 1e6:.0f} MB")
    print(f"{'':12}{'version':>10}{'seconds':>10}{'to blin':>10}{'peak MB':>10}{'imports MB':>12}")
    for name, result in race["results"].items():
        peak, before = result["peak_bytes"] / 1e6, result["bytes_before"] / 1e6
        print(
            f"{name:12}{result['version']:>10}{result['seconds']:>10.2f}{result['ratio']:>9.1f}x"
            f"{peak:>10.0f}{before:>12.0f}"
        )
    print(f"read + copy {limit:>20.2f}  ({megabytes / limit / 1e3:.1f} GB/s)", flush=True)


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
