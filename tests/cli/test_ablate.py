"""``blin ablate`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blin.data.dataset import load_dataset
from blin.errors import ConfigError
from blin.experiments import side_by_side
from blin.experiments.ablation import ABLATIONS, ablation, check_ablation, whole
from cli.conftest import Blin
from trained import train_points

BASE = {"epochs": 1, "dim": 8, "num_negatives": 16, "kl_weight": 1.5, "padding": "random-repeat"}


def test_each_row_takes_one_part_away_whatever_all_share() -> None:
    points = {point.name: point for point in ablation(BASE, [0, 1])}
    assert list(points) == list(ABLATIONS)
    assert points["blin"].settings == BASE
    changes = {
        name: {key: value for key, value in point.settings.items() if BASE.get(key) != value}
        for name, point in points.items()
    }
    assert changes == {
        "blin": {},
        "blin-zc": {"padding": "zero", "crop": 0.6},
        "blin-d": {"attention": "softmax"},
        "blin-dwc": {"kernel_size": 0},
        "blin-bkl": {"kl_weight": 0.0},
    }


def test_the_rows_are_compared_with_the_whole_model(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset("shop", data_dir=Path("data"))
    train_points(ablation(BASE, [0])[:-1], dataset, Path("runs"))
    Path("my.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in BASE.items()))
    arguments = ("ablate", "--dataset", "shop", "--config", "my.toml", "--device", "cpu")
    plan = json.loads(blin(*arguments, "--dry-run", "--json").stdout)
    assert [row["state"] for row in plan] == ["finished"] * 4 + ["new"]

    # The last one fails; the others are compared all the same.
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    result = blin(*arguments, "--resamples", 99, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [failed["trial"] for failed in told["failed"]] == ["blin-bkl, seed 0"]
    pairs = [(each["first"], each["second"], each["metric"]) for each in told["comparisons"]]
    others = ("blin-zc", "blin-d", "blin-dwc")
    metrics = ("HR@10", "NDCG@10")
    assert pairs == [("blin", other, metric) for other in others for metric in metrics]
    means = {point["point"]: point["test"]["NDCG@10"]["mean"] for point in told["points"]}
    for each in told["comparisons"][1::2]:
        expected = means[each["second"]] - means["blin"]
        assert each["difference"] == pytest.approx(expected, abs=1e-9)
    assert told["directory"] == "runs/shop/sweeps/ablation"

    shown = blin(*arguments, "--resamples", 99)
    assert "A: blin, B: blin-zc, C: blin-d, D: blin-dwc, E: blin-bkl" in shown.stderr
    assert [line.split()[:3] for line in shown.stdout.splitlines() if " - A" in line] == [
        [letter, "-", "A"] for letter in "BCD" for _ in metrics
    ]


@pytest.mark.parametrize(
    ("settings", "found", "left"),
    [
        ({"kl_weight": 0}, "those of blin-bkl (kl_weight = 0.0)", {}),
        (
            {"kernel_size": 0, "attention": "softmax", "dim": 8},
            "blin-d (attention = softmax), blin-dwc (kernel_size = 0)",
            {"dim": 8},
        ),
        ({"padding": "zero", "crop": 0.6}, "blin-zc (padding = zero, crop = 0.6)", {}),
    ],
)
def test_settings_that_lack_a_part_already_make_no_ablation(
    settings: dict[str, object], found: str, left: dict[str, object]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_ablation(settings)
    assert found in str(refused.value)
    assert whole(settings)[0] == left
    check_ablation(left)
    assert whole(BASE) == (BASE, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset shop --config ml-1m", "found those of blin-bkl (kl_weight = 0.0): choose"),
        ("", "Missing option '--dataset'"),
        ("--dataset shop --set dims=3", 'unknown setting "dims"; did you mean "dim"?'),
        ("--dataset shop --config runs/latest/config.toml --set seed=1", "--seeds names them"),
    ],
)
def test_what_cannot_be_ablated_is_refused(blin: Blin, arguments: str, message: str) -> None:
    result = blin("ablate", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
