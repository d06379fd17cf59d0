"""What a run came to, where its files say it; a damaged run is not finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin.errors import ConfigError
from blin.experiments.outcomes import outcome_of, runs_of
from experiments.made_runs import make_run

EPOCH = {"epoch": 1, "losses": {}, "valid": {"HR@10": 0.1, "NDCG@10": 0.2}, "seconds": 2.5}


def made(place: Path) -> Path:
    run = make_run(place, [1, 3], epochs_wanted=1)
    (run / "history.jsonl").write_text(json.dumps(EPOCH) + "\n")
    return run


def test_a_finished_run_has_its_best_epoch_and_its_test(tmp_path: Path) -> None:
    found = outcome_of(made(tmp_path / "run"))
    assert found is not None
    assert (found.epochs, found.best_epoch, found.seconds) == (1, 1, 2.5)
    assert found.valid == EPOCH["valid"]
    assert found.test["HR@10"] == 1.0


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("eval/test.json", "[" * 100_000),
        ("eval/test.json", '{"metrics": []}'),
        ("eval/test.json", '{"metrics": {"HR@10": 0.1}}'),
        ("eval/test.json", '{"metrics": {"NDCG@10": "high"}}'),
        ("eval/test.json", '{"metrics": {"NDCG@10": 0.1, "MRR": NaN}}'),
        ("history.jsonl", "[" * 100_000),
        ("history.jsonl", "null\n"),
        ("history.jsonl", json.dumps(EPOCH | {"valid": {"NDCG@10": None}})),
        ("history.jsonl", json.dumps(EPOCH | {"seconds": None})),
    ],
)
def test_a_run_that_is_damaged_is_not_finished(tmp_path: Path, file: str, content: str) -> None:
    run = made(tmp_path / "run")
    (run / file).write_text(content)
    assert outcome_of(run) is None


def test_the_runs_of_a_dataset_are_in_its_directory_and_nowhere_else(tmp_path: Path) -> None:
    runs = [made(tmp_path / "shop" / name) for name in ("b", "a", ".a.tmp-1")]
    made(tmp_path / "mall" / "c")
    assert runs_of(tmp_path, "shop") == [runs[1], runs[0]]
    assert runs_of(tmp_path, "nothing") == []
    for name in ("", ".", "..", "shop/", "shop/..", "../shop", "/"):
        with pytest.raises(ConfigError, match="expected the name of a dataset"):
            runs_of(tmp_path, name)
