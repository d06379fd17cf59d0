"""Which sweeps can be drawn, and that the picture shows what they came to."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from blin.errors import ConfigError
from blin.experiments import sweep_picture
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Point, grid
from blin.experiments.results import Row
from blin.experiments.sweep_picture import draw_sweep, swept_setting

TESTED = {0.1: [0.20, 0.26], 3: [0.30, 0.30], 0: [0.21, 0.21]}


def rows(values: dict[float, list[float]] = TESTED) -> list[Row]:
    found = []
    for weight, tested in values.items():
        outcomes = {
            seed: Outcome(
                Path("run"),
                *(9, 9, 1.0),
                valid={"HR@10": each + 0.2, "NDCG@10": each + 0.1},
                test={"HR@10": each + 0.1, "NDCG@10": each},
            )
            for seed, each in enumerate(tested)
        }
        found.append(Row(Point(f"{weight}", "blin", {"kl_weight": weight}, (0, 1)), outcomes))
    return found


def test_lines_go_through_the_means_and_bars_are_their_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw_sweep(rows(), "kl_weight", tmp_path / "a.svg")
    for axes, metric, more in zip(kept[0].axes, ("HR@10", "NDCG@10"), (0.1, 0.0), strict=True):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("λ (kl_weight)", metric)
        lines = {line.get_label(): line for line in axes.lines}
        valid, test, best = (
            lines[name] for name in ("validation", "test", "best validation NDCG@10")
        )
        assert list(test.get_xdata()) == [0, 0.1, 3]
        assert list(test.get_ydata()) == pytest.approx([more + y for y in (0.21, 0.23, 0.30)])
        assert list(valid.get_ydata()) == pytest.approx([more + y for y in (0.31, 0.33, 0.40)])
        assert list(best.get_xdata()) == [3, 3]
        (_, bar, _), _ = (each.get_segments() for each in axes.collections)
        # Of two values half of the interval is t(0.975; 1) = 12.706 times half of their distance.
        assert bar[:, 1] - (0.33 + more) == pytest.approx([-12.7062 * 0.03, 12.7062 * 0.03])
        # 0.1 would stand upon 0.
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "", "3"]


def test_values_of_all_sizes_stand_on_a_logarithmic_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw_sweep(rows({0.001: [0.1], 0.01: [0.2], 0.1: [0.1]}), "kl_weight", tmp_path / "a.svg")
    for axes in kept[0].axes:
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
        # One seed has no interval.
        assert len(axes.collections) == 0


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_the_same_sweep_is_the_same_picture(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    draw_sweep(rows(), "kl_weight", first)
    draw_sweep(list(reversed(rows())), "kl_weight", second)
    assert first.read_bytes() == second.read_bytes()


def test_the_setting_is_found_with_the_models_defaults_filled_in() -> None:
    axes = {"kl_weight": [0, 0.5, 2], "dim": [16]}
    points = grid(["blin"], {}, axes, seeds=(0,), one_at_a_time=True)
    assert points[0].name == "base"
    assert swept_setting(points) == "kl_weight"


@pytest.mark.parametrize(
    ("models", "axes", "message"),
    [
        (["blin"], {"dim": [8, 16], "dropout": [0.1, 0.2]}, "found dim, dropout"),
        (["blin", "sasrec"], {"dim": [8]}, "found model"),
        (["blin"], {"dim": [8]}, "found none"),
        (["blin"], {"padding": ["zero", "repeat"]}, "padding: expected numbers, found zero"),
        (["blin"], {"pack": [True, False]}, "pack: expected numbers, found True"),
    ],
)
def test_other_sweeps_are_refused(
    models: list[str], axes: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        swept_setting(grid(models, {}, axes, seeds=(0,)))


def test_labels_on_a_narrow_axis_leave_each_other_room() -> None:
    assert sweep_picture._apart([0, 1, 2, 50, 51, 100], log=False) == ["0", "", "", "50", "", "100"]
    assert sweep_picture._apart([1, 1.1, 1000], log=True) == ["1", "", "1,000"]
