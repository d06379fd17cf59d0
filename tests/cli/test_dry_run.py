from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.conftest import Blin

DRY = ("train", "--dataset", "shop", "--dim", 8, "--threads", 1, "--dry-run")


def everything() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


def test_a_dry_run_says_what_training_takes_and_writes_nothing(blin: Blin) -> None:
    before = everything()
    result = blin(*DRY, "--set", "patience=4", "--batch-size", 100)
    assert result.exit_code == 0, result.stderr
    assert everything() == before
    for line in (
        r"model +blin, [\d,]+ parameters",
        r"computes on +cpu, 1 thread",
        r"an epoch +\d+ users in 2 batches, each of \d+ rows of \d+ positions, in 2 views",
        r"weights +[\d.]+ kB; gradients [\d.]+ kB, optimiser [\d.]+ kB",
        r"peak memory +[\d.]+ [MG]B, measured, of the process",
        r"time +[\d,]+ ms a batch, [\d.]+ s an epoch, and [\d.]+ s to validate \d+ users",
        r"in all +[\w. ]+ \(5 epochs\) to [\w. ]+ \(200\)",
    ):
        assert re.search(f"^{line}$", result.stdout, re.MULTILINE), line
    assert "training ends 4 epochs after it" in result.stderr


def test_a_dry_run_in_json(blin: Blin) -> None:
    result = blin(*DRY, "--epochs", 7, "--json")
    told = json.loads(result.stdout)
    assert told["epochs"] == {"fewest": 7, "most": 7}
    whole = 7 * (told["seconds_per_epoch"] + told["seconds_per_validation"])
    assert told["seconds"]["most"] == pytest.approx(whole)
    assert told["memory_bytes"]["weights"] == 4 * told["parameters"]
    assert told["settings"]["dim"] == 8


@pytest.mark.parametrize("option, weight", [(("--ted",), 0.1), (("--ted", 0.25), 0.25)])
def test_ted_has_a_weight_of_its_own(blin: Blin, option: tuple[object, ...], weight: float) -> None:
    told = json.loads(blin(*DRY, *option, "--json").stdout)
    assert told["settings"]["ted_weight"] == weight


def test_a_dry_run_downloads_nothing_and_resumes_nothing(blin: Blin) -> None:
    before = everything()
    result = blin("train", "--dataset", "ml-1m", "--dry-run")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "error: ml-1m: expected a prepared dataset, found one to download: "
        "run blin preprocess ml-1m first\n"
    )
    result = blin("train", "--resume", "latest", "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--dry-run is for a new run: leave out --resume" in result.stderr
    assert everything() == before


def test_what_no_row_holds_is_told(blin: Blin) -> None:
    short = ("train", "--dataset", "shop", "--max-len", 3, "--dim", 8, "--threads", 1)
    for how in (("--dry-run",), ("--epochs", 1)):
        told = r"^\d\d% of the training steps are older than what a row holds"
        assert re.search(told, blin(*short, *how).stderr, re.MULTILINE)
    whole = blin(*short, "--set", "long_sequences=windows", "--dry-run")
    assert re.search(r"^an epoch +\d+ windows in ", whole.stdout, re.MULTILINE)
    assert "training steps" not in whole.stderr + blin(*DRY).stderr
