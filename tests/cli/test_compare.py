"""``blin compare`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Blin


def both_runs() -> tuple[str, str]:
    """Returns the two that the directory has."""
    first, second = sorted(
        path.parent.as_posix() for path in Path("runs/shop").glob("*/config.toml")
    )
    return first, second


def test_two_runs_are_compared_user_by_user(blin_of_two: Blin) -> None:
    first, second = both_runs()
    told = json.loads(blin_of_two("compare", first, second, "--resamples", 199, "--json").stdout)
    assert [Path(run["run"]).name for run in told["runs"]] == [Path(first).name, Path(second).name]
    assert told["protocol"]["ranking"] == "full"
    hits, gains = told["comparisons"]
    assert (hits["metric"], gains["metric"]) == ("HR@10", "NDCG@10")
    before, after = (run["metrics"]["HR@10"] for run in told["runs"])
    assert abs(hits["difference"] - (after - before)) < 1e-12
    assert hits["low"] <= hits["difference"] <= hits["high"]
    assert hits["wins"] + hits["losses"] + hits["ties"] == told["protocol"]["users"]
    stored = json.loads((Path(first) / "eval" / "test.json").read_text())
    assert abs(stored["metrics"]["HR@10"] - before) < 1e-12

    shown = blin_of_two("compare", first, second, "--resamples", 199, "--metric", "MRR,NDCG@5,MRR")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[1].split() == ["run", "MRR", "NDCG@5"]
    assert "B - A" in shown.stdout
    assert "p (Holm)" in shown.stdout


def test_a_comparison_as_markdown(blin_of_two: Blin) -> None:
    first, second = both_runs()
    told = blin_of_two("compare", first, second, "--resamples", 199, "--markdown")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0] == "shop, test items, full ranking"
    assert lines[2].startswith("|  | run | HR@10 | NDCG@10 |")
    assert all(line.startswith("|") for line in lines[2:] if line)


def test_what_cannot_be_compared_is_refused(blin_of_two: Blin) -> None:
    first, second = both_runs()
    refused = {
        ("compare", first): (2, "give two runs or more"),
        ("compare", first, second, first): (2, "given twice"),
        ("compare", first, second, "--metric", "recall"): (2, 'found "recall"'),
        ("compare", first, second, "--markdown", "--json"): (2, "--markdown or --json"),
        ("compare", first, "nowhere"): (4, "no such directory"),
        ("compare", first, second, "--evaluation", "valid"): (
            4,
            'it has no evaluation "valid"; there are test: make one with blin evaluate --run',
        ),
    }
    for arguments, (code, message) in refused.items():
        result = blin_of_two(*arguments)
        assert result.exit_code == code, arguments
        assert message in result.stderr
        assert result.stdout == ""


def test_metrics_of_a_sampled_protocol_keep_its_name(blin_of_two: Blin) -> None:
    runs = both_runs()
    for run in runs:
        assert blin_of_two("evaluate", "--run", run, "--negatives", 50).exit_code == 0
    options = ("--evaluation", "test-uniform-50-s0", "--resamples", 199)
    told = json.loads(blin_of_two("compare", *runs, *options, "--json").stdout)
    names = ["HR@10[uniform-50]", "NDCG@10[uniform-50]"]
    assert [each["metric"] for each in told["comparisons"]] == names
    stored = json.loads((Path(runs[1]) / "eval" / "test-uniform-50-s0.json").read_text())
    for name in names:
        assert abs(told["runs"][1]["metrics"][name] - stored["metrics"][name]) < 1e-9
    assert "HR@10[uniform-50]" in blin_of_two("compare", *runs, *options).stdout


def test_runs_are_compared_on_cut_histories(blin_of_two: Blin) -> None:
    runs = both_runs()
    told = json.loads(
        blin_of_two("compare", *runs, "--last", 1, "--resamples", 199, "--json").stdout
    )
    assert told["protocol"]["history"] == "last-1"
    names = ["HR@10[last-1]", "NDCG@10[last-1]"]
    assert [each["metric"] for each in told["comparisons"]] == names
    for run, compared in zip(runs, told["runs"], strict=True):
        stored = json.loads((Path(run) / "eval" / "test-last-1.json").read_text())
        assert compared["metrics"] == {
            name: pytest.approx(stored["metrics"][name], abs=1e-12) for name in names
        }
    shown = blin_of_two(
        "compare", "--dataset", "shop", "--last", 1, "--resamples", 199, "--markdown"
    )
    titles = [line for line in shown.stdout.splitlines() if line.startswith("shop")]
    full = "shop, test items, full ranking"
    assert titles == [full, f"{full}, history last-1"]


def test_all_runs_of_a_dataset_are_compared(blin_of_two: Blin) -> None:
    first, second = both_runs()
    assert blin_of_two("train", "--dataset", "shop", "--model", "markov").exit_code == 0
    # The runs of the fixture differ in their epochs, and so are two rows.
    options = ("--dataset", "shop", "--resamples", 199, "--device", "cpu")
    told = json.loads(blin_of_two("compare", *options, "--negatives", 20, "--json").stdout)
    full, sampled = told["protocols"]
    assert (full["protocol"]["ranking"], sampled["protocol"]["ranking"]) == ("full", "uniform-20")
    assert sorted(row["row"] for row in full["rows"]) == [
        *("blin epochs=1", "blin epochs=2", "markov"),
    ]
    for run in (first, second):
        stored = json.loads((Path(run) / "eval" / "test-uniform-20-s0.json").read_text())["metrics"]
        (row,) = (row for row in sampled["rows"] if row["runs"] == [run])
        for name in ("HR@10[uniform-20]", "NDCG@10[uniform-20]"):
            assert abs(row["metrics"][name]["mean"] - stored[name]) < 1e-9
            assert row["metrics"][name]["low"] is None
    for table in (full, sampled):
        for metric, best in table["best"].items():
            means = {row["row"]: row["metrics"][metric]["mean"] for row in table["rows"]}
            assert best in (None, max(means, key=lambda name: means[name]))

    shown = blin_of_two("compare", *options, "--best", "--markdown")
    lines = shown.stdout.splitlines()
    assert lines[0] == "shop, test items, full ranking"
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")] == [
        *("row", "---", "blin", "markov"),
    ]


def test_nothing_is_shown_of_what_cannot_be_finished(blin: Blin) -> None:
    result = blin("compare", "--dataset", "shop", "--negatives", 10**6, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "negatives: expected" in result.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "../shop", "shop/", "/"])
@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_way_to_a_directory_is_no_name_of_a_dataset(blin: Blin, command: str, name: str) -> None:
    result = blin(command, "--dataset", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f'dataset: expected the name of a dataset, found "{name}"' in result.stderr


def test_options_of_one_form_are_refused_in_the_other(blin: Blin) -> None:
    refused = {
        (): "give either two runs or more, or --dataset NAME",
        ("a", "--dataset", "shop"): "give either two runs or more, or --dataset NAME",
        ("a", "b", "--best"): "--best and --negatives need --dataset NAME",
        ("a", "b", "--negatives", 9): "--best and --negatives need --dataset NAME",
        ("a", "b", "--last", 3, "--evaluation", "test"): "give either --last or --evaluation",
        ("--dataset", "shop", "--all-pairs"): "--all-pairs and --evaluation are for named runs",
    }
    for arguments, message in refused.items():
        result = blin("compare", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
    assert blin("compare", "--dataset", "nothing").exit_code == 4
