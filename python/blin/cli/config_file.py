"""What ``--config`` names: built-in settings, a file of one's own, or the one that a run wrote."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blin.config import by_full_names
from blin.errors import ConfigError, did_you_mean, reason_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILT_IN = Path(__file__).parent.parent / "configs"

_TEXTS = ("model", "dataset", "dataset_path", "fingerprint", "times")
_WRITER = ("format_version", "blin_version")
_TABLES = ("settings", "distillation")
_KEYS = (*_TEXTS, "threads", *_TABLES, *_WRITER)
"""What a run's ``config.toml`` has outside its settings; of who wrote it nothing depends."""


def built_in_configs() -> list[str]:
    """Returns the names of the configurations that come with blin."""
    return sorted(file.stem for file in BUILT_IN.glob("*.toml"))


@dataclass(frozen=True)
class ConfigFile:
    """What a configuration says; all of it but the settings may be missing.

    Attributes:
        source: as the user named it.
        settings: of the model and its training.
        model: what to train.
        dataset: what to train on, by name.
        dataset_path: where that was.
        fingerprint: of its sequences.
        times: what tells the times that the run read; None where it read none.
        threads: how many the run had.
        distillation: what the run was distilled from, and how; None for a plain training.
    """

    source: str
    settings: Mapping[str, object]
    model: str | None = None
    dataset: str | None = None
    dataset_path: str | None = None
    fingerprint: str | None = None
    times: str | None = None
    threads: int | None = None
    distillation: Mapping[str, Any] | None = None

    @property
    def written_by_hand(self) -> bool:
        """Whether it is no built-in configuration, and none that a run wrote, with all settings."""
        return self.source not in built_in_configs() and self.dataset_path is None

    @classmethod
    def read(cls, source: str) -> ConfigFile:
        """Reads a built-in configuration, by its name, or a TOML file.

        Settings stand in a table ``[settings]``, as a run's ``config.toml`` has them, or at the
        top of the file.

        Raises:
            ConfigError: There is no such file, or it is no TOML, or has a key of the wrong type.
        """
        content = _read_toml(source)
        about = {key: content.pop(key) for key in _KEYS if key in content}
        for key in _WRITER:
            about.pop(key, None)
        for key in _TABLES:
            if key in about and not isinstance(about[key], dict):
                raise ConfigError(f"{source}: {key}: expected a table, found {about[key]!r}")
        settings = about.pop("settings", content)
        if settings is not content and content:
            name = next(iter(content))
            hint = did_you_mean(name, _KEYS) or "; settings stand under [settings]"
            raise ConfigError(f'{source}: unknown key "{name}"{hint}')
        for key, value in about.items():
            if key in _TEXTS and not isinstance(value, str):
                raise ConfigError(f"{source}: {key}: expected text, found {value!r}")
        threads = about.get("threads", 1)
        if type(threads) is not int or not 1 <= threads <= 512:
            raise ConfigError(f"{source}: threads: expected 1 to 512, found {threads!r}")
        try:
            settings = by_full_names(settings)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        if "dataset_path" in about and "model" in about:
            from blin.checkpoint import run_settings

            settings = run_settings(about["model"], settings)
        return cls(source, settings, **about)

    def check(self, model: str | None, *, student: bool = False) -> None:
        """Raises ConfigError unless its settings are good ones of the model it is to be used for.

        A run's settings are complete; given to another model they would override its presets, and
        so the file's model must be the one the user names.

        Args:
            model: what the user named; None for the file's model or, without one, ``blin``.
            student: whether it is to be distilled from a teacher.
        """
        from blin.models import MODELS
        from blin.training.trainer import check_settings

        if self.distillation is not None and not student:
            raise ConfigError(
                f"{self.source}: it is of a run that was distilled from a teacher: use "
                f"blin distill --config {self.source}"
            )
        if None not in (model, self.model) and model != self.model:
            raise ConfigError(
                f"{self.source}: its settings are those of the model {self.model}, found --model "
                f"{model}: leave out one of the two"
            )
        name = model or self.model or "blin"
        try:
            check_settings(name, self.settings, other_keys=_KEYS)
        except ConfigError as error:
            if name not in MODELS and self.model is None:
                raise
            raise ConfigError(f"{self.source}: {error}") from error


def _read_toml(source: str) -> dict[str, Any]:
    known = built_in_configs()
    file = BUILT_IN / f"{source}.toml" if source in known else Path(source)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = did_you_mean(source, known) or f"; built in are {', '.join(known)}"
        raise ConfigError(f'no settings "{source}": no such file{hint}') from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{source}: expected a TOML file of settings: {reason_of(error)}"
        ) from error
