"""``blin reproduce`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin.cli.config_file import built_in_configs
from blin.cli.reproduce import settings_for
from blin.data.dataset import load_dataset
from blin.errors import ConfigError
from blin.experiments import published, reproduction, side_by_side
from blin.experiments.ablation import ABLATIONS
from blin.experiments.points import Point
from blin.experiments.reproduction import forecast_points, plan
from blin.models import BASELINES, MODELS
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


def test_the_settings_of_a_model_for_a_dataset() -> None:
    assert settings_for("beauty", "blin") == settings_for("beauty", "blin-d")
    assert settings_for("nowhere", "blin") == {}
    for name in built_in_configs():
        dataset, _, model = name.partition("-")
        if model in MODELS:
            assert settings_for(dataset, model)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer models, smaller."""
    monkeypatch.setattr(reproduction, "TABLE_2", ("sasrec", "blin"))
    monkeypatch.setattr(reproduction, "BASELINES", ("markov",))
    monkeypatch.setattr(reproduction, "QUICK_EPOCHS", 1)


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
    assert points["markov"]["most"] == 0 < points["blin"]["fewest"] <= points["blin"]["most"]
    # An agreement of another weight costs the same, and is not measured again.
    assert points["blin kl_weight=0.5"]["most"] == points["blin"]["most"]
    whole = sum(point["most"] for point in points.values())
    assert told["seconds"]["most"] == pytest.approx(whole)

    train_points([p for p in planned.points[:-1] if p.name != "blin-d"], dataset, Path("runs"))
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    result = blin(*command, "--json")
    assert result.exit_code == 1, result.stderr
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
    kept = json.loads(Path("runs/shop/sweeps/reproduce-quick/tables.json").read_text())
    assert kept == told

    shown = blin(*command)
    for title in ("full ranking", "ablation (Table 3)", "(Figure 5)", "Table 2 beside ours"):
        assert title in shown.stdout
    assert "The paper has no such dataset." in shown.stderr


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
