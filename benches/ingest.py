"""Log to sequences: blin against polars, DuckDB and pandas, side by side in one run.

The job: read a CSV of integers (user, item, timestamp), filter to the 5-core's fixed point, index
users and items, sort by user and time. Every contestant runs in a process of its own, so that its
peak memory is its own, and must give the same sequences as blin before its time counts.

    python benches/ingest.py --setup        # once: polars, DuckDB, pandas in an environment apart
    python benches/ingest.py                # 5 million rows; --rows for more or fewer
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(os.environ.get("BLIN_BENCH_CACHE", Path.home() / ".cache" / "blin-bench"))
PEERS = ("polars", "duckdb", "pandas")
K = 5

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Contestant:
    """One way to do the job."""

    version: str
    #: What is timed: takes the log and the number of threads.
    job: Callable[[Path, int], Any]
    #: What is not: turns the job's result into raw users, raw items and times.
    columns: Callable[[Any], Columns]


def main() -> None:
    arguments = _arguments()
    if arguments.run:
        print(json.dumps(_run_here(arguments.run, arguments.log, arguments.threads)))
        return
    if arguments.setup:
        _set_up_peers()
        return
    log = _log(arguments.rows)
    results = _race(("blin", "preprocess", *_installed_peers()), log, arguments)
    _print_table(results, log, arguments)
    if arguments.json:
        facts = {"rows": arguments.rows, "bytes": log.stat().st_size, "machine": _machine()}
        arguments.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="install the peers in a venv apart")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _race(
    names: Sequence[str], log: Path, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Runs everyone in turn, several times round, so that a busy minute hits all alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(arguments.repeats):
        for name in names:
            runs[name].append(_run_apart(name, log, arguments.threads))
    digest = runs["blin"][0]["digest"]
    for name, results in runs.items():
        if any(result["digest"] != digest for result in results):
            sys.exit(f"{name}: other sequences than blin's, so its time means nothing")
    return {
        name: {
            "version": results[0]["version"],
            "seconds": statistics.median(result["seconds"] for result in results),
            "every_run": [result["seconds"] for result in results],
            "peak_bytes": max(result["peak_bytes"] for result in results),
            "bytes_before": results[0]["bytes_before"],
        }
        for name, results in runs.items()
    }


def _run_apart(name: str, log: Path, threads: int) -> dict[str, Any]:
    python = _peers_python() if name in PEERS else Path(sys.executable)
    command = [python, __file__, "--run", name, "--log", log, "--threads", str(threads)]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _run_here(name: str, log: Path, threads: int) -> dict[str, Any]:
    contestant = CONTESTANTS[name]()
    before = _peak_bytes()
    start = time.perf_counter()
    outcome = contestant.job(log, threads)
    seconds = time.perf_counter() - start
    peak = _peak_bytes()
    return {
        "version": contestant.version,
        "seconds": seconds,
        "peak_bytes": peak,
        "bytes_before": before,
        "digest": _digest(*contestant.columns(outcome)),
    }


def _digest(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> str:
    """Hashes the sorted interactions by raw ids.

    Every tool numbers users and items in its own way and may order events of one user at one time
    as it likes (blin keeps the file's order, which costs the others more), so ids are raw and such
    events are brought into one order. That each tool did sort is checked before.
    """
    same_user = users[1:] == users[:-1]
    if np.count_nonzero(~same_user) + 1 != len(np.unique(users)):
        sys.exit("the rows are not grouped by user")
    if np.any(same_user & (times[1:] < times[:-1])):
        sys.exit("the rows of a user are not in time order")
    order = np.lexsort((items, times, users))
    digest = hashlib.sha256()
    for column in (users, items, times):
        digest.update(np.ascontiguousarray(column[order], dtype=np.int64))
    return digest.hexdigest()


def _peak_bytes() -> int:
    """Returns the most memory this process has held; ``ru_maxrss`` would count its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _blin() -> Contestant:
    """The core alone: what the peers do, in memory."""
    from blin import _core

    def job(log: Path, threads: int) -> dict[str, Any]:
        return _core.read_log([log], min_interactions=K, threads=threads)

    def columns(result: dict[str, Any]) -> Columns:
        ids = {side: _integers(*result[f"{side}_ids"]) for side in ("user", "item")}
        users = np.repeat(ids["user"], np.diff(result["offsets"]))
        return users, ids["item"][result["items"].astype(np.int64) - 1], result["timestamps"]

    return Contestant(_blin_version(), job, columns)


def _preprocess() -> Contestant:
    """The whole command: also hashes the log and writes the prepared dataset to the disk."""
    import pyarrow.parquet as pq

    from blin.data.prepare import preprocess

    def job(log: Path, threads: int) -> Path:
        shutil.rmtree(CACHE / "prepared", ignore_errors=True)
        return preprocess(log, data_dir=CACHE / "prepared", threads=threads).path

    def columns(path: Path) -> Columns:
        items, offsets, timestamps = (
            np.load(path / f"{name}.npy") for name in ("items", "offsets", "timestamps")
        )
        user_ids, item_ids = (
            pq.read_table(path / f"{side}.parquet")["id"].to_numpy().astype(np.int64)
            for side in ("users", "items")
        )
        users = np.repeat(user_ids, np.diff(offsets))
        return users, item_ids[items.astype(np.int64) - 1], timestamps

    return Contestant(_blin_version(), job, columns)


def _integers(text: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    raw = text.tobytes()
    bounds = offsets.tolist()
    return np.array([int(raw[a:b]) for a, b in itertools.pairwise(bounds)])


def _blin_version() -> str:
    from importlib.metadata import version

    return version("blin-rec")


def _polars() -> Contestant:
    import polars as pl

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

    def job(log: Path, threads: int) -> pl.DataFrame:
        schema = {"user": pl.UInt32, "item": pl.UInt32, "timestamp": pl.Int64}
        rows = core(pl.read_csv(log, schema=schema))
        for column in ("user", "item"):
            ids = rows.select(pl.col(column).unique()).with_row_index(f"{column}_index", offset=1)
            rows = rows.join(ids, on=column, how="left")
        return rows.sort("user_index", "timestamp")

    def columns(rows: pl.DataFrame) -> Columns:
        return rows["user"].to_numpy(), rows["item"].to_numpy(), rows["timestamp"].to_numpy()

    return Contestant(pl.__version__, job, columns)


def _duckdb() -> Contestant:
    import duckdb

    def job(log: Path, threads: int) -> dict[str, np.ndarray]:
        database = duckdb.connect(config={"threads": threads})
        database.execute(
            "create table rows as select * from read_csv(?, header = true, columns = "
            "{'user': 'UINTEGER', 'item': 'UINTEGER', 'timestamp': 'BIGINT'})",
            [str(log)],
        )
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
                f"create table {side}s as select {side}, row_number() over () as {side}_index "
                f"from (select distinct {side} from rows)"
            )
        return database.execute(
            "select user, item, user_index, item_index, timestamp from rows "
            "join users using (user) join items using (item) order by user_index, timestamp"
        ).fetchnumpy()

    def columns(result: dict[str, np.ndarray]) -> Columns:
        return result["user"], result["item"], result["timestamp"]

    return Contestant(duckdb.__version__, job, columns)


def _pandas() -> Contestant:
    import pandas as pd

    def job(log: Path, threads: int) -> pd.DataFrame:
        rows = pd.read_csv(log, dtype={"user": np.uint32, "item": np.uint32, "timestamp": np.int64})
        while True:
            counts = [rows[side].map(rows[side].value_counts()) for side in ("user", "item")]
            frequent = (counts[0] >= K) & (counts[1] >= K)
            if frequent.all():
                break
            rows = rows[frequent]
        indices = {f"{side}_index": pd.factorize(rows[side])[0] for side in ("user", "item")}
        rows = rows.assign(**indices)
        return rows.iloc[np.lexsort((rows["timestamp"], rows["user_index"]))]

    def columns(rows: pd.DataFrame) -> Columns:
        return rows["user"].to_numpy(), rows["item"].to_numpy(), rows["timestamp"].to_numpy()

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
    subprocess.run([_peers_python(), "-m", "pip", "install", "-q", "numpy", *PEERS], check=True)


def _installed_peers() -> list[str]:
    if not _peers_python().exists():
        print("no peers to compare with; install them with --setup", file=sys.stderr)
        return []
    found = [
        subprocess.run([_peers_python(), "-c", f"import {peer}"], capture_output=True, check=False)
        for peer in PEERS
    ]
    return [peer for peer, done in zip(PEERS, found, strict=True) if done.returncode == 0]


def _log(rows: int) -> Path:
    """Returns the log, written by a seeded generator if it is not there yet.

    Users' activity and items' popularity have long tails, ids have gaps, times span five years and
    the rows come in the order of nothing in particular.
    """
    path = CACHE / f"log-{rows}.csv"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    num_users, num_items = max(rows // 20, 10), max(rows // 60, 10)
    activity = generator.lognormal(0, 1.1, num_users)
    popularity = 1 / np.arange(1, num_items + 1) ** 0.9
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(b"user,item,timestamp\n")
        for start in range(0, rows, 500_000):
            size = min(500_000, rows - start)
            users = generator.choice(num_users, size, p=activity / activity.sum())
            items = generator.choice(num_items, size, p=popularity / popularity.sum())
            times = 1_420_070_400 + generator.integers(0, 157_766_400, size)
            lines = np.stack([users * 7 + 1_000, items * 11 + 500, times], axis=1)
            file.write("".join(f"{u},{i},{t}\n" for u, i, t in lines.tolist()).encode())
    part.rename(path)
    return path


def _print_table(
    results: dict[str, dict[str, Any]], log: Path, arguments: argparse.Namespace
) -> None:
    size = log.stat().st_size
    print(f"{arguments.rows:,} rows, {size / 1e6:.0f} MB, {arguments.threads} threads, ", end="")
    print(f"median of {arguments.repeats}; all gave the same sequences")
    print(f"{'':12}{'version':>10}{'seconds':>10}{'to blin':>10}{'peak MB':>10}{'imports MB':>12}")
    for name, result in results.items():
        ratio = result["seconds"] / results["blin"]["seconds"]
        peak, before = result["peak_bytes"] / 1e6, result["bytes_before"] / 1e6
        print(
            f"{name:12}{result['version']:>10}{result['seconds']:>10.2f}{ratio:>9.1f}x"
            f"{peak:>10.0f}{before:>12.0f}"
        )


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
