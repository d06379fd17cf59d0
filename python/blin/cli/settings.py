"""What ``--set`` takes: settings by name, with one value or several."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import click

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from blin.config import SHORT_NAMES
from blin.errors import ConfigError

if TYPE_CHECKING:
    from blin.cli.config_file import ConfigFile
    from blin.cli.output import Output
    from blin.experiments.points import Point, Range

_OPTIONS = {"kl_weight": "--lambda", "ted_weight": "--ted"}
"""Options that have another name than the setting they give."""

_PURPOSES = {"kl_weight": "agreement of two views", "ted_weight": "TED"}

_IDLE: tuple[tuple[str, object, str, tuple[str, ...]], ...] = (
    ("padding", "zero", "there are no copies", ("copies", "fit")),
    (
        "num_negatives",
        0,
        "no negatives are drawn",
        ("sampling", "negatives_per", "log_q", "exclude_history"),
    ),
    ("kl_weight", 0.0, "no two views have to agree", ("kl_positions",)),
    ("loss_positions", "last", "each prefix has a row", ("long_sequences",)),
    ("cold_share", 0.0, "no sequence is cut", ("cold_items",)),
    (
        "contrast_weight",
        0.0,
        "no views are told apart",
        ("temperature", "crop_ratio", "mask_ratio", "reorder_ratio"),
    ),
    ("ted_weight", 0.0, "there is no TED", ("ted_span", "ted_temperature", "ted_inputs")),
)
"""Where a setting has a value, why others have no effect then, and which."""

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


def check_options(model: str, named: Mapping[str, object], assignments: Sequence[str]) -> None:
    """Raises ConfigError for the first option, by the name typed, that is not for the model.

    What is a setting of no model at all is left to whoever knows what may have been meant.
    """
    from blin.models import MODELS
    from blin.training.trainer import setting_classes

    known = {field.name for cls in setting_classes(model) for field in fields(cls)}
    every = {
        field.name for name in MODELS for cls in setting_classes(name) for field in fields(cls)
    }
    typed = {
        _OPTIONS.get(name, "--" + name.replace("_", "-")): name
        for name, value in named.items()
        if value is not None
    }
    for assignment in assignments:
        typed[f"--set {assignment.partition('=')[0].strip()}"] = _parts(assignment)[0]
    for option, name in typed.items():
        if name in every - known:
            what = _PURPOSES.get(name, f"setting {name}")
            raise ConfigError(f"{option}: {model} has no {what}")


def warn_of_no_effect(
    model: str,
    settings: Mapping[str, object],
    file: ConfigFile | None,
    named: Mapping[str, object],
    assignments: Sequence[str],
    output: Output,
) -> None:
    """Says of which settings that the user chose nothing depends, as the others are.

    Args:
        model: what is trained.
        settings: all that were given, merged.
        file: the configuration; what it says was chosen only where the user wrote it.
        named: the options.
        assignments: what ``--set`` was given.
        output: where it is said.
    """
    chosen = {name for name, value in named.items() if value is not None}
    chosen |= {_parts(assignment)[0] for assignment in assignments}
    if file is not None and file.written_by_hand:
        chosen |= set(file.settings)
    for message in _without_effect(model, settings, chosen):
        output.warn(message)


def warn_of_idle_axes(points: Sequence[Point], output: Output) -> None:
    """Says on which of the settings in which points differ nothing depends in some of them."""
    values: dict[str, set[str]] = {}
    for point in points:
        for name, value in point.settings.items():
            values.setdefault(name, set()).add(repr(value))
    varied = {
        name
        for name, found in values.items()
        if len(found) > 1 or any(name not in point.settings for point in points)
    }
    messages = [
        message
        for point in points
        for message in _without_effect(point.model, point.settings, varied & set(point.settings))
    ]
    for message in dict.fromkeys(messages):
        output.warn(message)


def _without_effect(
    model: str, settings: Mapping[str, object], chosen: Collection[str]
) -> Iterator[str]:
    """Yields a message for each chosen setting that is not as usual and has no effect.

    Raises:
        ConfigError: The settings are none for the model.
    """
    from blin.models import MODELS
    from blin.training.trainer import all_settings, check_settings

    check_settings(model, settings)
    usual = all_settings(model, MODELS[model].defaults)
    found = all_settings(model, {**MODELS[model].defaults, **settings})
    idle = {
        name: f"with {cause} = {value}: {reason}"
        for cause, value, reason, names in _IDLE
        if found.get(cause) == value
        for name in names
    }
    if found.get("loss") != "gbce":
        idle["calibration"] = f"with loss = {found.get('loss')}: it is of gbce"
    if (found.get("padding"), found.get("loss_average")) == ("zero", "copy"):
        idle["loss_average"] = "with padding = zero: there are no copies"
    if (found.get("padding"), found.get("loss_positions")) == ("zero", "last"):
        idle["loss_average"] = "with loss_positions = last: each row has one step"
        idle["kl_positions"] = "with loss_positions = last: each row has one step"
    scopes = (usual.get("negatives_per"), found.get("negatives_per"))
    if found.get("padding") == "zero" and scopes == ("position", "copy"):
        idle["negatives_per"] = "with padding = zero: there are no copies"
    for name, reason in idle.items():
        if name in chosen and found.get(name) != usual.get(name):
            yield f"{name} = {found[name]} has no effect {reason}"


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
    return SHORT_NAMES.get(name, name), text.strip()


def _value(text: str) -> object:
    """Reads a value as TOML does; anything TOML would refuse is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also numbers of thousands of digits, and deep lists
        return text
