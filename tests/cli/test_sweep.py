"""``blin sweep`` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from blin.checkpoint import read_run_config
from blin.cli.settings import several_values
from blin.errors import BlinError
from blin.experiments import search, side_by_side
from blin.experiments.points import Range
from cli.conftest import Blin

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")

SWEEP = ("sweep", "--dataset", "shop", "--epochs", 2, "--set", "dim=16", "--device", "cpu")


def test_a_sweep_finds_what_is_trained_trains_the_rest_and_tells_the_best(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The run of the fixture has the default λ, which the sweep need not train again.
    (before,) = (file.parent for file in Path("runs/shop").glob("*/config.toml"))
    result = blin(*SWEEP, "--set", "lambda=2,0", "--jobs", 2, "--json", "--name", "my")
    assert result.exit_code == 0, result.stderr
    assert "kl_weight=2, seed 0: finished before, best after epoch" in result.stderr
    assert "kl_weight=0, seed 0: begins" in result.stderr
    told = json.loads(result.stdout)
    assert told["directory"] == "runs/shop/sweeps/my"
    first, second = told["points"]
    assert first["runs"][0]["run"] == str(before)
    values = [point["valid"]["NDCG@10"]["mean"] for point in (first, second)]
    assert told["best"] == (first, second)[values[1] > values[0]]["point"]
    kept = json.loads(Path("runs/shop/sweeps/my/sweep.json").read_text())
    assert kept["points"] == told["points"]
    run = Path(second["runs"][0]["run"])
    config = read_run_config(run)
    assert (config["settings"]["kl_weight"], config["settings"]["seed"]) == (0.0, 0)
    assert blin("compare", before, run, "--resamples", 99).exit_code == 0

    # Nothing of this is ever trained again; what fails is told, and its command ends with 1.
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    again = blin(*SWEEP, "--set", "lambda=2,0,1", "--out", "weights.svg")
    assert again.exit_code == 1
    assert again.stdout.splitlines()[0].startswith("shop: kl_weight-")
    assert len(again.stdout.splitlines()) == 4
    assert "warning: kl_weight=1, seed 0 failed: its process ended with code 3" in again.stderr
    assert len(list(Path("runs/shop").glob("*/config.toml"))) == 2
    assert Path("weights.svg").read_text().startswith("<?xml")

    plan = json.loads(blin(*SWEEP, "--set", "lambda=2,0,1", "--dry-run", "--json").stdout)
    assert [(row["point"], row["state"]) for row in plan] == [
        ("kl_weight=2", "finished"),
        ("kl_weight=0", "finished"),
        ("kl_weight=1", "new"),
    ]


def test_counted_models_and_grid_files(blin: Blin) -> None:
    Path("grid.toml").write_text(
        'dataset = "shop"\nmodel = "item-knn"\n[runs.few]\nneighbours = 5\n'
    )
    result = blin("sweep", "--grid", "grid.toml", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["directory"] == "runs/shop/sweeps/grid"
    assert [point["point"] for point in told["points"]] == ["few"]
    assert told["points"][0]["runs"][0]["seed"] is None
    assert told["points"][0]["runs"][0]["epochs"] == 0


def test_odd_names_of_files_and_runs_are_those_of_no_other_place(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    names = ("../../up", "n" * 400, "n" * 401, "a b", "")
    runs = "".join(f'[runs."{name}"]\nneighbours = {n + 1}\n' for n, name in enumerate(names))
    before = sorted(Path("runs/shop").iterdir())
    for file in ("...toml", "-x.toml", "a b.toml"):
        Path(file).write_text(f'dataset = "shop"\nmodel = "item-knn"\n{runs}')
        result = blin("sweep", "--grid", f"./{file}", "--device", "cpu", "--json")
        assert result.exit_code == 1, result.stderr
        failed = json.loads(result.stdout)["failed"]
        assert [each["trial"] for each in failed] == list(names)
        assert all("its process ended with code 3" in each["reason"] for each in failed)
    assert sorted(Path("runs/shop").iterdir()) == [*before, Path("runs/shop/sweeps")]
    found = sorted(path.name for path in Path("runs/shop/sweeps").iterdir())
    assert found == ["_.", "_x", "a_b"]


def test_the_values_of_a_setting() -> None:
    found = several_values(
        [
            *("lambda=0.1, 1,2", "padding=zero", "pack=true,false", "kernel-size=3"),
            *("dim=32..128", "learning_rate=1e-4..0.01:log", "dropout=0.1..0.5"),
        ]
    )
    assert found == {
        "kl_weight": [0.1, 1, 2],
        "padding": ["zero"],
        "pack": [True, False],
        "kernel_size": [3],
        "dim": Range(32, 128),
        "learning_rate": Range(1e-4, 0.01, log=True),
        "dropout": Range(0.1, 0.5),
    }


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000])
def test_what_no_value_can_be_read_from_is_text(text: str) -> None:
    assert several_values([f"dim={text}"]) == {"dim": [text]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--set lambda=1", 2, "give --dataset NAME"),
        ("--dataset shop --set lambda", 2, '--set: expected KEY=VALUE, found "lambda"'),
        ("--dataset shop --set lambda=0,-1", 2, "kl_weight=-1: kl_weight: expected at least 0"),
        ("--dataset shop --set lamda=0,1", 2, 'unknown setting "lamda"'),
        ("--dataset shop --set dim=8 --set dim=9", 2, "dim is given twice: write dim=A,B"),
        ("--dataset shop --set lambda=1 --set kl_weight=2", 2, "kl_weight is given twice"),
        ("--dataset shop --set seed=1,2", 2, "seed: it is no setting of a sweep; --seeds"),
        ("--dataset shop --set dim=8..16", 2, "a range needs --optuna N; give dim=A,B,..."),
        ("--dataset shop --optuna 2 --set dim=9..8", 2, "expected dim=LOW..HIGH, found 9..8"),
        ("--dataset shop --optuna 2 --set dim=1..1e999", 2, "expected dim=LOW..HIGH, found 1.."),
        ("--dataset shop --optuna 2 --set dim=0..8:log", 2, "expected dim=LOW..HIGH above 0"),
        ("--dataset shop --optuna 2 --set dim=0..8", 2, "dim=0: dim: expected at least 1"),
        ("--dataset shop --optuna 2 --model blin,blin-d", 2, "--optuna chooses the settings of"),
        ("--dataset shop --model blin,blim", 2, 'unknown model "blim"; did you mean "blin"?'),
        ("--dataset shop --model item-knn --epochs 3", 2, 'unknown setting "epochs"'),
        ("--dataset shop --set dim=8,16 --out a.txt", 2, "a name that ends in .svg, .png, .pdf"),
        ("--dataset shop --set dim=8,16 --out no/a.svg", 2, "--out: expected a directory that is"),
        ("--dataset shop --set dim=8 --out a.svg", 2, "one setting that is swept, found none"),
        ("--dataset shop --optuna 2 --set dim=8..9 --out a.svg", 2, "--out draws listed values"),
        ("--dataset shop --name ../up", 2, "--name: expected letters, digits"),
        ("--grid nowhere.toml", 2, "nowhere.toml: expected a TOML file of runs: No such file"),
        ("--grid g.toml --set dim=8", 2, "--grid names models and settings: leave out"),
        ("--dataset nowhere", 3, 'no dataset "nowhere"'),
        ("--dataset .", 3, 'no dataset "."'),
    ],
)
def test_what_cannot_be_swept_is_one_line(
    blin: Blin, arguments: str, code: int, message: str
) -> None:
    before = sorted(Path("runs").rglob("*"))
    result = blin("sweep", *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert sorted(Path("runs").rglob("*")) == before


def test_a_search_without_optuna_says_what_to_install(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BlinError, match=r"pip install 'blin-rec\[tune\]'"):
        search.require_optuna()
    result = blin(*SWEEP, "--optuna", 1, "--set", "dropout=0.1..0.5")
    assert result.exit_code == 1 and "blin-rec[tune]" in result.stderr


def test_train_takes_lambda_among_its_settings(blin: Blin) -> None:
    arguments = ("train", "--dataset", "shop", "--dim", 8, "--epochs", 1, "--threads", 1, "--json")
    told = json.loads(blin(*arguments, "--set", "lambda=0.25").stdout)
    assert read_run_config(Path(told["run"]))["settings"]["kl_weight"] == 0.25
