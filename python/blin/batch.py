"""What crosses the border between data and models.

Shapes: B rows, N positions, U users, T steps, K negatives. 0 always means "nothing here". A *step*
is a user and a point in time at which there is something to predict; the steps of a batch are
numbered 0…T - 1, user by user and by time within a user.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, device

from blin.errors import ConfigError

_OPERATORS = ("crop", "mask", "reorder")
_CHOICES = {
    "positions": ("absolute", "per-copy"),
    "sampling": ("uniform", "popularity"),
    "negatives_per": ("batch", "position", "copy"),
    "loss_positions": ("all", "last"),
}


@dataclass(frozen=True)
class Augmentation:
    """Something to do to a sequence of L inputs before it is compared with itself.

    After CL4SRec (Xie et al., ICDE 2022, section 3.2). ``ratio * L``, rounded down but at least 1,
    inputs are meant; a sequence of one input stays as it is.

    Attributes:
        operator: ``crop`` keeps a stretch and drops the rest, ``mask`` puts the mask token, V + 1,
            in the place of some inputs, ``reorder`` puts a stretch into a random order.
        ratio: the share of the inputs, in (0, 1].
    """

    operator: str
    ratio: float

    def __post_init__(self) -> None:
        """Refuses what cannot be done."""
        if self.operator not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            raise ConfigError(f"augmentation: expected one of {known}, found {self.operator!r}")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"{self.operator}: expected a ratio in (0, 1], found {self.ratio}")


@dataclass(frozen=True)
class BatchSpec:
    """What a model wants its batches to be.

    Attributes:
        max_len: positions in a row, N.
        positions: what ``View.positions`` count: ``absolute`` or ``per-copy``.
        views: how many views of each user to learn from.
        num_negatives: how many negatives to draw, K.
        sampling: how they are drawn: ``uniform``, or in proportion to ``popularity``.
        negatives_per: who shares them: the whole ``batch``, or the copies of a step, which is then
            given K of its own (``position``), or nobody: each ``copy`` of a step has K of its own.
        exclude_history: leave the items of a user's training sequence out of its negatives, or, of
            a sequence that is learned from in parts, those of the part.
        augmentations: the operators for ``Batch.augmented``; none for no augmented views.
        loss_positions: what is learned from: ``all`` steps of a sequence, or the ``last`` step of
            each of its prefixes, which stand in the rows as if they were users.
        times: fill ``View.times``; there are none of augmented inputs.
        places: fill ``Batch.step_places``.
    """

    max_len: int
    positions: str
    views: int
    num_negatives: int
    sampling: str = "uniform"
    negatives_per: str = "batch"
    exclude_history: bool = False
    augmentations: tuple[Augmentation, ...] = ()
    loss_positions: str = "all"
    times: bool = False
    places: bool = False

    def __post_init__(self) -> None:
        """Refuses what no batch can be."""
        if self.times and self.augmentations:
            raise ConfigError("augmentations: expected none with times, found some")
        for name, known in _CHOICES.items():
            found = getattr(self, name)
            if found not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {found!r}")


@dataclass(frozen=True)
class View:
    """One padded copy of a batch.

    Attributes:
        items: (B, N) int64, the input at each position, 0 for padding and delimiters.
        targets: (B, N) int64, the item to predict at each position, 0 where there is none.
        segments: (B, N) int32, equal and above 0 for positions that may see each other.
        positions: (B, N) int32, the index for the position embedding.
        copies: (B, N) int32, 1 on the newest copy of each sequence, 2 on the one before, and so on;
            0 for padding and delimiters.
        steps: (B, N) int64, the number of the step that each position with a target stands for, -1
            elsewhere. All copies of a step, in all views of the batch, have its number. Read row by
            row, the newest copies have the numbers in rising order; all of 0…T - 1, unless
            sequences are cropped: then each view holds some of the steps, and no step is in none.
        weights: (B, N) float32, how much each target counts; None when all count 1.
        times: (B, N) int64, the time of each input; where no times are known its place in the
            sequence, 0 at padding. None when the model does not ask for them.
    """

    items: Tensor
    targets: Tensor
    segments: Tensor
    positions: Tensor
    copies: Tensor
    steps: Tensor
    weights: Tensor | None = None
    times: Tensor | None = None

    @property
    def newest(self) -> Tensor:
        """(B, N) booleans, true on the newest copy of each sequence."""
        return self.copies == 1

    def to(self, where: device) -> View:
        """Returns the view on another device."""
        return replace(
            self,
            items=_to(self.items, where),
            targets=_to(self.targets, where),
            segments=_to(self.segments, where),
            positions=_to(self.positions, where),
            copies=_to(self.copies, where),
            steps=_to(self.steps, where),
            weights=_optional_to(self.weights, where),
            times=_optional_to(self.times, where),
        )


def _no_steps() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Batch:
    """The rows of some users, in one view or two.

    Attributes:
        users: (U,), indices of the users in the batch, in the order of their rows.
        views: one view to score, one or more to learn from.
        negatives: (K,), items that the whole batch takes for wrong ones, or (T, K), a row for each
            step and never its target, or (C, T, K), one for each copy of a step, the newest first;
            empty when the loss draws none.
        log_q: shaped as the negatives: the logarithm of how often each is expected among K draws.
        step_users: (T,), for each step the place of its user in ``users``; empty in a batch to
            score.
        excluded: (U, K) booleans, the negatives of the batch that do not count for a user, because
            they are in its training sequence: ``excluded[step_users]`` is (T, K). None when all
            count: the negatives are each step's own, or histories are not excluded. A shared
            negative may be a step's target whatever stands here.
        augmented: two views of augmented inputs, or none. Of each user they hold one segment, in
            the order of ``users``, and no targets.
        step_places: (T,), where in the items of the dataset the newest input of each step stands.
            None when the model does not ask for them.
    """

    users: Tensor
    views: tuple[View, ...]
    negatives: Tensor
    log_q: Tensor
    step_users: Tensor = field(default_factory=_no_steps)
    excluded: Tensor | None = None
    augmented: tuple[View, ...] = ()
    step_places: Tensor | None = None

    def to(self, where: device) -> Batch:
        """Returns the batch on another device."""
        return replace(
            self,
            users=_to(self.users, where),
            views=tuple(view.to(where) for view in self.views),
            negatives=_to(self.negatives, where),
            log_q=_to(self.log_q, where),
            step_users=_to(self.step_users, where),
            excluded=_optional_to(self.excluded, where),
            augmented=tuple(view.to(where) for view in self.augmented),
            step_places=_optional_to(self.step_places, where),
        )


def _to(tensor: Tensor, where: device) -> Tensor:
    # On a CPU a copy that nobody waits for may be read before it is there.
    return tensor.to(where, non_blocking=device(where).type == "cuda")


def _optional_to(tensor: Tensor | None, where: device) -> Tensor | None:
    return None if tensor is None else _to(tensor, where)


@dataclass(frozen=True)
class Interactions:
    """The training sequences of all users, for models that learn by counting.

    Attributes:
        items: (I,) int64, 1…V: the sequences one after the other, the oldest item of each first.
        users: (I,) int64, rising: the user of each.
        times: (I,) int64, the time of each; None when the log has none.
    """

    items: Tensor
    users: Tensor
    times: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """What a model's ``forward`` returns.

    Attributes:
        total: the scalar to minimise.
        parts: named scalars for the log, detached from the graph.
    """

    total: Tensor
    parts: dict[str, Tensor]
