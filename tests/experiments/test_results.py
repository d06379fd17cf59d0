"""The means over seeds, which point does best, and the files they are kept in."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from blin.data.dataset import Dataset
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Point, Trial
from blin.experiments.results import Results, write_results
from blin.experiments.seeds import Interval
from blin.experiments.side_by_side import Change

VALID = {"a": [0.20, 0.26, 0.23], "b": [0.30], "c": [0.21]}


def results() -> Results:
    found = Results([Point(name, "blin", {"dim": 8}, (0, 1, 2)) for name in [*VALID, "d"]])
    for name, values in VALID.items():
        for seed, value in reversed(list(enumerate(values))):
            metrics = {"HR@10": value + 0.1, "NDCG@10": value}
            outcome = Outcome(Path(f"{name}{seed}"), 9, seed + 1, 60.0, metrics, metrics)
            trial = Trial(name, "blin", seed, {})
            assert found.take(Change(trial, "finished", outcome=outcome))
    assert not found.take(Change(Trial("d", "blin", 0, {}), "begins"))
    assert found.take(Change(Trial("d", "blin", 0, {}), "failed", reason="no luck"))
    return found


def test_the_best_is_chosen_by_the_mean_of_the_validation() -> None:
    found = results()
    assert [row.point.name for row in found.rows] == ["a", "b", "c"]
    assert found.best is not None and found.best.point.name == "b"
    interval = found.rows[0].interval("valid", "NDCG@10")
    assert interval == Interval.of(VALID["a"], 0.95)
    # t(0.975; 2) = 4.3027 times the deviation, .03, by the root of the three seeds.
    assert str(interval) == "0.2300 ± 0.0745"
    columns, rows = found.table(confidence=0.5)
    # t(0.75; 2) = 0.8165
    assert rows[0][columns.index("valid NDCG@10")] == "0.2300 ± 0.0141"
    assert str(found.rows[1].interval("test", "HR@10")) == "0.4000"
    assert found.failures == {"d, seed 0": "no luck"}
    assert Results().best is None


def test_a_failure_is_forgotten_once_the_training_is_finished() -> None:
    found = results()
    outcome = Outcome(Path("d0"), 1, 1, 1.0, {"NDCG@10": 0.1}, {"NDCG@10": 0.1})
    found.take(Change(Trial("d", "blin", 0, {}), "finished", outcome=outcome))
    assert found.failures == {}


def test_a_name_may_hold_what_tables_are_made_of(tmp_path: Path, small_dataset: Dataset) -> None:
    metrics = {"HR@10": 0.2, "NDCG@10": 0.1}
    names = ["a | b", "line\nbreak", "back\\|"]
    found = Results([Point(name, "blin", {}, (0,)) for name in names])
    for name in names:
        outcome = Outcome(Path("run"), 9, 1, 60.0, metrics, metrics)
        found.take(Change(Trial(name, "blin", 0, {}), "finished", outcome=outcome))
    write_results(tmp_path, found, small_dataset, command=["blin", "sweep"])
    head, *lines = (tmp_path / "sweep.md").read_text().splitlines()[2:]
    cells = [re.split(r"(?<!\\) \| ", line) for line in lines[1:]]
    assert {len(each) for each in cells} == {len(head.split(" | "))}
    assert [each[1] for each in cells] == [r"a \| b", "line break", r"back\\\|"]


def test_the_files_of_a_sweep(tmp_path: Path, small_dataset: Dataset) -> None:
    write_results(tmp_path / "sweep", results(), small_dataset, command=["blin", "sweep"])
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert (kept["dataset"], kept["best"]) == (small_dataset.name, "b")
    assert kept["fingerprint"] == small_dataset.fingerprint
    assert kept["failed"] == [{"trial": "d, seed 0", "reason": "no luck"}]
    first = kept["points"][0]
    assert first["valid"]["NDCG@10"] == asdict(Interval.of(VALID["a"], 0.95))
    assert kept["points"][1]["test"]["NDCG@10"] == {"mean": 0.3, "low": None, "high": None}
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    lines = (tmp_path / "sweep" / "sweep.md").read_text().splitlines()
    assert lines[0] == f"{small_dataset.name}. Mean over seeds ± half of its 95 % interval."
    assert lines[5].startswith("| best | b | 1 | 0.4000 | 0.3000 |")
    assert sorted(file.name for file in (tmp_path / "sweep").iterdir()) == [
        "sweep.json",
        "sweep.md",
    ]
