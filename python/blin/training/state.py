"""Everything a training needs to go on as if it had never stopped, in one file.

Weights, optimiser moments and random states are tensors; the counters and the history are JSON in
the file's metadata. One file means one rename: it is the old state or the new one, never half.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blin.checkpoint import read_tensors, write_tensors
from blin.errors import CheckpointError

FORMAT_VERSION = 1


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: epochs completed.
        step: steps completed of the epoch after those.
        sums: of each part of the loss over those steps.
        history: one record per completed epoch.
        best_epoch: the epoch with the best validation, 0 before the first.
        best_metric: its validation metric.
        scaler: the state of the scaler that fp16 gradients need.
        seconds: spent so far.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_metric: float = float("-inf")
    scaler: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def save_state(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Writes the state of a training."""
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "progress": json.dumps(asdict(progress)),
    }
    write_tensors(path, tensors, metadata)


def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Reads the state of a training into its module, its optimiser and torch's generators.

    Raises:
        CheckpointError: The file is missing, damaged, or of another model.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path}: expected format version {FORMAT_VERSION}, "
            f"found {metadata.get('format_version')}: use the version of blin that wrote it"
        )
    slots: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = value
        elif kind == "optimizer":
            index, _, slot = rest.partition(".")
            # The optimiser keeps what it is given, and this is a view of the mapped file.
            slots.setdefault(int(index), {})[slot] = value.clone()
    try:
        progress = Progress(**json.loads(metadata["progress"]))
        module.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
        torch.set_rng_state(tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
    except (KeyError, ValueError, TypeError, RuntimeError) as cause:
        reason = str(cause).splitlines()[0]
        raise CheckpointError(f"{path}: it does not fit this run: {reason}") from cause
    return progress
