"""One small trained run that the command tests share, and a way to run blin in its workplace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blin.cli import main
from blin.data.sample import write_sample_log

Blin = Callable[..., Result]


def run_blin(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="blin")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``shop.csv``, ``data/shop`` and a run of two epochs in ``runs``."""
    place = tmp_path_factory.mktemp("trained")
    write_sample_log(place / "shop.csv", num_customers=300, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_blin("preprocess", "shop.csv").exit_code == 0
        result = run_blin("train", "--dataset", "shop", "--dim", 16, "--epochs", 2, "--threads", 1)
        assert result.exit_code == 0, result.stderr
    return place


@pytest.fixture(scope="session")
def trained_twice(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a second run, of one epoch and another seed."""
    place = tmp_path_factory.mktemp("twice") / "shop"
    shutil.copytree(trained, place, symlinks=True)
    arguments = ("--dim", 16, "--epochs", 1, "--seed", 1, "--threads", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = run_blin("train", "--dataset", "shop", *arguments)
        assert result.exit_code == 0, result.stderr
    return place


@pytest.fixture
def blin(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blin:
    """Runs blin in a copy of the directory with one run, which is then the current one."""
    return blin_in_copy(trained, tmp_path / "shop", monkeypatch)


@pytest.fixture
def blin_of_two(trained_twice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blin:
    """Runs blin in a copy of the directory with two runs, which is then the current one."""
    return blin_in_copy(trained_twice, tmp_path / "shop", monkeypatch)


def blin_in_copy(source: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Blin:
    shutil.copytree(source, place, symlinks=True)
    monkeypatch.chdir(place)
    monkeypatch.delenv("BLIN_DATA_DIR", raising=False)
    monkeypatch.delenv("BLIN_RUNS_DIR", raising=False)
    return run_blin
