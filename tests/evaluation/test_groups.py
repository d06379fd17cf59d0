from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin import evaluate
from evaluation.logs import temporal_dataset
from evaluation.scorers import random_model
from reference import ranking as reference

BINS = {
    "0": range(1),
    "1-4": range(1, 5),
    "5-9": range(5, 10),
    "10-19": range(10, 20),
    "20-49": range(20, 50),
    "50-99": range(50, 100),
    "100-499": range(100, 500),
    "500+": range(500, 10**6),
}


@pytest.mark.parametrize("which", ["first", "all"])
def test_each_target_is_in_one_group_of_each_kind(tmp_path: Path, which: str) -> None:
    dataset = temporal_dataset(tmp_path)
    found = evaluate(random_model(dataset, levels=50), dataset, k=[2, 9], targets=which)
    targets = found.targets
    kinds = {
        "history": lambda row: next(n for n, b in BINS.items() if targets.history[row] in b),
        "popularity": lambda row: next(n for n, b in BINS.items() if targets.popularity[row] in b),
        "repeats": lambda row: "repeat" if targets.repeats[row] else "new",
    }
    assert found.groups.keys() == kinds.keys()
    for kind, name_of in kinds.items():
        names = [name_of(row) for row in range(len(targets))]
        assert found.groups[kind].keys() == set(names)
        for name, group in found.groups[kind].items():
            rows = [row for row in range(len(targets)) if names[row] == name]
            users = [int(targets.users[row]) for row in rows]
            assert (group["users"], group["targets"]) == (len(set(users)), len(rows))
            hits = [float(found.ranks[row] <= 2) for row in rows]
            suffix = "" if which == "first" else "[targets-all]"
            assert group["metrics"].keys() == found.metrics.keys()
            assert group["metrics"][f"HR@2{suffix}"] == pytest.approx(
                reference.mean_over_users(hits, users), abs=1e-12
            )
    assert "0" in found.groups["popularity"] and len(found.groups["popularity"]) > 2
    record = json.loads(found.save(tmp_path / "eval").read_text())
    assert record["groups"] == found.groups
