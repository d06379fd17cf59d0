"""What was measured is not measured again, unless it was measured otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blin.experiments import bench
from blin.experiments.bench import Case, Cost, Outcome, Work, cases_left, measure
from blin.experiments.kept_costs import read_costs, write_costs

WORK = Work(users=8, items=9, batch_size=4, steps=1, device="cpu", settings={"dim": 4})
COST = Cost((0.5, 0.1, 0.2), 10_000_000, 4_000_000, 7, ((4, 6, 8),), "cpu", 1)
OUTCOMES = [
    Outcome(Case("blin", "softmax", 5), None, "too long (over 120 s)"),
    Outcome(Case("blin", "linear", 5), COST),
]


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "place" / "bench.json"
    assert read_costs(file, WORK) == []
    write_costs(file, OUTCOMES, WORK)
    assert read_costs(file, WORK) == OUTCOMES
    assert read_costs(file, replace(WORK, steps=2)) == []
    file.write_text('{"work": {"speed": 3}}')
    assert read_costs(file, WORK) == []


def test_known_cases_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Case] = []

    def run(case: Case, data: Path, work: Work) -> Outcome:
        asked.append(case)
        return Outcome(case, COST)

    monkeypatch.setattr(bench, "_run", run)
    told: list[Outcome] = []
    found = measure(
        ["blin"],
        [5, 6],
        work=WORK,
        known=OUTCOMES,
        on_outcome=lambda outcome, done, total: told.append(outcome),
    )
    # The softmax is not tried at 6: it was too long at 5.
    assert asked == [Case("blin", "linear", 6)]
    assert told == found
    assert found[:2] == OUTCOMES
    assert cases_left([5, 6], found) == len(bench.COMPARED) * 4 - 4
