"""``blin bench`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blin.experiments import bench
from blin.experiments.bench import Case, Cost, Outcome
from cli.conftest import Blin

SMALL = ("--batch-size", 4, "--items", 9, "--users", 10, "--device", "cpu", "--threads", 1)


def test_costs_are_told_case_by_case(blin: Blin) -> None:
    Path("statistics.py").write_text("raise ImportError")  # nobody asked for the one that lies here
    arguments = ("--models", "blin", "--lengths", "5", "--steps", 1, "--set", "dim=4")
    told = blin("bench", *arguments, *SMALL, "--json", "--out", "cost.svg")
    assert told.exit_code == 0, told.stderr
    value = json.loads(told.stdout)
    assert value["picture"] == "cost.svg"
    assert Path("cost.svg").read_text().startswith("<?xml")
    assert [case["attention"] for case in value["cases"]] == ["softmax", "linear"]
    for case in value["cases"]:
        assert case["reason"] is None
        assert case["seconds_per_step"] == case["cost"]["seconds"][0] > 0
        assert case["seconds_per_epoch"] == 3 * case["seconds_per_step"]
        assert case["cost"]["memory"] > case["cost"]["before"]
        assert case["cost"]["shapes"] == [[4, 5, 4]] * 4


def test_the_table_has_both_attentions_side_by_side(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(models: Any, lengths: Any, *, on_outcome: Any, **_: Any) -> list[Outcome]:
        outcomes = [
            Outcome(Case("blin", "softmax", 5), cost(0.4, 8_000_000)),
            Outcome(Case("blin", "linear", 5), cost(0.1, 4_500_000)),
            Outcome(Case("blin", "softmax", 6), None, "too long (over 1 s)"),
            Outcome(Case("blin", "linear", 6), cost(0.2, 4_000_000)),
        ]
        for number, outcome in enumerate(outcomes, 1):
            on_outcome(outcome, number, len(outcomes))
        return outcomes

    def cost(step: float, memory: int) -> Cost:
        return Cost((step,), memory, 1_000_000, 7, (), "cpu", 1)

    monkeypatch.setattr(bench, "measure", measured)
    told = blin("bench", "--models", "blin", "--lengths", "5,6", *SMALL)
    assert told.exit_code == 0
    title, _, first, second = told.stdout.splitlines()
    assert title == "10 epochs of 10 histories, 4 a step on cpu, 1 threads"
    cells = ("blin", "5", "12.0 s", "3.0 s", "4.00", "8.0 MB", "4.5 MB", "2.00")
    assert first.split() == " ".join(cells).split()
    assert "too long (over 1 s)" in second and "6.0 s" in second
    assert "blin, linear, length 5: 100 ms a step, 4.5 MB" in told.stderr
    assert "blin, softmax, length 6: too long (over 1 s)" in told.stderr
    assert "scaled from the median of 3 steps" in told.stderr
    assert "on top of the 1.0 MB before the model" in told.stderr


def test_what_cannot_be_measured_is_refused(blin: Blin) -> None:
    refused: dict[tuple[str, ...], str] = {
        ("--models", "popularity"): "popularity",
        ("--models", "gru4rec"): "expected a model with softmax or linear attention",
        ("--out", "cost.txt"): "a name that ends in .svg, .png, .pdf",
        ("--out", "nowhere/cost.svg"): "a directory that is there",
        ("--set", "dim"): "KEY=VALUE",
        ("--lengths", "0"): "0",
    }
    for arguments, message in refused.items():
        result = blin("bench", *arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
        assert result.stdout == ""
