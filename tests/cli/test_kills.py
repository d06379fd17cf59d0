"""``kill -9`` at any moment: what is on disk is whole, and going on gives what would have been."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from blin.checkpoint import TrainedModel, read_run_config
from blin.cli import main
from blin.data.dataset import Dataset, is_dataset, load_dataset
from blin.tensors import read_header, read_tensors
from killing import KILLED, Commands, commands
from small import write_small_log

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL there")

TRAIN = (
    *("train", "--dataset", "small", "--dim", "8", "--max-len", "8", "--batch-size", "48"),
    *("--epochs", "3", "--set", "num_negatives=8", "--set", "learning_rate=0.02"),
    *("--padding", "random-repeat", "--threads", "1", "--device", "cpu"),
)
RESUME = ("train", "--resume", "latest", "--device", "cpu")
STATE = Path("checkpoints", "last.safetensors")


@pytest.fixture(scope="module")
def blin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands in a place with two logs and the dataset of the first."""
    place = tmp_path_factory.mktemp("killed")
    write_small_log(place / "small.csv")
    write_small_log(place / "other.csv", users=90, seed=2)
    with commands(place) as run:
        assert run.run("preprocess", "small.csv").code == 0
        yield run


@pytest.fixture(scope="module")
def unharmed(blin: Commands) -> dict[str, Any]:
    """What a training that nobody kills comes to."""
    done = blin.run(*TRAIN, "--runs-dir", "unharmed")
    assert done.code == 0, done.stderr
    return {**result_of(blin.place / "unharmed"), "writes": done.writes}


def result_of(runs: Path) -> dict[str, Any]:
    """All that the only run of a directory has, but for how long it took."""
    (config,) = runs.glob("small/*/config.toml")
    run = config.parent
    header = read_header(run / STATE)
    progress = header.about["progress"]
    history = [
        {name: record[name] for name in ("epoch", "losses", "valid")}
        for record in progress["history"]
    ]
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert lines == progress["history"]
    return {
        "state": read_tensors(run / STATE, header),
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "history": history,
        "best": (progress["best_epoch"], progress["best_metric"]),
        "test": json.loads((run / "eval" / "test.json").read_text())["metrics"],
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
    }


def assert_whole(runs: Path, history: list[dict[str, Any]]) -> None:
    """What a killed training left can be read, and belongs together."""
    for run in runs.glob("small/[!.]*"):
        read_run_config(run)
        state, model = run / STATE, run / "model"
        best = 0
        if state.exists():
            header = read_header(state)
            read_tensors(state, header)
            progress = header.about["progress"]
            for ours, theirs in zip(progress["history"], history, strict=False):
                assert ours["losses"] == theirs["losses"] and ours["valid"] == theirs["valid"]
            best = progress["best_epoch"]
        if (model / "model.safetensors").exists():
            TrainedModel.load(model)
            epoch = read_header(model / "model.safetensors").about["epoch"]
            assert 1 <= epoch <= best
    if (runs / "latest").is_symlink():
        assert (runs / "latest" / STATE).exists()


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["state"].keys() == other["state"].keys()
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][name]), name
    for name in ("model", "history", "best", "test", "files"):
        assert one[name] == other[name], name


def go_on(blin: Commands, runs: str, **how: Any) -> int:
    """Resumes the latest run, or trains one where there is none yet; returns the exit code."""
    started = list((blin.place / runs).glob("small/[!.]*"))
    done = blin.run(*(RESUME if started else TRAIN), "--runs-dir", runs, **how)
    assert done.code in (0, KILLED), done.stderr
    return done.code


def test_a_training_that_is_killed_again_and_again_comes_to_the_same(
    blin: Commands, unharmed: dict[str, Any]
) -> None:
    runs = blin.place / "again"
    for write in (2, 19, 27, 12, 17, 21, 23, 26, 28, 30, 31, 7):
        code = go_on(blin, "again", before_write=write)
        assert_whole(runs, unharmed["history"])
        if code == 0:
            break
    assert go_on(blin, "again") == 0
    assert_same(result_of(runs), unharmed)
    assert [path.name[:11] for path in runs.rglob(".*")] == [".baselines-"]


def test_another_process_with_other_hashes_gives_the_same_bits(
    blin: Commands, unharmed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(blin.place)
    result = CliRunner().invoke(main, [*TRAIN, "--runs-dir", "here"], prog_name="blin")
    assert result.exit_code == 0, result.stderr
    assert_same(result_of(blin.place / "here"), unharmed)


@pytest.mark.slow
def test_a_training_killed_before_any_of_its_writes_comes_to_the_same(
    blin: Commands, unharmed: dict[str, Any]
) -> None:
    runs = blin.place / "each"
    for write in range(1, unharmed["writes"] + 1):
        shutil.rmtree(runs, ignore_errors=True)
        assert go_on(blin, "each", before_write=write) == KILLED
        assert_whole(runs, unharmed["history"])
        assert go_on(blin, "each") == 0
        assert_same(result_of(runs), unharmed)
    assert [path.name[:11] for path in runs.rglob(".*")] == [".baselines-"]


@pytest.mark.slow
def test_a_training_killed_at_a_hundred_random_moments_comes_to_the_same(
    blin: Commands, unharmed: dict[str, Any]
) -> None:
    draw = random.Random(0)
    runs = blin.place / "moments"
    kills = 0
    while kills < 100:
        shutil.rmtree(runs, ignore_errors=True)
        while go_on(
            blin,
            "moments",
            after=draw.uniform(0, 1.2),
            save_seconds=draw.choice([None, 0]),
        ):
            kills += 1
            assert_whole(runs, unharmed["history"])
        assert_same(result_of(runs), unharmed)
    assert [path.name[:11] for path in runs.rglob(".*")] == [".baselines-"]


def test_a_full_disk_costs_nothing_that_was_saved(blin: Commands, unharmed: dict[str, Any]) -> None:
    """Neither a new run nor one that goes on; there is room for the weights, not for the state."""
    runs = blin.place / "full"
    for limit in (500, 20_000):
        shutil.rmtree(runs, ignore_errors=True)
        done = blin.run(*TRAIN, "--runs-dir", "full", file_limit=limit)
        assert done.code == 1
        assert "File too large" in done.stderr.splitlines()[-1]
        assert_whole(runs, unharmed["history"])
    assert go_on(blin, "full", before_write=24) == KILLED
    done = blin.run(*RESUME, "--runs-dir", "full", file_limit=20_000)
    error = done.stderr.splitlines()[-1]
    assert done.code == 1
    assert "last.safetensors: not written:" in error and "File too large" in error
    assert_whole(runs, unharmed["history"])
    assert go_on(blin, "full") == 0
    assert_same(result_of(runs), unharmed)
    assert [path.name[:11] for path in runs.rglob(".*")] == [".baselines-"]


def prepare(blin: Commands, log: str, data: str, **how: Any) -> int:
    done = blin.run(
        *("preprocess", log, "--name", "shop", "--data-dir", data, "--threads", "1"), **how
    )
    assert done.code in (0, KILLED), done.stderr
    return done.code


def fingerprint_of(blin: Commands, data: str) -> str | None:
    path = blin.place / data / "shop"
    if not is_dataset(path):
        assert not path.exists()
        return None
    dataset = Dataset(path)
    assert len(dataset.user_ids) == dataset.num_users and len(dataset.item_ids) > 0
    return dataset.fingerprint


@pytest.fixture(scope="module")
def fingerprints(blin: Commands) -> dict[str, Any]:
    """Of the two datasets, and how many writes it takes to replace the one by the other."""
    found: dict[str, Any] = {}
    for log in ("small.csv", "other.csv"):
        done = blin.run("preprocess", log, "--name", "shop", "--data-dir", "replaced")
        assert done.code == 0
        found[log] = fingerprint_of(blin, "replaced")
        found["writes"] = done.writes
    return found


def assert_old_or_new(blin: Commands, fingerprints: dict[str, Any], **how: Any) -> int:
    """Kills a preprocess with and without a dataset to replace; returns how often it was killed."""
    kills = 0
    for before in ([], ["small.csv"]):
        shutil.rmtree(blin.place / "data-of-kills", ignore_errors=True)
        for log in before:
            assert prepare(blin, log, "data-of-kills") == 0
        kills += prepare(blin, "other.csv", "data-of-kills", **how) == KILLED
        old = fingerprints["small.csv"] if before else None
        assert fingerprint_of(blin, "data-of-kills") in (old, fingerprints["other.csv"])
        assert prepare(blin, "other.csv", "data-of-kills") == 0
        assert fingerprint_of(blin, "data-of-kills") == fingerprints["other.csv"]
        assert [path.name for path in (blin.place / "data-of-kills").iterdir()] == ["shop"]
    return kills


@pytest.mark.parametrize("end", [3, 4])
def test_a_preprocess_that_is_killed_leaves_the_old_dataset_or_the_new(
    blin: Commands, fingerprints: dict[str, Any], end: int
) -> None:
    """Its last writes are those that swap the two."""
    assert_old_or_new(blin, fingerprints, before_write=fingerprints["writes"] - end)


def test_a_full_disk_leaves_the_old_dataset(blin: Commands, fingerprints: dict[str, Any]) -> None:
    prepare(blin, "small.csv", "full-data")
    for limit in (100, 2_000):
        done = blin.run(
            *("preprocess", "other.csv", "--name", "shop", "--data-dir", "full-data"),
            file_limit=limit,
        )
        assert (done.code, done.stderr.count("\n")) == (1, 1)
        assert "full-data/shop: not written: the disk is full" in done.stderr
        assert [path.name for path in (blin.place / "full-data").iterdir()] == ["shop"]
        assert fingerprint_of(blin, "full-data") == fingerprints["small.csv"]


def test_a_dataset_is_found_also_after_a_kill_between_the_two_renames(
    blin: Commands, fingerprints: dict[str, Any]
) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=PIPE)
    data = Path(shutil.copytree(blin.place / "replaced", blin.place / "between"))
    (data / "shop").rename(data / f".shop.old-{int(done.stdout)}")
    assert load_dataset("shop", data_dir=data).fingerprint == fingerprints["other.csv"]
    assert [path.name for path in data.iterdir()] == ["shop"]


@pytest.mark.slow
def test_a_preprocess_killed_before_any_of_its_writes_leaves_the_old_or_the_new(
    blin: Commands, fingerprints: dict[str, Any]
) -> None:
    for write in range(1, fingerprints["writes"] + 1):
        assert assert_old_or_new(blin, fingerprints, before_write=write) >= 1


@pytest.mark.slow
def test_a_preprocess_killed_at_a_hundred_random_moments_leaves_the_old_or_the_new(
    blin: Commands, fingerprints: dict[str, Any]
) -> None:
    draw = random.Random(0)
    kills = 0
    while kills < 100:
        kills += assert_old_or_new(blin, fingerprints, after=draw.uniform(0, 0.15))
