"""Points of a grid, a grid that is written down, and which trainings are the same one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blin.data.dataset import Dataset
from blin.errors import ConfigError
from blin.experiments.points import Point, check, check_space, grid, read_grid

GRIDS = Path(__file__).parents[2] / "benches" / "grids"


def test_all_combinations_of_the_values() -> None:
    points = grid(
        ["blin"],
        {"epochs": 3},
        {"kl_weight": [0, 0.5], "dim": [16], "padding": ["zero", "repeat"]},
        seeds=[0, 1],
    )
    assert [point.name for point in points] == [
        "kl_weight=0 padding=zero",
        "kl_weight=0 padding=repeat",
        "kl_weight=0.5 padding=zero",
        "kl_weight=0.5 padding=repeat",
    ]
    assert points[1].settings == {"epochs": 3, "dim": 16, "kl_weight": 0, "padding": "repeat"}
    assert points[1].seeds == (0, 1)


def test_one_setting_at_a_time() -> None:
    points = grid(
        ["blin", "blin-d"],
        {},
        {"dim": [32, 64], "pack": [True], "causal": [True, False]},
        seeds=[0],
        one_at_a_time=True,
    )
    assert [point.name for point in points] == [
        *("blin", "blin dim=32", "blin dim=64", "blin causal=true", "blin causal=false"),
        *("blin-d", "blin-d dim=32", "blin-d dim=64", "blin-d causal=true", "blin-d causal=false"),
    ]
    assert points[2].settings == {"pack": True, "dim": 64}
    assert (points[7].model, points[7].settings) == ("blin-d", {"pack": True, "dim": 64})


def test_without_values_there_is_one_point_a_model() -> None:
    assert [point.name for point in grid(["blin"], {}, {}, seeds=[0])] == ["blin"]
    assert [point.name for point in grid(["blin"], {}, {"dim": [8]}, seeds=[0])] == ["blin"]
    varied = grid(["blin"], {}, {"dim": [8, 16]}, seeds=[0], one_at_a_time=True)
    assert [point.name for point in varied] == ["base", "dim=8", "dim=16"]


def test_trainings_are_told_apart_by_what_they_come_to(small_dataset: Dataset) -> None:
    def key(settings: dict[str, object], model: str = "blin", seed: int = 0) -> str:
        (trial,) = Point("any", model, settings, (seed,)).trials(small_dataset)
        return trial.key

    assert key({}) == key({"dropout": 0.5, "kl_weight": 2}) == key({"max_len": 50})
    assert len({key({}), key({"dropout": 0.4}), key({}, seed=1), key({}, "blin-bkl")}) == 4
    assert key({}, "blin-bkl") == key({"kl_weight": 0.0}, "blin-bkl")


def test_a_patience_that_stops_no_training_tells_none_apart(small_dataset: Dataset) -> None:
    def key(patience: int) -> str:
        settings = {"epochs": 3, "patience": patience}
        return Point("p", "blin", settings, (0,)).trials(small_dataset)[0].key

    # The best epoch is the first or a later one, so that a third without a better one is the last.
    assert key(3) == key(200)
    assert len({key(1), key(2), key(3)}) == 3


def test_what_is_counted_is_trained_once(small_dataset: Dataset) -> None:
    (trial,) = Point("knn", "item-knn", {"neighbours": 9}, (0, 1, 2)).trials(small_dataset)
    assert (trial.seed, trial.name, trial.settings["neighbours"]) == (None, "knn", 9)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (Point("a", "blin", {"dims": 8}, (0,)), 'a: unknown setting "dims"; did you mean "dim"?'),
        (Point("dim=0", "blin", {"dim": 0}, (0,)), "dim=0: dim: expected"),
        (Point("b", "blim", {}, (0,)), 'unknown model "blim"; did you mean "blin"?'),
        (Point("b", "what", {}, (0,)), 'unknown model "what"; blin models lists them'),
        (Point("c", "blin", {"seed": 1}, (0,)), "seed: it is no setting of a sweep"),
    ],
)
def test_what_cannot_be_trained_is_refused(point: Point, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check([point])
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.toml")), ids=lambda file: file.name)
def test_the_grids_that_are_kept_can_be_trained(file: Path) -> None:
    read = read_grid(file, override={}, seeds=None)
    assert read.dataset is not None
    assert len({point.name for point in read.points}) == len(read.points) > 1


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"dim": [8, 9], "num_heads": [1, 2]}, None),
        ({"dim": [8, 9], "num_heads": [3, 4]}, None),
        ({"dim": [9, 11], "num_heads": [2]}, None),
        ({"dim": [15], "num_heads": [3, 5]}, None),
        ({"dim": [15], "num_heads": [2, 4]}, "num_heads: expected a divisor of dim 15, found 2"),
        ({"seed": [1, 2]}, "seed: it is no setting of a sweep"),
        ({"dim": [9], "num_heads": [2]}, "num_heads: expected a divisor of dim 9, found 2"),
        ({"dim": [8, 9], "num_heads": [1, 5]}, "num_heads=5: num_heads: expected a divisor of"),
        ({"dim": [0, 8], "num_heads": [1, 2]}, "dim=0: dim: expected at least 1"),
        ({"dim": [8, "x"]}, "dim=x: dim: expected a whole number"),
        ({"dimm": [8, 9]}, 'unknown setting "dimm"'),
    ],
)
def test_values_of_a_search_must_go_with_some_of_the_others(
    axes: dict[str, list[object]], message: str | None
) -> None:
    if message is None:
        check_space(["blin"], {}, axes, seeds=[0])
    else:
        with pytest.raises(ConfigError, match=re.escape(message)):
            check_space(["blin"], {}, axes, seeds=[0])


def test_a_grid_file(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        'dataset = "shop"\nseeds = [3]\n[base]\nepochs = 2\ndim = 16\n[runs.base]\n'
        '[runs."wide, softmax"]\nmodel = "blin-d"\ndim = 32\nseeds = [0, 1]\n'
    )
    read = read_grid(file, override={}, seeds=None)
    assert read.dataset == "shop"
    assert read.points == [
        Point("base", "blin", {"epochs": 2, "dim": 16}, (3,)),
        Point("wide, softmax", "blin-d", {"epochs": 2, "dim": 32}, (0, 1)),
    ]
    read = read_grid(file, override={"epochs": 9}, seeds=[5])
    assert [(p.settings["epochs"], p.seeds) for p in read.points] == [(9, (5,)), (9, (5,))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is nothing to train"),
        ("base = 3", "base: expected a table, found 3"),
        ("[runs]\na = 3", "a: expected a table, found 3"),
        ("[rusn.a]", 'unknown key "rusn"; did you mean "runs"?'),
        ("dataset = 3\n[runs.a]", "dataset: expected text, found 3"),
        ("[runs.a]\nmodel = 3", "a: model: expected text, found 3"),
        ("[runs.a]\nseeds = []", "a: seeds: expected a list, found []"),
        ("[runs.a]\nseeds = [-1]", "a: seeds: expected a list, found [-1]"),
        ("[runs.a]\ndims = 3", 'a: unknown setting "dims"; did you mean "dim"?'),
        ("[runs.a", "expected a TOML file of runs: "),
    ],
)
def test_what_is_wrong_in_a_grid_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(content + "\n")
    with pytest.raises(ConfigError) as raised:
        read_grid(file, override={}, seeds=None)
    assert str(raised.value).startswith(f"{file}: {message}")
