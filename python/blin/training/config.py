"""The settings of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blin.errors import ConfigError

_CHOICES = {
    "schedule": ("constant", "linear", "cosine"),
    "precision": ("fp32", "bf16", "fp16"),
    "padding": ("zero", "repeat", "random-repeat"),
    "fit": ("whole", "truncate"),
    "copies": ("reset", "attend", "weight"),
    "long_sequences": ("newest", "windows"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        epochs: the most epochs to train for.
        patience: stop after this many epochs without a better validation.
        batch_size: users in a step.
        learning_rate: of Adam.
        weight_decay: of Adam, added to the gradient.
        warmup_epochs: over which the learning rate rises from 0, in a straight line.
        schedule: of the learning rate after that: ``constant``, or down to 0 at the last of
            ``epochs``, in a straight line (``linear``) or along half a ``cosine``.
        max_grad_norm: longer gradients are scaled down to this length; 0 for no limit.
        precision: of the matrix products: ``fp32``, or ``bf16`` or ``fp16`` by autocast.
        seed: of the weights, the dropout, the order of the users and all draws.
        padding: copies of a sequence in its row: zero (one), repeat (all that fit) or
            random-repeat (a number drawn for each user, epoch and view).
        fit: ``whole`` copies only, or ``truncate`` the oldest one.
        copies: ``reset`` keeps copies from seeing each other, ``attend`` does not; ``weight``
            makes no copies but lets each target weigh as many.
        pack: let short sequences share a row.
        crop: learn from a random stretch of each sequence, drawn for each user, epoch and view,
            of at least this share of it; 0 for the whole sequence.
        long_sequences: learn from the ``newest`` part of a sequence that does not fit into a row,
            or from all of it, in ``windows`` that stand in rows of their own.
        cold_share: the probability with which a sequence is cut, in a step, into pieces as short
            as the histories of new users, each of which is learned from as a history of its own.
        cold_items: the most inputs in such a piece.
    """

    epochs: int = 200
    patience: int = 10
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    schedule: str = "constant"
    max_grad_norm: float = 0.0
    precision: str = "fp32"
    seed: int = 0
    padding: str = "zero"
    fit: str = "whole"
    copies: str = "reset"
    pack: bool = True
    crop: float = 0.0
    long_sequences: str = "newest"
    cold_share: float = 0.0
    cold_items: int = 5

    def __post_init__(self) -> None:
        """Refuses values that cannot be trained with."""
        for name in ("epochs", "patience", "batch_size", "cold_items"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate: expected above 0, found {self.learning_rate}")
        for name in ("weight_decay", "warmup_epochs", "max_grad_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, found {getattr(self, name)}")
        for name in ("crop", "cold_share"):
            if not 0 <= getattr(self, name) <= 1:
                found = getattr(self, name)
                raise ConfigError(f"{name}: expected a number in [0, 1], found {found}")
        if self.cold_share > 0 and self.copies == "attend" and self.padding != "zero":
            raise ConfigError(
                "cold_share: expected 0 where copies see each other (copies = attend), found "
                f"{self.cold_share}"
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected 0 or more, below 2^63, found {self.seed}")

    def learning_rate_at(self, epoch: float) -> float:
        """Returns the learning rate of the step whose middle comes after so many epochs."""
        rate = self.learning_rate
        if epoch < self.warmup_epochs:
            return rate * epoch / self.warmup_epochs
        if self.schedule == "constant":
            return rate
        left = (self.epochs - epoch) / max(1e-9, self.epochs - self.warmup_epochs)
        return rate * (left if self.schedule == "linear" else math.sin(0.5 * math.pi * left) ** 2)
