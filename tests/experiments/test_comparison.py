"""Rows of runs that differ in their seed alone, under full ranking and among negatives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from blin.data.dataset import Dataset
from blin.errors import BlinError, CheckpointError
from blin.experiments import comparison
from blin.experiments.comparison import (
    best_of,
    best_of_each_model,
    compare_with_first,
    finished_rows,
    measured_ranks,
    rank,
)
from blin.experiments.points import Point
from blin.experiments.results import Row
from small import SMALL
from trained import train_points

POINTS = [
    Point("wide", "blin", {**SMALL, "epochs": 1, "dim": 24}, (0,)),
    Point("narrow", "blin", {**SMALL, "epochs": 3}, (1, 0)),
    Point("knn", "item-knn", {}, (0, 1)),
]


@pytest.fixture(scope="module")
def runs(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the runs of four trainings and one that is not finished."""
    place = tmp_path_factory.mktemp("runs")
    train_points(POINTS, small_dataset, place)
    (begun,) = train_points(
        [Point("a", "blin-d", {**SMALL, "epochs": 1}, (0,))], small_dataset, place
    )
    (begun / "history.jsonl").unlink()
    return place


@pytest.fixture(scope="module")
def rows(runs: Path) -> list[Row]:
    found, left_out = finished_rows(runs, "small")
    assert left_out == 0
    return found


def test_runs_that_differ_in_their_seed_alone_are_one_row(rows: list[Row]) -> None:
    blins = sorted(rows[:2], key=lambda row: len(row.outcomes))
    assert [row.point.name for row in blins] == ["blin dim=24 epochs=1", "blin dim=16 epochs=3"]
    assert [list(row.outcomes) for row in blins] == [[0], [0, 1]]
    assert rows[0].value >= rows[1].value
    assert (rows[2].point.name, list(rows[2].outcomes)) == ("item-knn", [None])
    assert len(rows) == 3


def test_the_best_of_each_model_is_chosen_by_the_validation(rows: list[Row]) -> None:
    best = best_of_each_model([rows[1], rows[2], rows[0]])
    assert [row.point.name for row in best] == ["blin", "item-knn"]
    assert best[0].outcomes == rows[0].outcomes


def test_what_is_missing_is_evaluated_once_and_kept(rows: list[Row]) -> None:
    done: list[int] = []
    found = rank(
        rows, negatives=20, device="cpu", on_progress=lambda here, total: done.append(here)
    )
    assert done == [1, 2, 3, 4]
    files = [
        outcome.run / "eval" / "test-uniform-20-s0.per_user.parquet"
        for row in rows
        for outcome in row.outcomes.values()
    ]
    times = [file.stat().st_mtime_ns for file in files]
    for each in found:
        values = [
            json.loads((outcome.run / "eval" / "test-uniform-20-s0.json").read_text())["metrics"]
            for outcome in each.row.outcomes.values()
        ]
        expected = mean(value["NDCG@10[uniform-20]"] for value in values)
        assert each.interval("NDCG@10", 0.95).mean == pytest.approx(expected)
        assert each.suffix == "[uniform-20]"
    rank(rows, negatives=20, device="cpu")
    assert [file.stat().st_mtime_ns for file in files] == times


def test_full_ranking_is_what_the_training_measured(rows: list[Row]) -> None:
    for each in rank(rows, device="cpu"):
        test = [outcome.test["HR@10"] for outcome in each.row.outcomes.values()]
        assert each.interval("HR@10", 0.9).mean == pytest.approx(mean(test))


def test_rows_are_compared_by_the_means_over_their_seeds(rows: list[Row]) -> None:
    ranked = rank(rows, device="cpu")
    first, second = compare_with_first(ranked, ["NDCG@10"], confidence=0.95, resamples=199)
    assert (first.first, first.second, second.second) == tuple(each.name for each in ranked)
    means = [each.interval("NDCG@10", 0.95).mean for each in ranked]
    assert first.difference == pytest.approx(means[1] - means[0])
    assert second.difference == pytest.approx(means[2] - means[0])
    # All p-values are at most 1, so at that level the row with the highest mean is the best.
    best = max(ranked, key=lambda each: each.interval("NDCG@10", 0.95).mean)
    assert best_of(ranked, "NDCG@10", level=1.0, resamples=199) == best.name
    assert best_of(ranked, "NDCG@10", level=1e-9, resamples=199) is None
    assert best_of(ranked[:1], "NDCG@10", level=1.0, resamples=199) is None


def test_ranks_of_weights_that_were_replaced_meanwhile_are_not_kept(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(iter(rows[0].outcomes.values())).run
    before = sorted((run / "eval").iterdir())

    def evaluate(*given: Any, **options: Any) -> Any:
        weights = run / "model" / "model.safetensors"
        shutil.copy(weights, run / "new")
        (run / "new").replace(weights)
        return found(*given, **options)

    found: Callable[..., Any] = comparison.evaluate
    monkeypatch.setattr(comparison, "evaluate", evaluate)
    with pytest.raises(BlinError, match="found a better epoch meanwhile: evaluate again"):
        measured_ranks(run, negatives=7, device="cpu")
    assert sorted((run / "eval").iterdir()) == before


@pytest.mark.parametrize("known", [True, False], ids=["said", "by-file"])
def test_the_newest_run_is_the_one_that_was_begun_last(
    runs: Path, tmp_path: Path, known: bool
) -> None:
    shutil.copytree(runs, tmp_path / "runs", symlinks=True)
    for file in sorted((tmp_path / "runs" / "small").glob("*/config.toml")):
        environment = file.with_name("environment.json")
        begun, touched = "2026-01-01T00:00:00+00:00", 1_700_000_000
        name = file.parent.name
        if "dim = 24\n" in file.read_text():
            file.write_text(file.read_text().replace('"sha256:', '"sha256:0'))
            begun, name = "2020-01-01T00:00:00+00:00", "z"
            touched += 1 if known else -1
        environment.write_text(json.dumps({"started": begun} if known else {}))
        os.utime(file, (touched, touched))
        file.parent.rename(file.parent.with_name(name))
    rows, left_out = finished_rows(tmp_path / "runs", "small")
    assert (len(rows), left_out) == (2, 1)


def test_runs_that_read_other_times_are_left_out(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs", symlinks=True)
    days = iter(range(1, 9))
    for file in sorted((tmp_path / "runs" / "small").glob("*/config.toml")):
        text = file.read_text()
        if "dim = 16\n" in text and "epochs = 3\n" in text:
            day = next(days)
            file.write_text(f'times = "crc32:{day}"\n{text}')
            begun = json.dumps({"started": f"2026-01-0{day}T00:00:00+00:00"})
            file.with_name("environment.json").write_text(begun)
    rows, left_out = finished_rows(tmp_path / "runs", "small")
    assert ([len(row.outcomes) for row in rows], left_out) == ([1, 1, 1], 1)


def test_runs_on_other_sequences_are_left_out(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs", symlinks=True)
    (wide,) = (
        file
        for file in (tmp_path / "runs" / "small").glob("*/config.toml")
        if "dim = 24\n" in file.read_text()
    )
    wide.write_text(wide.read_text().replace('fingerprint = "sha256:', 'fingerprint = "sha256:0'))
    rows, left_out = finished_rows(tmp_path / "runs", "small")
    assert (len(rows), left_out) == (2, 1)
    with pytest.raises(CheckpointError, match="expected finished runs, found none"):
        finished_rows(tmp_path / "runs", "nothing")
