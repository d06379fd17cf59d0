"""What the baselines reach on a dataset: counted and ranked once, then read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from blin.checkpoint import resolve_device
from blin.data.dataset import Dataset
from blin.data.loader import training_interactions
from blin.errors import ConfigError
from blin.evaluation.evaluator import evaluate
from blin.evaluation.ranking import Progress
from blin.files import replacing
from blin.models import BASELINES, MODELS

FORMAT_VERSION = 1


def measure_baselines(
    dataset: Dataset,
    *,
    protocol: Mapping[str, object],
    directory: Path,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Returns the test metrics of all baselines, with their default settings, by name.

    What was measured is kept in ``<directory>/.baselines-<fingerprint>.json`` and read from there
    the next time, unless the protocol, the times, the settings or blin have changed.

    Args:
        dataset: a prepared dataset; without times there is no ``recent-popularity``.
        protocol: that of the evaluation they are to be compared with.
        directory: an existing one.
        device: what to rank on.
        on_progress: called with the users done and the users to do, all baselines together.

    Raises:
        ConfigError: The evaluation is another than the full ranking of this dataset's test items.
    """
    key = _key(dataset, protocol)
    digest = dataset.fingerprint.rpartition(":")[2][:12]
    file = directory / f".baselines-{digest}.json"
    known = _read(file, key)
    if known is not None:
        return known
    metrics = _measure(dataset, protocol, resolve_device(device), on_progress)
    text = json.dumps({"key": key, "metrics": metrics}, indent=2) + "\n"
    with suppress(OSError), replacing(file) as temporary:  # then they are measured again
        temporary.write_text(text, encoding="utf-8")
    return metrics


def _measure(
    dataset: Dataset,
    protocol: Mapping[str, object],
    device: torch.device,
    on_progress: Progress | None,
) -> dict[str, dict[str, float]]:
    interactions = training_interactions(dataset)
    names = [
        name for name in BASELINES if name != "recent-popularity" or interactions.times is not None
    ]
    metrics = {}
    for number, name in enumerate(names):
        module: Any = MODELS[name].module(dataset.num_items, MODELS[name].config())
        module.count(interactions)

        def advance(done: int, total: int, number: int = number) -> None:
            if on_progress is not None:
                on_progress(number * total + done, len(names) * total)

        evaluation = evaluate(module.to(device), dataset, k=(10, 20), on_progress=advance)
        if evaluation.protocol != protocol:
            raise ConfigError(f"protocol: expected {evaluation.protocol}, found {protocol}")
        metrics[name] = evaluation.metrics
    return metrics


def _key(dataset: Dataset, protocol: Mapping[str, object]) -> dict[str, object]:
    """Returns all that the metrics depend on, as JSON gives it back."""
    return {
        "format_version": FORMAT_VERSION,
        "blin": version("blin-rec"),
        "protocol": dict(protocol),
        "times": dataset.times_checksum,
        "settings": {name: asdict(MODELS[name].config()) for name in BASELINES},
    }


def _read(file: Path, key: Mapping[str, object]) -> dict[str, dict[str, float]] | None:
    """Returns the metrics in a file, or None where it has not those of the key."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        return {
            str(name): {str(metric): float(value) for metric, value in metrics.items()}
            for name, metrics in content["metrics"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
