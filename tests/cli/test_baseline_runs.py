"""Baselines on the command line: models like the others, and what the others end with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blin.models import BASELINES
from cli.conftest import Blin

TRAIN = ("train", "--dataset", "shop", "--dim", 8, "--epochs", 1)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_trained_and_used_like_any_model(blin: Blin, name: str) -> None:
    result = blin("train", "--dataset", "shop", "--model", name)
    assert result.exit_code == 0, result.stderr
    assert re.search(
        rf"^runs/shop/\d+-\d+-{name}: counted and ranked in \d+\.\d s$", result.stderr, re.MULTILINE
    )
    assert "beat" not in result.stderr
    assert re.search(r"^NDCG@10 +0\.\d{4}$", result.stdout, re.MULTILINE)
    stored = json.loads(Path("runs/latest/eval/test.json").read_text())["metrics"]
    evaluated = json.loads(blin("evaluate", "--k", 10, 20, "--json").stdout)
    assert Path(evaluated["run"]).name.endswith(name) and evaluated["metrics"] == stored
    user = pq.read_table("data/shop/users.parquet")["id"][0].as_py()
    assert len(json.loads(blin("recommend", "--user", user, "--json").stdout)) == 10
    items = pq.read_table("data/shop/items.parquet")["id"].to_pylist()[:2]
    told = json.loads(blin("recommend", "--history", ",".join(items), "--json").stdout)
    assert len(told) == 10 and not {row["item_id"] for row in told} & set(items)
    assert blin("recommend", "--all", "--out", "recs.parquet").exit_code == 0


@pytest.mark.parametrize("name", BASELINES)
def test_where_nothing_follows_anything_all_baselines_are_counted(blin: Blin, name: str) -> None:
    lines = [f"{user},i{item},{item}" for user in "abc" for item in range(3)]
    Path("two.csv").write_text("\n".join(["user,item,time", *lines]))
    assert blin("preprocess", "two.csv", "--min-interactions", 1).exit_code == 0
    result = blin("train", "--dataset", "two", "--model", name)
    assert result.exit_code == 0, result.stderr


def test_a_baseline_as_json(blin: Blin) -> None:
    told = json.loads(blin("train", "--dataset", "shop", "--model", "markov", "--json").stdout)
    assert (told["epochs"], told["best_epoch"], told["baselines"]) == (0, 0, {})


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ("--model popularity --lambda 2", 2, "--lambda: popularity has no agreement of two views"),
        ("--model markov --epochs 3", 2, "--epochs: markov has no setting epochs"),
        ("--model item-knn --seed 1", 2, "--seed: item-knn has no setting seed"),
        ("--model markov --set vertical_=1", 2, 'unknown setting "vertical_"; known are none'),
        ("--model item-knn --set neighbours=0", 2, "neighbours: expected at least 1, found 0"),
        ("--model item-kn", 2, 'unknown model "item-kn"; did you mean "item-knn"?'),
    ],
)
def test_what_a_baseline_does_not_know(blin: Blin, arguments: str, code: int, message: str) -> None:
    runs = sorted(Path("runs").rglob("*"))
    result = blin("train", "--dataset", "shop", *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert sorted(Path("runs").rglob("*")) == runs


def test_a_baseline_run_is_not_resumed(blin: Blin) -> None:
    assert blin("train", "--dataset", "shop", "--model", "markov").exit_code == 0
    result = blin("train", "--resume", "latest")
    assert result.exit_code == 4
    assert "markov learns in one go: its run is complete" in result.stderr


def test_a_run_ends_by_saying_what_it_beats(blin: Blin) -> None:
    for kept in Path("runs/shop").glob(".baselines-*"):
        kept.unlink()
    told = json.loads(blin(*TRAIN, "--json").stdout)
    assert told["baselines"].keys() == set(BASELINES)
    assert told["baselines"]["markov"].keys() == told["metrics"].keys()
    (kept,) = Path("runs/shop").glob(".baselines-*")
    # From now on it is read: whatever stands there is what is said.
    content = json.loads(kept.read_text())
    own = told["metrics"]["NDCG@10"]
    for name, metrics in content["metrics"].items():
        metrics["NDCG@10"] = own / (2 if name == "markov" else 4)
    kept.write_text(json.dumps(content))
    beaten = blin("train", "--resume", "latest")
    low = f"{own / 4:.4f}"
    line = f"test NDCG@10 {own:.4f} beats markov {own / 2:.4f}, recent-popularity {low}, "
    assert f"{line}popularity {low}, item-knn {low}\n" in beaten.stderr
    for name in ("markov", "item-knn"):  # a tie is no win
        content["metrics"][name]["NDCG@10"] = own
    kept.write_text(json.dumps(content))
    line = f"warning: test NDCG@10 {own:.4f} does not beat markov {own:.4f}, item-knn {own:.4f}; "
    line += f"it beats recent-popularity {low}, popularity {low}\n"
    assert blin("train", "--resume", "latest", "-q").stderr == line
    assert (
        json.loads(blin("train", "--resume", "latest", "--json").stdout)["baselines"]
        == (content["metrics"])
    )
    for metrics in content["metrics"].values():
        metrics["NDCG@10"] = 1.0
    kept.write_text(json.dumps(content))
    assert re.search(
        r"^warning: test NDCG@10 0\.\d{4} does not beat (\S+ 1\.0000(, |\n)){4}",
        blin("train", "--resume", "latest").stderr,
        re.MULTILINE,
    )


def test_the_dataset_is_the_one_that_was_trained_on(blin: Blin) -> None:
    """And not another one that has its name where datasets usually are."""
    here = Path("data/shop").rename("shop").resolve()
    assert blin("preprocess", "shop.csv", "--min-interactions", 6).exit_code == 0
    result = blin("train", "--dataset", here, "--data-dir", "data", *TRAIN[3:])
    assert result.exit_code == 0, result.stderr
    assert "warning: test NDCG@10" in result.stderr
    assert f'dataset_path = "{here}"' in Path("runs/latest/config.toml").read_text()
    assert blin("evaluate", "--data-dir", "data").exit_code == 4, "data/shop is another"
