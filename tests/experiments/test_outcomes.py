"""What a run came to, where its files say it; a damaged run is not finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin.data.dataset import Dataset
from blin.errors import CheckpointError, ConfigError
from blin.experiments.outcomes import KnownRuns, epochs_of, finished_runs, outcome_of, runs_of
from blin.experiments.points import Point
from experiments.made_runs import make_run
from trained import train_points

RANKS = [1, 2, 30]
EPOCH = {"epoch": 1, "losses": {}, "valid": {"HR@10": 0.1, "NDCG@10": 0.2}, "seconds": 2.5}


def test_finished_runs_are_trained_to_their_end_and_tested(tmp_path: Path) -> None:
    place = tmp_path / "shop"
    make_run(place / "b", RANKS, epochs_wanted=3, seed=1)
    make_run(place / "a", RANKS, epochs_wanted=9, patience=1)
    make_run(place / "not-tested", None, epochs_wanted=3)
    make_run(place / "stopped", RANKS, epochs_wanted=9)
    make_run(place / ".new", RANKS, epochs_wanted=3)
    make_run(place / "foreign", RANKS, model="foreign", epochs_wanted=3)
    make_run(place / "damaged", RANKS, epochs_wanted=3)
    (place / "damaged" / "config.toml").write_text("[")
    (first, patient), (second, whole) = finished_runs(tmp_path, "shop")
    assert (first.path.name, second.path.name) == ("a", "b")
    assert (second.model, second.fingerprint) == ("blin", "sha256:0")
    # What the run does not name has its default.
    assert (second.settings["seed"], second.settings["batch_size"]) == (1, 256)
    assert (patient.best_epoch, whole.best_epoch, whole.epochs) == (2, 2, 3)
    with pytest.raises(CheckpointError, match="expected finished runs, found none"):
        finished_runs(tmp_path, "other")


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


def test_a_history_that_cannot_be_read_has_no_epochs(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    assert epochs_of(run) == 1
    (run / "history.jsonl").write_bytes(b"\xff\n")
    assert epochs_of(run) == 0


def test_a_counted_model_that_was_not_tested_is_counted_anew(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    point = Point("popular", "popularity", {}, ())
    (run,) = train_points([point], small_dataset, tmp_path)
    (trial,) = point.trials(small_dataset)
    known = KnownRuns(tmp_path, small_dataset)
    assert known.find(trial) == (run, outcome_of(run))
    (run / "eval" / "test.json").unlink()
    assert known.find(trial) is None


def test_the_runs_of_a_dataset_are_in_its_directory_and_nowhere_else(tmp_path: Path) -> None:
    runs = [made(tmp_path / "shop" / name) for name in ("b", "a", ".a.tmp-1")]
    made(tmp_path / "mall" / "c")
    assert runs_of(tmp_path, "shop") == [runs[1], runs[0]]
    assert runs_of(tmp_path, "nothing") == []
    for name in ("", ".", "..", "shop/", "shop/..", "../shop", "/"):
        with pytest.raises(ConfigError, match="expected the name of a dataset"):
            runs_of(tmp_path, name)
