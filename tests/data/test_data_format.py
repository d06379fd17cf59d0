"""The page on the prepared dataset, tried out."""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from collections import Counter
from datetime import datetime
from itertools import accumulate, chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blin import Blin
from blin.data.dataset import Dataset, load_dataset
from blin.data.prepare import preprocess
from small import SMALL

PAGE = Path(__file__).parents[2] / "docs" / "data-format.md"


def run_example(mark: str) -> None:
    """Runs the one example on the page that holds these words."""
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = (example for example in examples if mark in example)
    exec(compile(example, str(PAGE), "exec"), {})


def test_the_example_writes_what_a_log_of_the_same_histories_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_example("metadata = ")
    written = Dataset(tmp_path / "data" / "drinks")
    (tmp_path / "drinks.txt").write_text("ann tea milk tea\nbob milk tea jam milk\n")
    log = tmp_path / "drinks.txt"
    prepared = Dataset(preprocess(log, data_dir=tmp_path / "prepared", min_interactions=1).path)
    assert written.fingerprint == prepared.fingerprint
    assert written.item_ids.index_of("jam") == prepared.item_ids.index_of("jam") == 3


def test_every_key_of_the_metadata_is_explained(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nann,tea,1\n")
    report = preprocess(log, data_dir=tmp_path, min_interactions=1)
    page = PAGE.read_text(encoding="utf-8")
    health = report.metadata["health"]
    keys = {*report.metadata, *health}
    for part in ("ties", "test", "sequence_length", "item_popularity", "over_time"):
        keys |= health[part].keys()
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_a_dataset_that_was_written_by_the_page_alone_can_be_trained_on(tmp_path: Path) -> None:
    """Bytes for bytes as the page says, without NumPy's own writer."""
    path = tmp_path / "walks"
    path.mkdir()
    draw = random.Random(0)
    sequences = [
        [(start + step) % 12 + 1 for step in range(draw.randint(2, 9))] for start in range(60)
    ]
    lengths = [len(sequence) for sequence in sequences]
    values = {
        "offsets": ("<i8", "q", (61,), [0, *accumulate(lengths)]),
        "items": ("<u4", "I", (sum(lengths),), list(chain.from_iterable(sequences))),
        "splits": ("<i8", "q", (60, 2), [n - held for n in lengths for held in held_out(n)]),
        "timestamps": ("<i8", "q", (sum(lengths),), list(chain.from_iterable(map(range, lengths)))),
    }
    digest = hashlib.sha256()
    for name, (kind, letter, shape, numbers) in values.items():
        content = struct.pack(f"<{len(numbers)}{letter}", *numbers)
        if name != "timestamps":
            digest.update(content)
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
        header = header.ljust((10 + len(header)) // 64 * 64 + 64 - 11) + "\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        assert len(start) % 64 == 0
        (path / f"{name}.npy").write_bytes(start + content)
    counts = Counter(chain.from_iterable(sequences))
    users = pa.table({"id": [f"u{user}" for user in range(60)], "count": lengths})
    items = pa.table(
        {"id": [f"i{item}" for item in range(1, 13)], "count": [counts[i] for i in range(1, 13)]}
    )
    pq.write_table(users, path / "users.parquet")
    pq.write_table(items, path / "items.parquet", compression="none")
    sizes = {"users": 60, "items": 12, "interactions": sum(lengths)}
    fingerprint = f"sha256:{digest.hexdigest()}"
    metadata = {"format_version": 1, "name": "walks", **sizes, "fingerprint": fingerprint}
    (path / "dataset.json").write_text(json.dumps(metadata))

    dataset = load_dataset("walks", data_dir=tmp_path)
    rows = ["user,item,time"]
    for user, sequence in enumerate(sequences):
        rows += [f"u{user},i{item},{time}" for time, item in enumerate(sequence)]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    prepared = Dataset(preprocess(tmp_path / "log.csv", data_dir=tmp_path, min_interactions=1).path)
    assert dataset.fingerprint == prepared.fingerprint
    for name in values:
        file = f"{name}.npy"
        assert (dataset.path / file).read_bytes() == (prepared.path / file).read_bytes()
    model = Blin(**SMALL, seed=0).fit(dataset)
    assert model.recommend(users=["u3"], k=2).num_rows == 2


def held_out(length: int) -> tuple[int, int]:
    return (0, 0) if length < 3 else (2, 1)


def test_polars_writes_what_blin_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    run_example("write_parquet")
    assert_is_the_log_of_the_page(Path("polars.parquet"))


def test_duckdb_writes_what_blin_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    run_example("import duckdb")
    assert_is_the_log_of_the_page(Path("duckdb.parquet"))
    assert_is_the_log_of_the_page(Path("duckdb_parts"))


def assert_is_the_log_of_the_page(log: Path) -> None:
    dataset = Dataset(preprocess(log, data_dir="data", min_interactions=1).path)
    histories = {
        user: [
            dataset.item_ids.raw(int(item))
            for item in dataset.sequence(dataset.user_ids.index_of(user))
        ]
        for user in ("ann", "bob")
    }
    assert histories == {"ann": ["tea", "jam"], "bob": ["tea"]}
    first = datetime.fromisoformat(dataset.metadata["time"]["first_date"].replace("Z", "+00:00"))
    assert first.timestamp() == 1


@pytest.mark.parametrize("bucketed", [False, True])
def test_a_directory_as_spark_leaves_it_is_one_log(tmp_path: Path, bucketed: bool) -> None:
    """Parts with names of random digits, an empty one, hidden checksums, and folders of a key."""
    table = pa.table(
        {
            "user_id": [f"u{n % 10}" for n in range(90)],
            "item_id": [n % 7 for n in range(90)],
            "ts": pa.array(
                [1_700_000_000_000_000 + n for n in range(90)], pa.timestamp("us", "UTC")
            ),
        }
    )
    log = tmp_path / "log"
    for part in range(3):
        name = f"part-{part:05}-5f0c-c000.snappy.parquet"
        folder = log / f"user_bucket={2 - part}" if bucketed else log
        folder.mkdir(parents=True, exist_ok=True)
        keep = pa.array([n % 10 % 3 == part for n in range(90)])
        pq.write_table(table.filter(keep), folder / name, compression="snappy")
        (folder / f".{name}.crc").write_bytes(b"crc")
    empty = log / "user_bucket=00" if bucketed else log
    empty.mkdir(exist_ok=True)
    pq.write_table(table[:0], empty / "part-00000-0.snappy.parquet")
    (log / "_SUCCESS").touch()
    (log / "_temporary" / "0").mkdir(parents=True)
    (log / "_temporary" / "0" / "part-00000.parquet").write_bytes(b"half a file")
    pq.write_table(table, tmp_path / "whole.parquet")
    parts, whole = (
        Dataset(preprocess(source, data_dir=tmp_path / "data", min_interactions=1).path)
        for source in (log, tmp_path / "whole.parquet")
    )

    def histories(dataset: Dataset) -> dict[str, list[str]]:
        return {
            dataset.user_ids.raw(user): [
                dataset.item_ids.raw(int(item)) for item in dataset.sequence(user)
            ]
            for user in range(dataset.num_users)
        }

    assert histories(parts) == histories(whole)
    assert parts.metadata["time"] == whole.metadata["time"]
    assert len(parts.metadata["sources"]) == 4
