"""``blin reproduce`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from blin.cli.config_file import built_in_configs
from blin.cli.output import Output
from blin.cli.paper_tables import show_counts
from blin.cli.reproduce import BUDGET, config_for, settings_for
from blin.data.dataset import load_dataset
from blin.data.prepare import preprocess
from blin.errors import ConfigError
from blin.experiments import bench, published, reproduction, side_by_side
from blin.experiments.ablation import ABLATIONS
from blin.experiments.bench import Outcome, run_case
from blin.experiments.points import Point
from blin.experiments.reproduction import forecast_points, plan
from blin.models import BASELINES, MODELS
from blin.models.blin import BlinModel
from blin.training.trainer import all_settings, check_settings
from cli.conftest import Blin
from trained import train_points


def test_all_models_of_the_paper_that_there_are_and_all_its_tables() -> None:
    planned = plan(lambda model: settings_for("beauty", model), seeds=[0, 1, 2], quick=False)
    models = [point.model for point in planned.table]
    assert models[: len(BASELINES)] == list(BASELINES)
    assert models[len(BASELINES) :] == [name for name in published.TABLE_2 if name in MODELS]
    assert [point.name for point in planned.ablation] == list(ABLATIONS)
    assert [point.settings["kl_weight"] for point in planned.sweep] == [0.1, 0.5, 1, 2, 3]
    # Blin is in all three, with the settings for the dataset.
    blin = next(point for point in planned.table if point.name == "blin")
    assert planned.ablation[0] == blin
    assert (blin.settings["dim"], blin.seeds) == (128, (0, 1, 2))
    assert all(point.settings["dim"] == 128 for point in planned.sweep)
    assert planned.ablation[-1].settings["kl_weight"] == 0.0
    names = [point.name for point in planned.points]
    assert len(set(names)) == len(names) == len(models) + 4 + 5
    quick = plan(lambda model: {}, seeds=[0], quick=True)
    assert {point.settings.get("epochs") for point in quick.points} == {None, 2}


def test_an_ablation_takes_something_away_where_the_settings_lack_it_already() -> None:
    planned = plan(lambda model: settings_for("ml-1m", model), seeds=[0], quick=False)
    assert planned.restored == {"kl_weight": 2.0}
    names = [point.name for point in planned.ablation]
    assert names == [f"{name} kl_weight=2.0" for name in ABLATIONS]
    assert [point.settings.get("kl_weight") for point in planned.ablation] == [None] * 4 + [0.0]
    blin = next(point for point in planned.table if point.name == "blin")
    assert blin.settings["kl_weight"] == 0.0
    assert len(planned.points) == len(planned.table) + 5 + 5
    assert plan(lambda model: settings_for("beauty", model), seeds=[0], quick=True).restored == {}


def test_the_settings_of_a_model_for_a_dataset() -> None:
    assert settings_for("beauty", "blin") == settings_for("beauty", "blin-d")
    assert settings_for("nowhere", "blin") == {}
    for name in built_in_configs():
        dataset, _, model = name.partition("-")
        if model in MODELS:
            assert settings_for(dataset, model)
            assert config_for(dataset, model) == name


@pytest.mark.parametrize("dataset", ["beauty", "sports", "yelp", "ml-1m"])
def test_all_models_have_the_same_budget(dataset: str) -> None:
    budgets = set()
    for model in published.TABLE_2:
        settings = settings_for(dataset, model)
        check_settings(model, settings)
        budgets.add(tuple(settings.get(name) for name in BUDGET))
        own = dataset if model in ABLATIONS else f"{dataset}-{model}"
        assert config_for(dataset, model) == own
    assert len(budgets) == 1
    assert settings_for(dataset, "markov") == {}
    assert config_for(dataset, "markov") is None


def test_every_learned_model_has_settings_for_beauty_with_one_footing() -> None:
    blin = settings_for("beauty", "blin")
    presets = [name for name, model in MODELS.items() if model.module is BlinModel]
    for model in MODELS.keys() - set(BASELINES) - set(presets):
        settings = settings_for("beauty", model)
        assert config_for("beauty", model) == f"beauty-{model}"
        assert {name: settings.get(name) for name in BUDGET} == {
            name: blin.get(name) for name in BUDGET
        }
        # eSASRec and MStein have losses of their own.
        if model not in ("esasrec", "mstein"):
            whole = all_settings(model, {**MODELS[model].defaults, **settings})
            loss = [whole[name] for name in ("loss", "num_negatives", "negatives_per")]
            assert (loss, whole["exclude_history"]) == (["softmax", 1024, "batch"], False), model


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer models, smaller."""
    monkeypatch.setattr(reproduction, "TABLE_2", ("sasrec", "blin"))
    monkeypatch.setattr(reproduction, "BASELINES", ("markov",))
    monkeypatch.setattr(reproduction, "QUICK_EPOCHS", 1)
    monkeypatch.setattr(reproduction, "QUICK_LENGTHS", (5,))
    monkeypatch.setattr(bench, "COMPARED", ("blin",))
    monkeypatch.setattr(
        bench, "_run", lambda case, data, work: Outcome(case, run_case(case, data, work))
    )


def refuse(*_: object, **__: object) -> None:
    """In place of a forecast: nothing that learns by a loss is trained."""
    raise ConfigError("too many")


@pytest.mark.usefixtures("few")
def test_where_somebody_has_had_every_item_nothing_is_ranked_among_negatives(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["user,item", *(f"u{n // 4},i{n % (4 if n < 40 else 3)}" for n in range(80))]
    Path("all.csv").write_text("\n".join(rows) + "\n")
    assert blin("preprocess", "all.csv", "--min-interactions", 1).exit_code == 0
    dataset = load_dataset("all", data_dir=Path("data"))
    assert reproduction.most_negatives(dataset) == 0
    (markov, *_) = plan(lambda model: {}, seeds=[0], quick=True).points
    train_points([markov], dataset, Path("runs"))
    monkeypatch.setattr(reproduction, "forecast", refuse)
    result = blin("reproduce", "--dataset", "all", "--quick", "--device", "cpu", "--json")
    assert result.exit_code == 0 and "somebody has had every item" in result.stderr
    told = json.loads(result.stdout)
    assert [each["protocol"]["ranking"] for each in told["protocols"]] == ["full"]
    assert all(each["ours"] == {} for each in told["paper"])


@pytest.mark.usefixtures("few")
def test_a_forecast_then_all_tables(blin: Blin, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset("shop", data_dir=Path("data"))
    planned = plan(lambda model: {}, seeds=[0], quick=True)
    before = sorted(Path("runs").rglob("*"))
    command = ("reproduce", "--dataset", "shop", "--quick", "--device", "cpu", "--threads", 1)
    command += ("--resamples", 99)
    dry = blin(*command, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.stderr
    assert sorted(Path("runs").rglob("*")) == before
    told = json.loads(dry.stdout)
    points = {point["point"]: point for point in told["points"]}
    assert list(points) == [
        *("markov", "sasrec", "blin", "blin-zc", "blin-d", "blin-dwc", "blin-bkl"),
        *("blin kl_weight=0.5", "blin kl_weight=2"),
    ]
    # The last is Blin with its default λ, which is counted already.
    assert [(point["finished"], point["left"]) for point in points.values()] == [
        *([(0, 1)] * 8),
        (0, 0),
    ]
    assert {point["config"] for point in points.values()} == {None}
    assert [point["epochs"] for point in points.values()] == [None, *([1] * 8)]
    assert points["markov"]["most"] == 0 < points["blin"]["fewest"] <= points["blin"]["most"]
    # An agreement of another weight costs the same, and is not measured again.
    assert points["blin kl_weight=0.5"]["most"] == points["blin"]["most"]
    whole = sum(point["most"] for point in points.values())
    assert told["cases"] == 2
    assert told["seconds"]["most"] == pytest.approx(whole + 2 * 120)

    train_points([p for p in planned.points[:-1] if p.name != "blin-d"], dataset, Path("runs"))
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    result = blin(*command, "--json")
    assert result.exit_code == 1, result.stderr
    assert result.stdout, result.stderr
    told = json.loads(result.stdout)
    assert [each["trial"] for each in told["failed"]] == ["blin-d, seed 0"]
    had = max(len(set(dataset.sequence(user).tolist())) for user in range(dataset.num_users))
    assert [each["protocol"]["ranking"] for each in told["protocols"]] == [
        *("full", f"uniform-{dataset.num_items - had}"),
    ]
    for each in told["protocols"]:
        assert [row["row"] for row in each["rows"]] == ["markov", "sasrec", "blin"]
    ablated = [point["point"] for point in told["ablation"]["points"]]
    assert ablated == ["blin", "blin-zc", "blin-dwc", "blin-bkl"]
    assert len(told["ablation"]["comparisons"]) == 3 * 2
    assert [point["point"] for point in told["sweep"]["points"]] == [
        *("blin kl_weight=0.5", "blin kl_weight=2"),
    ]
    beside = {each["model"]: each for each in told["paper"]}
    assert list(beside) == list(published.TABLE_2)
    (row,) = (row for row in told["protocols"][1]["rows"] if row["row"] == "blin")
    ours = beside["blin"]["ours"]
    assert ours["NDCG@20"] == pytest.approx(list(row["metrics"].values())[3]["mean"])
    assert beside["gru4rec"] == {"model": "gru4rec", "paper": {}, "check": "", "ours": {}}
    assert told["counts"]["paper"] is None
    assert told["counts"]["ours"]["interactions"] == dataset.num_interactions
    assert [(case["attention"], case["length"]) for case in told["bench"]["cases"]] == [
        *(("softmax", 5), ("linear", 5)),
    ]
    directory = Path("runs/shop/sweeps/reproduce-quick")
    assert json.loads((directory / "tables.json").read_text()) == told
    assert {file.name for file in directory.iterdir()} == {
        *("sweep.json", "sweep.md", "tables.json", "bench.json"),
        *("attention-cost.svg", "lambda.svg", "report.html"),
    }
    page = (directory / "report.html").read_text()
    assert all(Path(row["runs"][0]).name in page for row in told["protocols"][0]["rows"])

    # No case is measured twice.
    monkeypatch.setattr(bench, "_run", None)
    shown = blin(*command)
    for title in (
        *("Table 1 beside ours", "full ranking", "ablation (Table 3)", "(Figure 5)"),
        *("Table 2 beside ours", "10 epochs of 8 histories"),
    ):
        assert title in shown.stdout
    assert "The paper has no such dataset." in shown.stderr
    told = json.loads(blin(*command, "--dry-run", "--no-bench", "--json").stdout)
    assert (told["cases"], told["restored"]) == (0, {})


def test_counts_stand_beside_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    class Sports:
        name, num_users, num_items, num_interactions = "sports", 35598, 18357, 296337

    told = show_counts(Sports(), Output())  # type: ignore[arg-type]
    assert told["check"] == "two digits of the users are swapped: the file has 35,598"
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["users", "35,958", "35,598"] in lines
    assert ["sparsity", "99.95", "%"] in lines
    assert shown.err.strip() == f"The paper's: {told['check']}."


def test_what_counts_by_time_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    table = pa.table(
        {"user": [f"u{n // 5}" for n in range(50)], "item": [n % 5 for n in range(50)]}
    )
    dataset = load_dataset(preprocess(table, data_dir=tmp_path, name="untimed").path)
    points = [Point(name, name, {}, (0,)) for name in ("popularity", "recent-popularity")]
    found, refused = forecast_points(points, dataset, tmp_path, device="cpu", threads=1)
    assert [each.point for each in found] == ["popularity"]
    assert refused == {
        "recent-popularity": f"{dataset.path}: expected interactions with times, found none"
    }


def test_what_is_finished_takes_no_time_and_what_cannot_be_trained_is_left_out(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset("shop", data_dir=Path("data"))
    settings = {"dim": 16, "epochs": 2, "padding": "zero"}
    points = [
        Point("found", "blin", settings, (0,)),
        Point("half", "blin", settings, (0, 1)),
        Point("same", "blin", settings, (1,)),
        Point("bad", "blin", {"num_negatives": 10**9, "sampling": "popularity"}, (0,)),
    ]

    found, refused = forecast_points(points[:3], dataset, Path("runs"), device="cpu", threads=1)
    assert [(each.point, each.finished, each.left) for each in found] == [
        ("found", 1, 0),
        ("half", 1, 1),
        ("same", 0, 0),
    ]
    assert (found[0].most, found[2].most, refused) == (0, 0, {})
    assert found[1].most > 0
    monkeypatch.setattr(reproduction, "forecast", refuse)
    found, refused = forecast_points(points, dataset, Path("runs"), device="cpu", threads=1)
    assert [each.point for each in found] == ["found"]
    assert refused == dict.fromkeys(("half", "same", "bad"), "too many")
