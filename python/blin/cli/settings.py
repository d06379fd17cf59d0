"""What ``--set`` takes: settings by name, with one value or several."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from blin.experiments.points import Range

_SHORT = {"lambda": "kl_weight"}
"""What papers call a setting, and what it is called here."""

_RANGE = re.compile(r"(-?[\d.]+(?:e-?\d+)?)\.\.(-?[\d.]+(?:e-?\d+)?)(:log)?", re.IGNORECASE)


def merged_settings(
    settings: Mapping[str, object], named: Mapping[str, object], assignments: Sequence[str]
) -> dict[str, object]:
    """Returns one mapping of settings: the file's, over them the options', over them --set's."""
    settings = {**settings, **{name: value for name, value in named.items() if value is not None}}
    for assignment in assignments:
        name, text = _parts(assignment)
        settings[name] = _value(text)
    return settings


def several_values(assignments: Sequence[str]) -> dict[str, list[object] | Range]:
    """Returns the values of each setting: ``dim=64,128``, or ``dim=32..256`` and ``...:log``."""
    from blin.experiments.points import Range

    found: dict[str, list[object] | Range] = {}
    for assignment in assignments:
        name, text = _parts(assignment)
        if name in found:
            raise click.UsageError(f"--set: {name} is given twice: write {name}=A,B")
        ends = _RANGE.fullmatch(text)
        if ends is None:
            found[name] = [_value(part.strip()) for part in text.split(",")]
            continue
        try:
            low, high = float(ends[1]), float(ends[2])
        except ValueError:
            low, high = 1.0, 0.0
        if not low < high < math.inf or (ends[3] and low <= 0):
            above = " above 0" if ends[3] else ""
            raise click.UsageError(f"--set: expected {name}=LOW..HIGH{above}, found {text}")
        found[name] = Range(low, high, log=ends[3] is not None)
    return found


def _parts(assignment: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    if not equals:
        raise click.UsageError(f'--set: expected KEY=VALUE, found "{assignment}"')
    name = key.strip().replace("-", "_")
    return _SHORT.get(name, name), text.strip()


def _value(text: str) -> object:
    """Reads a value as TOML does; anything TOML would refuse is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also numbers of thousands of digits, and deep lists
        return text
