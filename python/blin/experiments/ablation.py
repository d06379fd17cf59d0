"""What each part of Blin is worth: the model without it, all else equal (the paper's Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blin.errors import ConfigError
from blin.experiments.points import Point, text_of
from blin.models import MODELS
from blin.training.trainer import all_settings

ABLATIONS = {
    "blin": "all of it",
    "blin-zc": "zero padding and item cropping",
    "blin-d": "softmax attention",
    "blin-dwc": "no convolution",
    "blin-bkl": "no agreement of two views",
}
"""Rows A to E of the table: presets of one module, the whole one first."""


def ablation(base: Mapping[str, object], seeds: Sequence[int]) -> list[Point]:
    """Returns the points of the table.

    Args:
        base: settings that all share. What makes a preset one holds against them: the agreement
            that ``blin-bkl`` goes without stays away, whatever weight they give it.
        seeds: of each point.
    """
    return [
        Point(name, name, {**base, **MODELS[name].defaults}, tuple(seeds)) for name in ABLATIONS
    ]


def check_ablation(base: Mapping[str, object]) -> None:
    """Raises ConfigError if a row would take nothing away from what all share.

    Args:
        base: settings that are good ones of Blin.
    """
    if rows := _idle_rows(base):
        found = ", ".join(f"{name} ({_told(MODELS[name].defaults)})" for name in rows)
        raise ConfigError(
            f"expected settings from which each row takes a part away, found those of {found}: "
            "choose others with --set"
        )


def whole(base: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """Returns settings from which each row takes a part away.

    Args:
        base: settings that are good ones of Blin.

    Returns:
        The settings, without those that rows would take away but which are away already, so that
        Blin's defaults hold for them; and the names of these.
    """
    gone = [setting for name in _idle_rows(base) for setting in MODELS[name].defaults]
    return {name: value for name, value in base.items() if name not in gone}, gone


def _idle_rows(base: Mapping[str, object]) -> list[str]:
    """Returns the rows that have the very settings of the first."""
    first, *others = (
        (name, all_settings(name, {**base, **MODELS[name].defaults})) for name in ABLATIONS
    )
    return [name for name, settings in others if settings == first[1]]


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {text_of(value)}" for name, value in settings.items())
