"""Prepared datasets that are damaged, swapped or made to break the reader."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blin.data.dataset import Dataset, load_dataset
from blin.data.prepare import preprocess
from blin.errors import ConfigError, DataError
from damage import damaged, message_of
from small import write_small_log

ARRAYS = ("items", "offsets", "splits")
FILES = (*(f"{name}.npy" for name in ARRAYS), "dataset.json", "users.parquet", "items.parquet")


@pytest.fixture
def path(small_dataset: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_dataset.path, tmp_path / "small"))


def content_of(path: Path) -> list[Any]:
    dataset = Dataset(path)
    arrays = [getattr(dataset, name).tolist() for name in ARRAYS]
    return [*arrays, dataset.user_ids.ids.to_pylist(), dataset.item_ids.ids.to_pylist()]


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_byte_is_wrong_is_noticed_or_does_not_matter(
    small_dataset: Dataset, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(small_dataset.path, copy)
    (copy / name).write_bytes(data.draw(damaged((small_dataset.path / name).read_bytes())))
    try:
        found = content_of(copy)
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 800
    else:
        assert found == content_of(small_dataset.path)


def npy(header: str | bytes, values: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + values


def an_archive() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("items.npy", npy(""))
        return file.getvalue()


class Trap:
    """Something whose unpickling would be noticed."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        pickle.dumps(Trap()),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", pickle.dumps([Trap()])),
        an_archive(),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (4611686018427387904,)}\n"),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (1000000000000,)}\n", b"\0" * 64),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (-1,)}\n", b"\0" * 64),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (0,)}\n"),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': ()}\n", b"\0" * 4),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': (4, 4)}\n", b"\1" * 64),
        npy("{'descr': '<u4', 'fortran_order': False, 'shape': 16}\n", b"\1" * 64),
        npy("{'descr': '>u4', 'fortran_order': False, 'shape': (16,)}\n", b"\1" * 64),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (16,)}\n", b"\1" * 64),
        npy("{'descr': [('a', '<u4')], 'fortran_order': False, 'shape': (16,)}\n", b"\1" * 64),
        npy("(" * 9_000),
        npy("[" * 60_000),
        npy("-" * 9_000 + "1"),
        npy("__import__('os').abort()\n"),
        npy(b"\xff" * 99),
        npy("{}", version=b"\x09\x09"),
    ],
    ids=lambda content: repr(content[10:60]),
)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_none_is_one_clear_line(path: Path, name: str, content: bytes) -> None:
    (path / f"{name}.npy").write_bytes(content)
    message = message_of(DataError, lambda: Dataset(path))
    assert f"{name}.npy: expected" in message or "do not belong together" in message


def rewrite(path: Path, **arrays: Any) -> None:
    """Writes arrays and a fingerprint that fits them, as somebody would who means harm."""
    for name, array in arrays.items():
        np.save(path / "new.npy", array)
        (path / "new.npy").replace(path / f"{name}.npy")
    digest = hashlib.sha256()
    for name in ("offsets", "items", "splits"):
        digest.update(np.load(path / f"{name}.npy").tobytes())
    change_metadata(path, fingerprint=f"sha256:{digest.hexdigest()}")


def change_metadata(path: Path, **changes: object) -> None:
    metadata = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps(metadata | changes))


def test_offsets_that_go_round_the_numbers_are_refused(path: Path) -> None:
    """Each user's length would be positive, were it not for the limits of 64 bits."""
    dataset = Dataset(path)
    offsets, splits = np.array(dataset.offsets), np.zeros_like(dataset.splits)
    offsets[1], offsets[2] = 2**63 - 1, -(2**63) + 2**62
    rewrite(path, offsets=offsets, splits=splits)
    assert "do not belong together" in message_of(DataError, lambda: Dataset(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"items": np.zeros_like(d.items)},
        lambda d: {"items": np.full_like(d.items, 2**32 - 1)},
        lambda d: {"items": d.items[:-1]},
        lambda d: {"offsets": d.offsets[:-1]},
        lambda d: {"offsets": d.offsets + 1},
        lambda d: {"offsets": d.offsets[::-1].copy()},
        lambda d: {"splits": d.splits[:, ::-1].copy()},
        lambda d: {"splits": d.splits + 2**62},
        lambda d: {"splits": np.asfortranarray(d.splits)},
        lambda d: {"splits": d.splits[:-1]},
        lambda d: {"timestamps": d.timestamps[:-1]},
    ],
    ids=range(11),
)
def test_arrays_that_do_not_belong_together_are_refused(
    path: Path, change: Callable[[Dataset], dict[str, Any]]
) -> None:
    rewrite(path, **change(Dataset(path)))
    message = message_of(DataError, lambda: Dataset(path))
    assert "do not belong together" in message or "in C order" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 10**12}, "do not belong together"),
        ({"items": -1}, "do not belong together"),
        ({"items": "40"}, "expected items, found '40'"),
        ({"items": None}, "expected items, found None"),
        ({"users": 7}, "do not belong together"),
        ({"interactions": 7}, "do not belong together"),
        ({"name": ["small"]}, "expected name, found ['small']"),
        ({"fingerprint": 0}, "expected fingerprint, found 0"),
        ({"fingerprint": "sha256:0"}, "expected the sequences of sha256:0, found others"),
        (
            {"format_version": 2, "blin_version": "9.1"},
            "expected format version 1, found 2, written by blin 9.1: prepare the dataset again",
        ),
        ({"format_version": None}, "expected format version 1, found None"),
    ],
    ids=str,
)
def test_a_description_that_is_not_its_own_is_named(
    path: Path, changes: dict[str, object], message: str
) -> None:
    change_metadata(path, **changes)
    assert message in message_of(DataError, lambda: Dataset(path))


def test_a_dataset_is_found_by_its_name_in_a_directory_given_as_text(path: Path) -> None:
    assert load_dataset(path.name, data_dir=str(path.parent)).path == path


def test_options_beside_a_prepared_dataset_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="min_interactionz: expected nothing for the dataset"):
        load_dataset(path, min_interactionz=3)


@pytest.mark.parametrize(
    "content", [b"[" * 1_000_000, b"9" * 100_000, b" " * (17 << 20), b"null", b"[]", b"\xff"]
)
def test_a_hostile_description_is_one_clear_line(path: Path, content: bytes) -> None:
    (path / "dataset.json").write_bytes(content)
    message = message_of(DataError, lambda: load_dataset(path))
    assert "dataset.json: expected the description of a dataset, found" in message


def test_files_of_another_dataset_are_noticed(path: Path, tmp_path: Path) -> None:
    """Of as many users and items, so that every number fits."""
    log = write_small_log(tmp_path / "other.csv", seed=3)
    other = Dataset(preprocess(log, data_dir=tmp_path / "data").path)
    assert (other.num_users, other.num_items) == (120, 40)
    rewritten = path / "items.npy"
    content = rewritten.read_bytes()
    rewritten.write_bytes(content[:-4] + content[-8:-4])
    assert "found others" in message_of(DataError, lambda: Dataset(path))
    shutil.copyfile(other.path / "dataset.json", path / "dataset.json")
    message_of(DataError, lambda: Dataset(path))


def test_a_dataset_stays_what_it_was_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, data = tmp_path / "log.csv", tmp_path / "data"
    rows = [(f"u{u}", item) for u in range(4) for item in ("tea", "jam", "tea", "milk")[: u + 2]]
    log.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))

    def raw(dataset: Dataset) -> list[tuple[str, str]]:
        return [
            (dataset.user_ids.raw(user), dataset.item_ids.raw(int(item)))
            for user in range(dataset.num_users)
            for item in dataset.sequence(user)
        ]

    before = load_dataset(log, data_dir=data, min_interactions=1)
    copied = load_dataset(log, data_dir=data, min_interactions=1)
    # Other items come first, and some are gone.
    after = load_dataset(log, data_dir=data, min_interactions=1, duplicates="last")
    monkeypatch.chdir(tmp_path)
    relative = load_dataset("log", data_dir="data")
    monkeypatch.chdir("/")
    assert raw(after) == raw(relative) != rows
    for other in (copied, pickle.loads(pickle.dumps(copied)), copy.deepcopy(copied)):
        assert raw(other) == rows
    shutil.rmtree(data)
    assert raw(before) == rows


def test_ids_that_are_too_many_or_too_few_are_refused(path: Path) -> None:
    dataset = Dataset(path)
    for side, count in (("user", 119), ("item", 41)):
        file = path / f"{side}s.parquet"
        before = file.read_bytes()
        pq.write_table(pa.table({"id": ["a"] * count}), file)
        assert "do not belong together" in message_of(DataError, lambda: Dataset(path))
        found = message_of(DataError, partial(getattr, dataset, f"{side}_ids"))
        assert f"{side}s.parquet: expected" in found
        file.write_bytes(before)
    (path / "items.parquet").unlink()
    assert "items.parquet: expected a Parquet file" in message_of(DataError, lambda: Dataset(path))
