"""What a sweep of one setting came to, as a picture (of λ: Blin, Figure 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blin.errors import ConfigError
from blin.experiments.pictures import picture
from blin.experiments.points import Point
from blin.experiments.report import AGREEMENT
from blin.experiments.results import METRICS, Row
from blin.models import MODELS
from blin.training.trainer import METRIC, all_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_FROM = 100
"""How many times the smallest value the largest one is where an axis becomes logarithmic."""

_LABEL_SPACE = 0.05
"""Of the axis, between two values that are both written below it."""

_SPLITS = {"valid": ("validation", "C0", "--"), "test": ("test", "C1", "-")}
"""What a part of the dataset is called in a legend, and the colour and style of its line."""


def swept_setting(points: Sequence[Point]) -> str:
    """Returns the one setting in which points differ.

    Raises:
        ConfigError: They differ in more, in the model, in nothing, or not in a number.
    """
    settings = [all_settings(p.model, {**MODELS[p.model].defaults, **p.settings}) for p in points]
    names = sorted(name for name in settings[0] if len({str(s.get(name)) for s in settings}) > 1)
    models = {point.model for point in points}
    if len(names) != 1 or len(models) > 1:
        found = ", ".join(["model"] * (len(models) > 1) + names) or "none"
        raise ConfigError(f"--out: expected one setting that is swept, found {found}")
    for each in settings:
        if isinstance(each[names[0]], bool) or not isinstance(each[names[0]], int | float):
            raise ConfigError(f"--out: {names[0]}: expected numbers, found {each[names[0]]}")
    return names[0]


def draw_sweep(rows: Sequence[Row], setting: str, path: Path) -> None:
    """Draws the metrics over the values of a setting, on the validation and on the test items.

    A line goes through the means over the seeds. Where there are several, a bar is the interval of
    the mean. The value that does best on the validation items is marked.

    Args:
        rows: of points that differ in the setting alone.
        setting: as :func:`swept_setting` returns it.
        path: an SVG, PNG or PDF file; written whole or not at all.
    """
    found = {_value_of(row, setting): row for row in rows}
    found = dict(sorted(found.items()))
    best = max(found, key=lambda value: found[value].value)
    with picture(path) as figure:
        for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
            _draw_metric(axes, found, metric, best)
            axes.set(xlabel=f"λ ({setting})" if setting == AGREEMENT else setting, ylabel=metric)
            axes.grid(alpha=0.3)
        # Above the axes, so that it covers no line.
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)


def _value_of(row: Row, setting: str) -> float:
    point = row.point
    settings = all_settings(point.model, {**MODELS[point.model].defaults, **point.settings})
    return float(str(settings[setting]))


def _draw_metric(axes: Axes, rows: Mapping[float, Row], metric: str, best: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    values = list(rows)
    for split, (label, color, style) in _SPLITS.items():
        intervals = [row.interval(split, metric) for row in rows.values()]
        means = [each.mean for each in intervals]
        axes.plot(values, means, style, color=color, marker="o", markersize=4, label=label)
        if any(each.half for each in intervals):
            halves = [each.half or 0.0 for each in intervals]
            axes.errorbar(values, means, halves, fmt="none", color=color, capsize=3)
    axes.axvline(best, color="0.5", linestyle=":", zorder=1, label=f"best validation {METRIC}")
    if values[0] > 0 and values[-1] / values[0] >= _LOG_FROM:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(_apart(values, log=axes.get_xscale() == "log"))


def _apart(values: Sequence[float], *, log: bool) -> list[str]:
    """Returns ascending values as text, and nothing for those too near to the one before."""
    places = [math.log(value) if log else value for value in values]
    least = _LABEL_SPACE * (places[-1] - places[0])
    texts: list[str] = []
    last = -math.inf
    for value, place in zip(values, places, strict=True):
        apart = place - last >= least
        texts.append(f"{value:,g}" if apart else "")
        last = place if apart else last
    return texts
