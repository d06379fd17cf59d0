"""What a sweep compares: points, each a model with settings, each trained once per seed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from typing import Any

from blin.config import by_full_names
from blin.data.dataset import Dataset
from blin.errors import ConfigError, did_you_mean, reason_of
from blin.models import MODELS
from blin.training.trainer import check_settings, resolved_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Point:
    """A model with settings.

    Attributes:
        name: what tells it from the other points of its sweep.
        model: a key of ``MODELS``.
        settings: those that are not left to their defaults; the seed is none of them.
        seeds: of its trainings.
    """

    name: str
    model: str
    settings: Mapping[str, object]
    seeds: tuple[int, ...]

    def trials(self, dataset: Dataset) -> list[Trial]:
        """Returns its trainings: one a seed; of a model that learns by counting one."""
        if MODELS[self.model].counted:
            settings = resolved_settings(dataset, self.model, self.settings)
            return [Trial(self.name, self.model, None, settings)]
        return [
            Trial(
                self.name,
                self.model,
                seed,
                resolved_settings(dataset, self.model, {**self.settings, "seed": seed}),
            )
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class Trial:
    """One training of a point.

    Attributes:
        point: the name of the point.
        model: a key of ``MODELS``.
        seed: its seed; None of a model that learns by counting.
        settings: all of them, the seed included.
    """

    point: str
    model: str
    seed: int | None
    settings: Mapping[str, object]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.point if self.seed is None else f"{self.point}, seed {self.seed}"

    @cached_property
    def key(self) -> str:
        """What two trainings on one dataset share if one of them is enough."""
        return key_of(self.model, self.settings)


def key_of(model: str, settings: Mapping[str, object]) -> str:
    """Returns one text for a model and all settings that make a difference, the seed included."""
    own = telling_settings(settings) | {k: v for k, v in settings.items() if k == "seed"}
    return json.dumps([model, own], sort_keys=True, default=str)


def telling_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Returns the settings in which trainings differ by more than chance.

    The seed is none of them, nor is a patience of as many epochs as there are, or more: no training
    is stopped by it.
    """
    patience, epochs = settings.get("patience"), settings.get("epochs")
    idle = isinstance(patience, int) and isinstance(epochs, int) and patience >= epochs
    return {k: v for k, v in settings.items() if k != "seed" and not (idle and k == "patience")}


@dataclass(frozen=True)
class Range:
    """Values of a setting from which a search chooses."""

    low: float
    high: float
    log: bool = False


def grid(
    models: Sequence[str],
    base: Mapping[str, object],
    axes: Mapping[str, Sequence[object]],
    *,
    seeds: Sequence[int],
    one_at_a_time: bool = False,
) -> list[Point]:
    """Returns the points of a grid.

    Args:
        models: one or more.
        base: settings that all points share.
        axes: for each setting its values, at least one; a single one is for all points.
        seeds: of each point.
        one_at_a_time: the base, and each value of each setting with the others as in the base;
            otherwise all combinations.
    """
    base = {**base, **{name: values[0] for name, values in axes.items() if len(values) == 1}}
    varied = {name: values for name, values in axes.items() if len(values) > 1}
    changes: list[dict[str, object]]
    if one_at_a_time:
        changes = [{}, *({name: value} for name, values in varied.items() for value in values)]
    else:
        changes = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    points = {}
    for model in models:
        for change in changes:
            parts = [model] if len(models) > 1 or not varied else []
            parts += [f"{name}={text_of(value)}" for name, value in change.items()]
            name = " ".join(parts) or "base"
            points[name] = Point(name, model, {**base, **change}, tuple(seeds))
    return list(points.values())


def check(points: Sequence[Point]) -> None:
    """Raises ConfigError unless every point can be trained, before the first one is."""
    if not points:
        raise ConfigError("there is nothing to train")
    for point in points:
        if "seed" in point.settings:
            raise ConfigError("seed: it is no setting of a sweep; --seeds names them")
        try:
            check_settings(point.model, point.settings)
        except ConfigError as error:
            alone = point.name == point.model or point.model not in MODELS
            raise ConfigError(str(error) if alone else f"{point.name}: {error}") from error


def check_space(
    models: Sequence[str],
    base: Mapping[str, object],
    axes: Mapping[str, Sequence[object]],
    *,
    seeds: Sequence[int],
) -> None:
    """Raises ConfigError for a value of a search that goes with no values of the others.

    Where what is wrong is another setting, as ``num_heads`` for a ``dim``, the search may find one
    that goes with it, and says so itself if it does not.

    Args:
        models: one or more.
        base: settings that all points share.
        axes: for each setting its values; of a range both ends.
        seeds: of each point.
    """
    for point in grid(models, base, axes, seeds=seeds, one_at_a_time=True):
        try:
            check([point])
        except ConfigError as error:
            changed = {k for k, v in axes.items() if len(v) > 1 and k in point.settings}
            own = {name for name in changed if point.settings[name] != base.get(name)}
            blamed = str(error.__cause__ or error).partition(":")[0]
            if own and blamed.isidentifier() and blamed not in own:
                continue
            others = {name: axes[name] for name, values in axes.items() if name not in own}
            if not any(_can_be_trained(point, chosen) for chosen in _some(others)):
                raise


def _some(axes: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Yields combinations of values, as many as are worth trying."""
    for values in islice(product(*axes.values()), 1000):
        yield dict(zip(axes, values, strict=True))


def _can_be_trained(point: Point, chosen: Mapping[str, object]) -> bool:
    try:
        check([replace(point, settings={**point.settings, **chosen})])
    except ConfigError:
        return False
    return True


def text_of(value: object) -> str:
    """Returns a value as TOML has it, text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class GridFile:
    """A grid that is written down.

    Attributes:
        points: as it names them.
        dataset: what it is for, by name; None if it does not say.
    """

    points: list[Point]
    dataset: str | None


def read_grid(
    file: Path, *, override: Mapping[str, object], seeds: Sequence[int] | None
) -> GridFile:
    """Reads a TOML file of named runs.

    It has a table ``[runs."NAME"]`` for each point, with the settings that are changed, and may
    have ``dataset``, ``model``, ``seeds`` and a table ``[base]`` of settings that all share. A run
    may name a ``model`` and ``seeds`` of its own.

    Args:
        file: the file.
        override: settings that hold whatever the file says.
        seeds: instead of the file's.

    Raises:
        ConfigError: There is no such file, or it is no TOML, or not of this form.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: expected a TOML file of runs: {reason_of(error)}") from error
    known = ("dataset", "model", "seeds", "base", "runs")
    for name in content:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
            raise ConfigError(f'{file}: unknown key "{name}"{hint}')
    base = _settings(file, content, "base")
    runs = _table(file, content, "runs")
    shared = {"model": content.get("model", "blin"), "seeds": content.get("seeds", [0])}
    dataset = content.get("dataset")
    if dataset is not None and not isinstance(dataset, str):
        raise ConfigError(f"{file}: dataset: expected text, found {dataset!r}")
    points = []
    for name in runs:
        settings = {**shared, **base, **_settings(file, runs, name), **override}
        model, own_seeds = settings.pop("model"), settings.pop("seeds")
        if not isinstance(model, str):
            raise ConfigError(f"{file}: {name}: model: expected text, found {model!r}")
        if not (
            isinstance(own_seeds, list)
            and own_seeds
            and all(type(seed) is int and seed >= 0 for seed in own_seeds)
        ):
            raise ConfigError(f"{file}: {name}: seeds: expected a list, found {own_seeds!r}")
        points.append(Point(name, model, settings, tuple(seeds or own_seeds)))
    try:
        check(points)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return GridFile(points, dataset)


def _table(file: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: {name}: expected a table, found {table!r}")
    return table


def _settings(file: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a table of settings, under the names that they have here."""
    table = _table(file, content, name)
    try:
        return by_full_names(table)
    except ConfigError as error:
        raise ConfigError(f"{file}: {name}: {error}") from error
