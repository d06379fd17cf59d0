"""How a run comes to be on the disk: out of sight, then under its name, complete."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
import torch

from blin.checkpoint import TrainedModel, times_read
from blin.data.dataset import Dataset
from blin.errors import BlinError, CheckpointError, reason_of
from blin.files import (
    parse_json,
    read_bounded,
    remove_leftovers,
    replacing,
    sync,
    temporary_beside,
)
from blin.tensors import written_by

T = TypeVar("T")

_LIMIT = 16 << 20
"""Bytes of ``environment.json``, enough for some 20,000 sittings."""


def create_run(
    runs_dir: Path,
    dataset: Dataset,
    trained: TrainedModel,
    settings: Mapping[str, object],
    *,
    label: str,
    fill: Callable[[Path], T],
    more: Mapping[str, object] | None = None,
) -> tuple[Path, T]:
    """Makes a run directory out of sight, has it filled, and gives it a name.

    Args:
        runs_dir: where runs live.
        dataset: what is learned from.
        trained: the model.
        settings: all of them.
        label: the end of the name.
        fill: writes into the directory, in which ``model`` and ``eval`` are there and empty.
        more: what else ``config.toml`` has.

    Returns:
        The run, and what ``fill`` returned.
    """
    parent = runs_dir / dataset.name
    parent.mkdir(parents=True, exist_ok=True)
    for directory in (runs_dir, parent):
        remove_leftovers(directory)
    suffix = temporary_beside(parent).suffix
    with tempfile.TemporaryDirectory(suffix, ".new-", parent) as scratch:
        new = Path(scratch) / "run"
        (new / "eval").mkdir(parents=True)
        (new / "model").mkdir()
        config = {
            **written_by(),
            "model": trained.name,
            "dataset": dataset.name,
            "dataset_path": str(dataset.path.resolve()),
            "fingerprint": dataset.fingerprint,
            **times_read(dataset, trained.name),
            "threads": torch.get_num_threads(),
            "settings": settings,
            **(more or {}),
        }
        write_config(new, config)
        _write_environment(new, _environment(trained.device))
        filled = fill(new)
        return _rename_to_free_name(new, parent, label), filled


def read_sittings(run: Path) -> list[dict[str, Any]]:
    """Returns what a run was trained by: where it was begun, and wherever it went on since.

    A run whose ``environment.json`` is gone may have gone on all the same.

    Returns:
        The first sitting, empty if it is not known, and the later ones, each with the ``epoch`` and
        the ``step`` in it that it went on after.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = run / "environment.json"
    if not file.exists():
        return [{}]
    try:
        content = parse_json(read_bounded(file, limit=_LIMIT))
        later = content.pop("resumed", [])
        if not isinstance(later, list) or not all(isinstance(each, dict) for each in later):
            raise ValueError("resumed is no list of objects")
    except (AttributeError, OSError, TypeError, ValueError) as cause:
        reason = reason_of(cause) if isinstance(cause, OSError | ValueError) else "no object"
        raise CheckpointError(f"{file}: expected JSON of a run, found: {reason}") from cause
    return [content, *later]


def add_sitting(run: Path, device: torch.device, *, epoch: int, step: int) -> None:
    """Writes down where and by what a run goes on, after so many epochs and steps of the next.

    Raises:
        CheckpointError: What is written down so far is damaged.
    """
    first, *later = read_sittings(run)
    later.append({**_environment(device), "epoch": epoch, "step": step})
    _write_environment(run, {**first, "resumed": later})


def _write_environment(run: Path, environment: Mapping[str, object]) -> None:
    with replacing(run / "environment.json") as temporary:
        text = json.dumps(environment, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")


def _environment(device: torch.device) -> dict[str, object]:
    return {
        "blin": version("blin-rec"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _rename_to_free_name(new: Path, parent: Path, label: str) -> Path:
    """Gives a finished directory the first free name of its kind."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        run = parent / (f"{stamp}-{label}" + (f"-{attempt + 1}" if attempt else ""))
        if run.exists():
            continue
        try:
            new.rename(run)
        except OSError:
            if not run.exists():
                raise
            continue  # another process was faster
        sync(parent)
        return run
    raise BlinError(f"{parent}: a thousand runs were begun in this second")


def point_latest(run: Path) -> None:
    """Makes the runs' ``latest`` a link to this one, in one step.

    Where there can be no links, there is no ``latest``; a training does not fail for it.
    """
    runs_dir = run.parent.parent
    temporary = temporary_beside(runs_dir / "latest")
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run.relative_to(runs_dir))
        try:
            temporary.replace(runs_dir / "latest")
        except OSError:
            temporary.unlink()
        sync(runs_dir)


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Writes the ``config.toml`` of a run."""
    with replacing(run / "config.toml") as temporary:
        temporary.write_text(tomli_w.dumps(config), encoding="utf-8")
