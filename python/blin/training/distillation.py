"""What a student is distilled from: a finished run, whose features are computed once and kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blin.checkpoint import TIMES, WEIGHTS_FILE, TrainedModel, check_times, load_run, times_read
from blin.config import build, check_known
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.data.windows import Windows, windows
from blin.errors import BlinError, CheckpointError, ConfigError, reason_of
from blin.models import MODELS, Learned
from blin.models.distillation import (
    DistillationConfig,
    Distilled,
    Knowledge,
    TeacherShape,
    features_of,
)
from blin.tensors import check_tensors, read_header, read_tensors, write_tensors

KNOWLEDGE_FILE = "checkpoints/teacher.safetensors"
"""The features of a run's teacher, while the run is trained."""

TABLE = "distillation"
"""Of ``config.toml``, what tells how a run was distilled."""

_TEXTS = ("teacher", "model", "weights")

ROWS_AT_ONCE = 1 << 14
"""Positions that the teacher encodes together."""


@dataclass(frozen=True)
class Distillation:
    """A teacher, and how a student learns from it.

    Attributes:
        teacher: the run directory.
        model: the name of the teacher's model.
        weights: ``sha256:…`` of the file of its weights.
        shape: of its features.
        config: how the student learns.
    """

    teacher: Path
    model: str
    weights: str
    shape: TeacherShape
    config: DistillationConfig = field(default_factory=DistillationConfig)

    @classmethod
    def of(cls, teacher: str | Path, dataset: Dataset, config: DistillationConfig) -> Distillation:
        """Returns a distillation from a run.

        Args:
            teacher: its directory.
            dataset: what the student will learn from.
            config: how.

        Raises:
            CheckpointError: It is no run with a model, or one of another dataset.
            ConfigError: Its model learns by counting, and has no features.
        """
        teacher = Path(teacher)
        run = load_run(teacher, device="cpu")
        name, module = run.model.name, run.model.module
        if not isinstance(module, Learned):
            raise ConfigError(
                f"{teacher}: expected a teacher that learns by a loss, found {name}, "
                "which counts and has no features"
            )
        known = run.model.item_ids.equals(dataset.item_ids)
        if run.config["fingerprint"] != dataset.fingerprint or not known:
            raise CheckpointError(
                f"{teacher}: expected a teacher that was trained on {dataset.path}, found one of "
                f"other sequences, {run.config['dataset_path']}"
            )
        check_times(teacher, run.config.get(TIMES), dataset)
        return cls(
            teacher.resolve(),
            name,
            _sha256(teacher / "model" / WEIGHTS_FILE),
            TeacherShape.of(module),
            config,
        )

    @classmethod
    def of_config(cls, file: Path, config: Mapping[str, Any]) -> Distillation | None:
        """Returns the distillation of a run by its ``config.toml``; None where there is none.

        Raises:
            CheckpointError: Its table is damaged.
        """
        return cls.of_table(file, config[TABLE]) if TABLE in config else None

    @classmethod
    def of_table(cls, file: Path, table: Mapping[str, Any]) -> Distillation:
        """Returns the distillation that a table of a file tells of.

        Raises:
            CheckpointError: The table is damaged.
        """
        try:
            rest = dict(table)
            teacher, model, weights = (str(rest.pop(key)) for key in _TEXTS)
            if model not in MODELS:
                raise ValueError(f"expected a model blin knows, found {model!r:.100}")
            shape = TeacherShape(*(rest.pop(key) for key in TeacherShape._fields))
            if not all(type(size) is int and 1 <= size < 1 << 24 for size in shape):
                raise ValueError(f"sizes of a teacher: {tuple(shape)}")
            check_known(rest, DistillationConfig)
            return cls(Path(teacher), model, weights, shape, build(DistillationConfig, rest))
        except KeyError as cause:
            raise CheckpointError(f"{file}: {TABLE}: expected {cause}, found none") from cause
        except (TypeError, ValueError) as cause:
            raise CheckpointError(f"{file}: {TABLE}: {reason_of(cause)}") from cause

    @property
    def table(self) -> dict[str, object]:
        """What ``config.toml`` says of it."""
        return {"teacher": str(self.teacher), **self.identity}

    @property
    def identity(self) -> dict[str, object]:
        """All that the trained student depends on."""
        return {
            "model": self.model,
            "weights": self.weights,
            **self.shape._asdict(),
            **asdict(self.config),
        }

    def around(self, student: torch.nn.Module) -> Distilled:
        """Returns a student with what it learns by, whose weights are drawn.

        The student's own draws stay those of a training without a teacher.
        """
        if not isinstance(student, Learned):
            raise TypeError(f"expected a student that learns by a loss, got {type(student)}")
        with torch.random.fork_rng(devices=[]):
            return Distilled(student, self.shape, self.config)

    def knowledge(self, dataset: Dataset, *, device: torch.device | str) -> Knowledge:
        """Lets the teacher read all training sequences.

        Raises:
            CheckpointError: The teacher is not there any more, or has other weights now.
        """
        teacher = TrainedModel.load(self._teacher_model(), device=device)
        return knowledge_of(teacher.module, dataset)

    def require(self, file: Path) -> None:
        """Raises CheckpointError unless what the teacher knows is kept in a file, or can be asked.

        Args:
            file: where :meth:`kept_knowledge` would keep it.
        """
        if not file.exists():
            self._teacher_model()

    def _teacher_model(self) -> Path:
        file = self.teacher / "model" / WEIGHTS_FILE
        if not file.exists():
            raise CheckpointError(f"{self.teacher}: expected the run of the teacher, found none")
        if _sha256(file) != self.weights:
            raise CheckpointError(
                f"{file}: expected the weights of the teacher that the run began with, found others"
            )
        return file.parent

    def kept_knowledge(
        self, file: Path, dataset: Dataset, *, device: torch.device | str
    ) -> Knowledge:
        """Returns what the teacher knows, from a file; there is one afterwards if there was none.

        Raises:
            CheckpointError: The file is damaged, or of another teacher.
        """
        if not file.exists():
            found = self.knowledge(dataset, device=device)
            tensors = {"features": found.features, "items": found.items}
            write_tensors(file, tensors, self._about(dataset))
        try:
            return self._read(file, dataset)
        except CheckpointError as cause:
            raise CheckpointError(f"{cause}: delete it, and it is computed again") from cause

    def _about(self, dataset: Dataset) -> dict[str, str]:
        """Returns all that the features depend on."""
        times = times_read(dataset, self.model)
        return {"fingerprint": dataset.fingerprint, **times, "weights": self.weights}

    def _read(self, file: Path, dataset: Dataset) -> Knowledge:
        header = read_header(file)
        for name, expected in self._about(dataset).items():
            # What an older version wrote tells no times.
            found = header.about.get(name, expected if name == TIMES else None)
            if found != expected:
                raise CheckpointError(
                    f"{file}: it is of another teacher: expected {name} {expected}, found "
                    f"{found!s:.100}"
                )
        shifts, steps = _shifts(dataset)
        layers, dim, item_dim = self.shape
        wanted = {
            "features": ("F16", (steps, layers, dim)),
            "items": ("F32", (dataset.num_items + 1, item_dim)),
        }
        check_tensors(file, header, wanted)
        tensors = read_tensors(file, header, mapped=True)
        return Knowledge(tensors["features"], tensors["items"], torch.from_numpy(shifts))


def told_of(config: Mapping[str, Any]) -> dict[str, object]:
    """Returns what tells a distilled run from others, by its ``config.toml``, like settings.

    Of a run without a teacher that is nothing.
    """
    table = config.get(TABLE)
    if not isinstance(table, dict):
        return {}
    own = {name: table.get(name) for name in DistillationConfig.__dataclass_fields__}
    weights = str(table.get("weights", "")).removeprefix("sha256:")[:12]
    return {"teacher": str(table.get("model")), "teacher_weights": weights, **own}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
    except OSError as cause:
        raise CheckpointError(f"{file}: not read: {cause.strerror}") from cause
    return f"sha256:{digest.hexdigest()}"


def _shifts(dataset: Dataset) -> tuple[NDArray[np.int64], int]:
    """Returns by how much the features of a user's steps come before their items; their count."""
    starts, ends = dataset.training_ranges()
    steps = np.maximum(ends - starts - 1, 0)
    return starts - (np.cumsum(steps) - steps), int(steps.sum())


@torch.no_grad()
def knowledge_of(teacher: torch.nn.Module, dataset: Dataset) -> Knowledge:
    """Lets a teacher read all training sequences, but for the last item of each.

    A sequence longer than a row is read in several, each ending half a row before the next. A step
    is taken from the row in whose newest half it stands, and so has at least half a row behind it;
    those of the oldest row are all taken. Nothing that is held out is read.

    Args:
        teacher: in evaluation mode.
        dataset: what to read.
    """
    assert isinstance(teacher, Learned)
    spec = teacher.batch_spec
    starts, ends = dataset.training_ranges()
    shifts, steps = _shifts(dataset)
    rows, firsts = rows_to_read(starts, ends - 1, spec.max_len)
    shape = TeacherShape.of(teacher)
    features = torch.empty(steps, shape.layers, shape.dim, dtype=torch.float16)
    where = teacher.item_embedding.weight.device
    # Rows of one length are read together.
    order = np.argsort(rows.ends - rows.starts, kind="stable")
    at_once = max(1, ROWS_AT_ONCE // spec.max_len)
    for place in range(0, len(order), at_once):
        chosen = order[place : place + at_once]
        batch = history_batch(
            dataset.items,
            rows.starts[chosen],
            rows.ends[chosen],
            spec,
            timestamps=dataset.timestamps,
        )
        view = batch.views[0].to(where)
        made = torch.stack(features_of(teacher, view), dim=2).half().cpu()  # (B, N, L, D)
        places = np.arange(made.shape[1]) + rows.ends[chosen][:, None] - made.shape[1]
        told = places >= firsts[chosen][:, None]
        steps_told = (places - shifts[rows.owners[chosen]][:, None])[told]
        features[torch.from_numpy(steps_told)] = made[torch.from_numpy(told)]
    if not all(math.isfinite(float(end)) for end in features.aminmax()):
        raise BlinError("expected features of the teacher that 16 bits hold, found larger ones")
    items = teacher.item_embedding.items.float().cpu().clone()
    return Knowledge(features, items, torch.from_numpy(shifts))


def rows_to_read(
    starts: NDArray[np.int64], ends: NDArray[np.int64], max_len: int
) -> tuple[Windows, NDArray[np.int64]]:
    """Returns the rows in which ranges are read, each ending half a row before the next.

    Args:
        starts: (U,), where the ranges begin.
        ends: (U,), where they end; one that ends before it begins has no row.
        max_len: the most places in a row.

    Returns:
        The R rows; and (R,), from which place on the steps of each are taken, while those before
        are taken from the row before.
    """
    stride = max(1, max_len // 2)
    found = windows(starts, ends, size=max_len, stride=stride)
    rows = Windows(*(part[found.ends > found.starts] for part in found))
    oldest = rows.starts == starts[rows.owners]
    return rows, np.where(oldest, rows.starts, rows.ends - stride)
