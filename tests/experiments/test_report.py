"""What a report gathers: tables by passport, marks by the paired test, seeds and sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin.errors import CheckpointError
from blin.experiments.report import (
    gather,
    letter_of,
    read_run,
    seeds_of,
    sweeps_of,
)
from blin.experiments.seeds import Interval
from blin.models import MODELS
from experiments.made_runs import PROTOCOL, evaluate_run, make_run

GOOD, BAD = [1] * 30, [200] * 30


def test_letters_go_on_after_z():
    assert [letter_of(place) for place in (0, 25, 26, 53)] == ["A", "Z", "A1", "B2"]


def test_a_run_is_read(tmp_path):
    run = read_run(make_run(tmp_path / "shop" / "one", GOOD), "A")
    assert (run.name, run.epochs, run.best_epoch) == ("shop/one", 3, 2)
    assert (run.seconds, run.seconds_per_epoch, run.parameters) == (4.5, 1.5, None)
    assert run.evaluations[0].metrics == {"HR@10": 1.0, "NDCG@10": 1.0, "MRR": 1.0}


def test_unlike_passports_stand_in_separate_tables(tmp_path):
    first, second = make_run(tmp_path / "a", GOOD), make_run(tmp_path / "b", BAD)
    sampled = {"ranking": "uniform-5", "seed": 0}
    for run in (first, second):
        evaluate_run(run, GOOD, name="test-uniform-5-s0", protocol=sampled)
    evaluate_run(second, GOOD, name="valid", protocol={"split": "valid"})
    third = make_run(tmp_path / "c", None)
    evaluate_run(third, GOOD, protocol={"ties": "random"})
    (report,) = gather([first, second, third], resamples=199)
    shown = [(t.name, "".join(run.letter for run, _ in t.rows)) for t in report.tables]
    assert shown == [("test", "AB"), ("test", "C"), ("test-uniform-5-s0", "AB"), ("valid", "B")]
    for table in report.tables:
        assert all(found.protocol == table.protocol for _, found in table.rows)


def test_the_best_is_marked_only_where_the_test_allows_it(tmp_path):
    paths = [make_run(tmp_path / "a", BAD), make_run(tmp_path / "b", GOOD)]
    (report,) = gather(paths, resamples=199)
    assert report.tables[0].best == dict.fromkeys(["HR@10", "NDCG@10", "MRR"], "B")
    nearly = [1] * 29 + [2]
    paths.append(make_run(tmp_path / "c", nearly))
    (report,) = gather(paths, resamples=199)
    assert report.tables[0].best == {}
    assert report.tables[0].untested is None


def test_without_comparable_ranks_nothing_is_marked_and_it_is_said_why(tmp_path):
    paths = [make_run(tmp_path / "a", BAD), make_run(tmp_path / "b", GOOD)]
    (tmp_path / "b" / "eval" / "test.per_user.parquet").unlink()
    (report,) = gather(paths, resamples=199)
    assert report.tables[0].best == {}
    assert "expected ranks by user, found no file" in str(report.tables[0].untested)
    evaluate_run(paths[1], GOOD, users=[f"v{place}" for place in range(30)])
    (report,) = gather(paths, resamples=199)
    assert report.tables[0].best == {}
    assert "it has other users" in str(report.tables[0].untested)


def test_seeds_stand_together_and_other_settings_apart(tmp_path):
    ranks = ([1, 20, 1, 20], [1, 1, 1, 20], [1, 1, 1, 1])
    paths = [make_run(tmp_path / f"{seed}", r, seed=seed) for seed, r in enumerate(ranks)]
    paths.append(make_run(tmp_path / "other", ranks[0], dim=8))
    (report,) = gather(paths, resamples=199)
    seeds, other = seeds_of(report.tables[0])
    assert [run.letter for run in seeds.runs] == ["A", "B", "C"]
    assert seeds.intervals["HR@10"] == Interval.of([0.5, 0.75, 1.0], 0.95)
    assert [run.letter for run in other.runs] == ["D"]
    assert other.intervals["HR@10"] == Interval(0.5, None, None)
    assert report.differences == dict.fromkeys("ABC", "dim = 4") | {"D": "dim = 8"}


def test_a_seed_that_was_trained_twice_counts_once(tmp_path):
    ranks = ([1, 20, 1, 20], [1, 20, 1, 20], [1, 1, 1, 20])
    paths = [
        make_run(tmp_path / f"{number}", found, seed=seed)
        for number, (seed, found) in enumerate(zip((0, 0, 1), ranks, strict=True))
    ]
    (report,) = gather(paths, resamples=199)
    (row,) = seeds_of(report.tables[0])
    assert row.intervals["HR@10"] == Interval.of([0.5, 0.75], 0.95)
    assert (row.seeds, len(row.runs)) == (2, 3)


def test_settings_are_told_that_are_no_defaults_where_runs_are_not_alike(tmp_path):
    default = MODELS["sasrec"].config()
    paths = [
        make_run(tmp_path / "a", [1, 2], dim=8, loss="bce", num_negatives=9),
        make_run(tmp_path / "b", [1, 2], model="sasrec", dim=8, loss=default.loss, patience=10),
        make_run(tmp_path / "c", [1, 2], model="foreign", dim=64),
    ]
    (report,) = gather(paths, resamples=199)
    assert report.differences == {
        "A": "loss = bce, num_negatives = 9, dim = 8, patience = 3",
        "B": "num_negatives = 8, dim = 8",
        "C": "loss = softmax, num_negatives = 8, dim = 64, patience = 3",
    }


def test_a_sweep_is_of_runs_that_differ_in_the_weight_alone(tmp_path):
    paths = [
        make_run(tmp_path / "a", [1, 20], kl_weight=1.0),
        make_run(tmp_path / "b", [1, 1], kl_weight=0.0, model="blin-bkl"),
        make_run(tmp_path / "c", [20, 20], kl_weight=1.0, seed=1),
        make_run(tmp_path / "d", [1, 1], kl_weight=2.0, dim=8),
        make_run(tmp_path / "e", [1, 1], kl_weight=1.0, seed=1),
    ]
    (report,) = gather(paths, resamples=199)
    (sweep,) = sweeps_of(report.tables[0], "HR@10")
    # E is of the seed of C.
    assert sweep.values == {0.0: [1.0], 1.0: [0.5, 0.0]}
    assert [run.letter for run in sweep.runs] == ["A", "B", "C", "E"]
    assert sweeps_of(report.tables[0], "HR@99") == []


def test_a_patience_that_stops_no_training_tells_runs_not_apart(tmp_path):
    paths = [
        make_run(tmp_path / "a", [1, 20], kl_weight=1.0, epochs_wanted=3),
        make_run(tmp_path / "b", [1, 1], kl_weight=0.0, patience=30, epochs_wanted=3),
        make_run(tmp_path / "c", [1, 1], kl_weight=2.0, patience=1, epochs_wanted=9),
    ]
    (report,) = gather(paths, resamples=199)
    (sweep,) = sweeps_of(report.tables[0], "HR@10")
    assert [run.letter for run in sweep.runs] == ["A", "B"]
    assert report.differences == {
        "A": "kl_weight = 1.0, epochs = 3",
        "B": "kl_weight = 0.0, epochs = 3",
        "C": "epochs = 9, patience = 1",  # of kl_weight 2.0 is the default
    }


def test_a_setting_that_other_runs_lack_is_told(tmp_path):
    paths = [
        make_run(tmp_path / "a", GOOD, kl_weight=1.0),
        make_run(tmp_path / "b", GOOD, model="item-knn", neighbours=3),
    ]
    (report,) = gather(paths, resamples=199)
    assert "neighbours" not in report.differences["A"]
    assert "neighbours = 3" in report.differences["B"]


def test_runs_on_other_times_are_no_seeds_of_each_other(tmp_path):
    paths = [make_run(tmp_path / f"{seed}", GOOD, seed=seed, kl_weight=seed) for seed in range(2)]
    paths += [make_run(tmp_path / f"2{seed}", GOOD, seed=seed, kl_weight=0) for seed in range(3)]
    for path, times in zip(paths, ("a", "b", "a", "a", "b"), strict=True):
        config = path / "config.toml"
        config.write_text(f'times = "crc32:{times}"\n' + config.read_text())
    (report,) = gather(paths, resamples=199)
    rows = ["".join(run.letter for run in row.runs) for row in seeds_of(report.tables[0])]
    assert rows == ["ACD", "B", "E"]
    (sweep,) = sweeps_of(report.tables[0], "HR@10")
    assert [run.letter for run in sweep.runs] == ["B", "E"]


def test_datasets_are_told_apart_by_their_sequences(tmp_path):
    paths = [make_run(tmp_path / "a", GOOD), make_run(tmp_path / "b", GOOD)]
    config = (tmp_path / "b" / "config.toml").read_text().replace("sha256:0", "sha256:1")
    (tmp_path / "b" / "config.toml").write_text(config)
    evaluate_run(paths[1], GOOD, protocol=PROTOCOL | {"fingerprint": "sha256:1"})
    reports = gather(paths, resamples=199)
    assert [each.fingerprint for each in reports] == ["sha256:0", "sha256:1"]
    assert [each.metadata for each in reports] == [None, None]
    assert "its dataset" in str(reports[0].missing)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("history.jsonl", "{", "expected a line of JSON for each epoch"),
        ("history.jsonl", '{"epoch": 1}', "expected a line of JSON for each epoch"),
        ("history.jsonl", "[]", "expected a line of JSON for each epoch"),
        (
            "history.jsonl",
            '{"epoch": 1, "losses": {}, "valid": {}, "seconds": 1e400}',
            "seconds is inf",
        ),
        ("eval/test.json", "[1]", "expected an object"),
        ("eval/test.json", '{"metrics": {}}', "expected metrics and their protocol"),
        (
            "eval/test.json",
            json.dumps({"protocol": {}, "metrics": {"MRR": float("nan")}}),
            "MRR is nan",
        ),
        ("eval/test.json", '{"protocol": {}, "metrics": {"MRR": []}}', "expected metrics"),
        ("environment.json", "", "expected JSON"),
        ("environment.json", "[]", "expected JSON of a run, found: no object"),
        ("environment.json", '{"resumed": [1]}', "found: resumed is no list of objects"),
    ],
)
def test_what_is_damaged_is_one_clear_line(tmp_path: Path, file: str, content: str, message: str):
    run = make_run(tmp_path / "a", GOOD)
    (run / file).write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_run(run, "A")
    assert str(run / file) in str(caught.value)
    assert "\n" not in str(caught.value)
