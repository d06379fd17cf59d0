"""``blin report`` as a user types it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from cli.conftest import Blin


def one_more(blin: Blin, *arguments: object) -> None:
    options = ("--dim", 16, "--epochs", 1, "--threads", 1)
    assert blin("train", "--dataset", "shop", *options, *arguments).exit_code == 0


def test_all_runs_of_a_dataset_become_a_page(blin: Blin) -> None:
    one_more(blin, "--lambda", 0)
    assert blin("train", "--dataset", "shop", "--model", "popularity").exit_code == 0
    options = ("--dataset", "shop", "--resamples", 199)
    told = json.loads(blin("report", *options, "--json").stdout)
    assert told["report"] == "report.html"
    (dataset,) = told["datasets"]
    assert list(dataset["runs"]) == ["A", "B", "C"]
    assert dataset["missing"] is None
    (table,) = dataset["tables"]
    stored = json.loads((Path(dataset["runs"]["B"]) / "eval" / "test.json").read_text())
    assert table["metrics"]["B"] == stored["metrics"]
    content = Path("report.html").read_text(encoding="utf-8")
    for metric in stored["metrics"].values():
        assert f"{metric:.4f}" in content
    assert "Gini" in content and "popularity" in content
    shown = blin("report", *options, "--out", "again.html")
    assert "again.html" in shown.stdout.splitlines()[0]
    assert Path("again.html").read_text(encoding="utf-8") == content


def test_named_runs_are_shown_in_their_order(blin_of_two: Blin) -> None:
    runs = sorted(path.parent.as_posix() for path in Path("runs/shop").glob("*/config.toml"))
    told = json.loads(blin_of_two("report", *runs[::-1], "--resamples", 199, "--json").stdout)
    shown = [Path(path).name for path in told["datasets"][0]["runs"].values()]
    assert shown == [Path(run).name for run in runs[::-1]]


def test_what_cannot_be_reported_is_refused_and_leaves_an_old_page(blin: Blin) -> None:
    (run,) = (path.parent.as_posix() for path in Path("runs/shop").glob("*/config.toml"))
    Path("report.html").write_text("old")
    refused: dict[tuple[str, ...], tuple[int, str]] = {
        (): (2, "give either runs or --dataset NAME"),
        (run, "--dataset", "shop"): (2, "give either runs or --dataset NAME"),
        (run, run): (2, "given twice"),
        (run, "--out", "report.txt"): (2, "a name that ends in .html"),
        (run, "--out", "nowhere/report.html"): (2, "a directory that is there"),
        ("nowhere",): (4, "no such directory"),
        ("--dataset", "other"): (4, "expected finished runs, found none"),
    }
    for arguments, (code, message) in refused.items():
        result = blin("report", *arguments)
        assert result.exit_code == code, arguments
        assert message in result.stderr
        assert result.stdout == ""
    Path(run, "history.jsonl").write_text("{")
    result = blin("report", run)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "history.jsonl" in result.stderr
    assert Path("report.html").read_text() == "old"
    assert not list(Path().glob(".*.tmp-*"))


def test_without_matplotlib_one_line_says_what_to_install(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = blin("report", "--dataset", "shop")
    assert result.exit_code == 1
    assert result.stderr == "error: the plots need matplotlib: pip install 'blin-rec[plot]'\n"
