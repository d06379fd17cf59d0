"""The means over seeds, which point does best, and the files they are kept in."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

from blin.data.dataset import Dataset
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Point, Trial
from blin.experiments.results import Results, Spread, write_results
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
    spread = found.rows[0].spread("valid", "NDCG@10")
    assert spread == Spread(mean(VALID["a"]), stdev(VALID["a"]))
    assert str(spread) == "0.2300 ± 0.0300"
    assert str(found.rows[1].spread("test", "HR@10")) == "0.4000"
    assert found.failures == {"d, seed 0": "no luck"}
    assert Results().best is None


def test_a_failure_is_forgotten_once_the_training_is_finished() -> None:
    found = results()
    outcome = Outcome(Path("d0"), 1, 1, 1.0, {"NDCG@10": 0.1}, {"NDCG@10": 0.1})
    found.take(Change(Trial("d", "blin", 0, {}), "finished", outcome=outcome))
    assert found.failures == {}


def test_the_files_of_a_sweep(tmp_path: Path, small_dataset: Dataset) -> None:
    write_results(tmp_path / "sweep", results(), small_dataset, command=["blin", "sweep"])
    kept = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert (kept["dataset"], kept["best"]) == (small_dataset.name, "b")
    assert kept["fingerprint"] == small_dataset.fingerprint
    assert kept["failed"] == [{"trial": "d, seed 0", "reason": "no luck"}]
    first = kept["points"][0]
    assert first["valid"]["NDCG@10"] == {"mean": mean(VALID["a"]), "deviation": stdev(VALID["a"])}
    assert [run["seed"] for run in first["runs"]] == [0, 1, 2]
    lines = (tmp_path / "sweep" / "sweep.md").read_text().splitlines()
    assert lines[5].startswith("| best | b | 1 | 0.4000 | 0.3000 |")
    assert sorted(file.name for file in (tmp_path / "sweep").iterdir()) == [
        "sweep.json",
        "sweep.md",
    ]
