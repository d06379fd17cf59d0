"""Everything a training needs to go on as if it had never stopped, in one file.

Weights, optimiser moments and random states are tensors; the counters and the history are JSON in
the file's metadata. One file means one rename: it is the old state or the new one, never half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blin.errors import CheckpointError, reason_of
from blin.tensors import (
    Header,
    check_finite,
    check_tensors,
    kind_of,
    read_tensors,
    tensors_of,
    write_tensors,
)

_SLOTS = ("exp_avg", "exp_avg_sq", "step")
"""What Adam keeps for each parameter."""


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: epochs completed.
        step: steps completed of the epoch after those.
        sums: of each part of the loss over those steps.
        counts: of how many of those steps each part is; a batch may lack what another one has.
        history: one record per completed epoch.
        best_epoch: the epoch with the best validation, 0 before the first.
        best_metric: its validation metric.
        scaler: the state of the scaler that fp16 gradients need.
        seconds: spent so far.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_metric: float = float("-inf")
    scaler: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class State:
    """The state of a training on disk, its header read and checked.

    Attributes:
        path: the file.
        header: what it says of itself.
        progress: how far the training had come.
    """

    path: Path
    header: Header
    progress: Progress


def save_state(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: Mapping[str, Any],
) -> None:
    """Writes the state of a training.

    Args:
        path: the file.
        module: its weights.
        optimizer: its moments.
        progress: how far it has come.
        identity: what the state belongs to, as for :func:`open_state`.
    """
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    where = _device_of(module)
    if where.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(where)
    write_tensors(path, tensors, {"progress": asdict(progress), "identity": dict(identity)})


def open_state(path: Path, header: Header, module: nn.Module, identity: Mapping[str, Any]) -> State:
    """Checks that what a state says of itself fits.

    Args:
        path: the file.
        header: its header.
        module: of the shapes that are expected; it need have no memory.
        identity: what the state must belong to: nothing but its equal is gone on with. Keys that
            one of the two does not know are passed over.

    Raises:
        CheckpointError: The file is damaged, or of another run or version.
    """
    try:
        found = header.about["identity"]
        progress = _progress_of(header.about["progress"])
        different = [key for key in identity if key in found and found[key] != identity[key]]
    except (KeyError, ValueError, TypeError) as cause:
        raise CheckpointError(
            f"{path}: expected how far a training has come, found none"
        ) from cause
    for key in different:
        raise CheckpointError(
            f"{path}: it belongs to another run: expected {key} {identity[key]!r:.100}, "
            f"found {found[key]!r:.100}"
        )
    wanted = {f"model.{name}": kind for name, kind in tensors_of(module).items()}
    slots = {name for name in header.tensors if name.startswith("optimizer.")}
    for index, parameter in enumerate(module.parameters()):
        if any(f"optimizer.{index}.{name}" in slots for name in _SLOTS):
            kind = kind_of(parameter)
            for name in _SLOTS:
                wanted[f"optimizer.{index}.{name}"] = ("F32", ()) if name == "step" else kind
    wanted["random.cpu"] = kind_of(torch.get_rng_state())
    if "random.cuda" in header.tensors:
        found_kind = header.tensors["random.cuda"]
        on_gpu = torch.cuda.is_available()
        wanted["random.cuda"] = kind_of(torch.cuda.get_rng_state()) if on_gpu else found_kind
    check_tensors(path, header, wanted)
    return State(path, header, progress)


def load_state(state: State, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts a state into its module, its optimiser and torch's generators.

    Raises:
        CheckpointError: The file is damaged.
    """
    tensors = read_tensors(state.path, state.header)
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
    check_finite(state.path, weights)
    try:
        module.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
        torch.set_rng_state(tensors["random.cpu"])
        where = _device_of(module)
        if where.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], where)
    except (KeyError, ValueError, TypeError, RuntimeError) as cause:
        raise CheckpointError(
            f"{state.path}: it does not fit this run: {reason_of(cause)}"
        ) from cause


def _device_of(module: nn.Module) -> torch.device:
    """Returns where a module computes, and so whose generator its dropout draws from."""
    return next(module.parameters()).device


def _progress_of(content: Any) -> Progress:
    """Returns the progress that JSON describes; ValueError or TypeError if it describes none."""
    # A state that knows no counts is of a version that took every part for one of every step.
    counts = dict.fromkeys(content["sums"], content["step"])
    progress = Progress(**{"counts": counts, **content})
    for field_ in fields(Progress):
        value, default = getattr(progress, field_.name), getattr(Progress(), field_.name)
        if type(value) is not type(default):
            raise TypeError(field_.name)
    counters = 0 <= progress.best_epoch <= progress.epoch == len(progress.history)
    if not counters or progress.step < 0 or not math.isfinite(progress.seconds):
        raise ValueError("counters")
    for record in progress.history:
        if not isinstance(record["valid"], dict):
            raise TypeError("history")
    if not all(isinstance(total, float) for total in progress.sums.values()):
        raise TypeError("sums")
    if not all(type(count) is int and count > 0 for count in progress.counts.values()):
        raise TypeError("counts")
    if progress.sums.keys() != progress.counts.keys():
        raise ValueError("counts")
    return progress
