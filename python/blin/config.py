"""Where things live, how settings become the fields of a dataclass, and how those are checked."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any, TypeVar

from blin.errors import ConfigError, did_you_mean

T = TypeVar("T")

SHORT_NAMES = {"lambda": "kl_weight"}
"""What papers call a setting, and what it is called here."""

_BEFORE = "before"
"""In the metadata of a field, what stood in its place before there was it."""

_LIMIT = 2**31
"""Whole numbers are below, as are sizes, counts and positions everywhere; a seed may be higher."""


def default_data_dir() -> Path:
    """Returns where prepared datasets live: ``$BLIN_DATA_DIR``, or ``data``."""
    return Path(os.environ.get("BLIN_DATA_DIR") or "data")


def default_runs_dir() -> Path:
    """Returns where runs live: ``$BLIN_RUNS_DIR``, or ``runs``."""
    return Path(os.environ.get("BLIN_RUNS_DIR") or "runs")


def by_full_names(settings: Mapping[str, object]) -> dict[str, object]:
    """Returns settings under the names that they have here.

    Raises:
        ConfigError: One stands there under both.
    """
    for short, name in SHORT_NAMES.items():
        if short in settings and name in settings:
            raise ConfigError(f"{short} and {name} are one setting: leave out one of the two")
    return {SHORT_NAMES.get(name, name): value for name, value in settings.items()}


def build(cls: type[T], settings: Mapping[str, object]) -> T:
    """Returns a dataclass whose fields take the settings of their name; others are left alone.

    Raises:
        ConfigError: A value does not have the type of its field.
    """
    values = {
        field.name: _coerce(field.name, settings[field.name], field.default)
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name in settings
    }
    return cls(**values)


def added(default: T, *, before: T) -> T:
    """Returns a field for a setting of a model whose default is not what was done before it.

    A run of that time has none of this name in its ``config.toml``; it stands for ``before``.
    """
    return dataclasses.field(default=default, metadata={_BEFORE: before})


def with_earlier(settings: Mapping[str, object], cls: type) -> dict[str, object]:
    """Returns the settings of a run, and those of its model that were :func:`added` since."""
    known = dataclasses.fields(cls)
    earlier = {field.name: field.metadata[_BEFORE] for field in known if _BEFORE in field.metadata}
    return {**earlier, **settings}


def check_known(settings: Iterable[str], *classes: type, other_keys: Iterable[str] = ()) -> None:
    """Raises ConfigError for the first setting that is a field of none of the classes.

    ``other_keys`` are no settings, but may be what was meant.
    """
    known = [field.name for cls in classes for field in dataclasses.fields(cls)]
    for name in settings:
        if name not in known:
            hint = (
                did_you_mean(name, [*known, *other_keys])
                or f"; known are {', '.join(sorted(known)) or 'none'}"
            )
            raise ConfigError(f'unknown setting "{name}"{hint}')


def check_at_least(config: object, least: float, *names: str) -> None:
    """Raises ConfigError for the first of the settings of these names that is below ``least``."""
    for name in names:
        found = getattr(config, name)
        if found < least:
            raise ConfigError(f"{name}: expected at least {least}, found {found}")


def check_one_of(config: object, **known: Iterable[str]) -> None:
    """Raises ConfigError for the first of the named settings that is none of its known values."""
    for name, values in known.items():
        found = getattr(config, name)
        if found not in values:
            raise ConfigError(f"{name}: expected one of {', '.join(values)}, found {found!r}")


def check_probability(config: object, *names: str) -> None:
    """Raises ConfigError for the first of the settings of these names that is not in [0, 1)."""
    for name in names:
        found = getattr(config, name)
        if not 0 <= found < 1:
            raise ConfigError(f"{name}: expected a number in [0, 1), found {found}")


def whole_number(name: str, value: object, *, least: int = 0, below: int = _LIMIT) -> int:
    """Returns a whole number of Python, NumPy or torch as Python's.

    Args:
        name: of the argument, for the message.
        value: what was given.
        least: the lowest that it may be.
        below: the lowest that is too high.

    Raises:
        ConfigError: It is none, or out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"{name}: expected a whole number, found {_shown(value)}") from None
    if number < least:
        raise ConfigError(f"{name}: expected at least {least}, found {_shown(number)}")
    if number >= below:
        power = below.bit_length() - 1
        raise ConfigError(f"{name}: expected a number below 2^{power}, found {_shown(number)}")
    return number


def _coerce(name: str, value: object, default: Any) -> object:
    """Returns the value as the type of the field's default; numbers of NumPy become Python's."""
    wanted = type(default)
    if not isinstance(value, bool):
        if wanted is float and isinstance(value, Real) and is_finite(value):
            return float(value)
        if wanted is int and isinstance(value, Integral):
            if int(value) >= _LIMIT and name != "seed":
                raise ConfigError(
                    f"{name}: expected a whole number below 2^31, found {_shown(value)}"
                )
            return int(value)
    if wanted in (bool, str) and isinstance(value, wanted):
        return value
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    raise ConfigError(f"{name}: expected {names[wanted]}, found {_shown(value)}")


def is_finite(value: Real) -> bool:
    """Returns whether a number is neither infinite, nor none, nor beyond all floats."""
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number beyond all floats
        return False


def _shown(value: object) -> str:
    """Returns a value as a message shows it, in one line that is not too long."""
    if isinstance(value, Integral) and abs(int(value)) >= 10**30:
        return "a number of more than 30 digits"
    return f"{value!r:.100}"
