"""What each part of Blin is worth: the model without it, all else equal (the paper's Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blin.experiments.points import Point
from blin.models import MODELS

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
