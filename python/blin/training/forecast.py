"""What a training will take, measured on a few of its batches."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import TrainingLoader
from blin.data.memory import peak_memory_bytes
from blin.evaluation.evaluator import evaluate
from blin.evaluation.ranking import SCORES_AT_ONCE
from blin.training.distillation import Distillation
from blin.training.trainer import Trainer, check_settings, new_trainer

TIMED_BATCHES = 3
RANKED_USERS = 512


@dataclass(frozen=True)
class Memory:
    """The bytes that a training takes, of the device it computes on.

    Attributes:
        weights: of the model.
        gradients: of the weights.
        optimizer: the moments of the weights.
        activations: what the forward pass of a batch keeps for the backward pass, at most.
        scores: of the users that validation ranks together.
        measured: the most that was taken at once: of a GPU by its tensors; of a CPU's memory by
            the process, with Python and its libraries.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    scores: int
    measured: int


@dataclass(frozen=True)
class Forecast:
    """What :func:`forecast` returns.

    Attributes:
        model: the model.
        settings: all of them.
        device: where it computes.
        threads: of torch.
        parameters: numbers to learn.
        users: that are learned from; where a sequence is learned from in parts, each is a user.
        unit: what they are: ``users``, or ``prefixes`` or ``windows`` of their sequences.
        left_out: the share of the steps that no row holds.
        batches: in an epoch.
        views: of each batch.
        rows: of a view, on average.
        memory: in bytes.
        seconds_per_batch: the median of the timed batches.
        validated_users: whose items are ranked after each epoch.
        validation_seconds: for ranking them.
        epochs: the most there will be.
        fewest_epochs: as many as there are if the first stays the best.
        run_bytes: what the run will take on the disk, without its evaluations.
    """

    model: str
    settings: dict[str, object]
    device: str
    threads: int
    parameters: int
    users: int
    unit: str
    left_out: float
    batches: int
    views: int
    rows: float
    memory: Memory
    seconds_per_batch: float
    validated_users: int
    validation_seconds: float
    epochs: int
    fewest_epochs: int
    run_bytes: int

    @property
    def epoch_seconds(self) -> float:
        """For the batches of an epoch; the last may be smaller and take less."""
        return self.seconds_per_batch * self.batches

    def training_seconds(self, epochs: int) -> float:
        """Returns the time of so many epochs, each with its validation."""
        return epochs * (self.epoch_seconds + self.validation_seconds)


def forecast(
    dataset: Dataset,
    *,
    model: str = "blin",
    settings: Mapping[str, object] | None = None,
    device: str = "auto",
    threads: int | None = None,
    distillation: Distillation | None = None,
) -> Forecast:
    """Trains on four batches, validates some users, and tells what all will take.

    The first batch is for the memory, the others for the time. Nothing is written.

    Args:
        dataset: as for :func:`blin.training.trainer.train`, like all the others.
        model: a key of ``MODELS``.
        settings: of the model and its training.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch.
        distillation: what the model is to learn from beside the data; the teacher reads all
            training sequences for it.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """
    check_settings(model, settings or {})
    trainer = new_trainer(
        dataset,
        model=model,
        settings=settings,
        device=device,
        threads=threads,
        distillation=distillation,
    )
    trainer.take_knowledge()
    config, loader, where = trainer.config, trainer.loader, trainer.device
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    batches = _batches(loader)
    first = next(batches)
    rows = [len(first.views[0].items)]
    activations = _activations(trainer, first.to(where))
    seconds = []
    for _ in range(TIMED_BATCHES):
        _wait_for(where)
        begin = time.perf_counter()
        batch = next(batches)
        trainer.step(batch.to(where))
        _wait_for(where)
        seconds.append(time.perf_counter() - begin)
        rows.append(len(batch.views[0].items))
    validated, validation_seconds = _validation(trainer)
    parameters = list(trainer.module.parameters())
    weights = _bytes(trainer.module.state_dict().values())
    moments = _bytes(
        slot
        for slots in trainer.optimizer.state.values()
        for slot in slots.values()
        if isinstance(slot, Tensor)
    )
    on_gpu = where.type == "cuda"
    measured = torch.cuda.max_memory_allocated(where) if on_gpu else peak_memory_bytes()
    ranked_together = max(1, min(1024, validated, SCORES_AT_ONCE // (dataset.num_items + 1)))
    return Forecast(
        model=model,
        settings=trainer.settings,
        device=str(where),
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in parameters),
        users=len(loader.users),
        unit=loader.unit,
        left_out=loader.left_out,
        batches=loader.steps_per_epoch,
        views=len(first.views),
        rows=statistics.mean(rows),
        memory=Memory(
            weights=weights,
            gradients=_bytes(parameters),
            optimizer=moments,
            activations=activations,
            scores=ranked_together * (dataset.num_items + 1) * 4,
            measured=measured,
        ),
        seconds_per_batch=statistics.median(seconds),
        validated_users=validated,
        validation_seconds=validation_seconds,
        epochs=config.epochs,
        fewest_epochs=min(config.epochs, config.patience + 1),
        # The best weights; and the last ones with their moments.
        run_bytes=2 * weights + moments,
    )


def _batches(loader: TrainingLoader) -> Iterator[Batch]:
    """Yields batches without end: those of the first epoch, those of the second..."""
    for epoch in count():
        yield from loader.epoch(epoch)


def _activations(trainer: Trainer, batch: Batch) -> int:
    """Learns from a batch and returns the bytes that were kept for its backward pass."""
    owned = {tensor.untyped_storage().data_ptr() for tensor in trainer.module.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.step(batch)
    return sum(kept.values())


def _validation(trainer: Trainer) -> tuple[int, float]:
    """Returns the number of users to validate, and the seconds for them by a sample of them."""
    users, _ = trainer.dataset.held_out("valid")
    chosen = np.random.default_rng(0).permutation(users)[:RANKED_USERS]
    sample = copy.copy(trainer.dataset)
    # The others hold nothing out.
    sample.splits = np.repeat(np.diff(sample.offsets)[:, None], 2, axis=1)
    sample.splits[chosen] = trainer.dataset.splits[chosen]
    seconds = evaluate(trainer.trained, sample, split="valid").seconds
    return len(users), seconds * len(users) / len(chosen)


def _wait_for(device: torch.device) -> None:
    """Waits until the device has done all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
