"""What models learn from: the states of a batch's views become one loss.

Every model that scores the next item by a dot product shares this: which targets count how much,
what they compete with, and which positions of two views must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec, Losses, View
from blin.config import check_at_least, check_one_of
from blin.errors import ConfigError
from blin.losses import Candidates, SequenceLoss, binary_loss, softmax_loss

LOSSES = ("softmax", "bce", "gbce")
SAMPLINGS = ("uniform", "popularity")
SCOPES = ("batch", "position", "copy")
KL_POSITIONS = ("last_copy", "aligned", "last")
AVERAGES = ("token", "copy", "user")

HITS_AT = 10
HITS_TARGETS = 128
"""Targets of a copy whose rank is taken in a step: an epoch has enough of them."""

HITS_SCORES = 1 << 21
"""Scores that may be held for it."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss of a model.

    Attributes:
        loss: ``softmax`` cross-entropy, binary cross-entropy ``bce``, or the calibrated ``gbce``.
        num_negatives: K, the negatives a target competes with; 0 for the whole catalogue.
        negatives_per: whether a ``batch`` shares its negatives, each ``position`` of a sequence has
            its own, which its copies share, or each position of every ``copy``.
        sampling: how the negatives are drawn: ``uniform``, or in proportion to ``popularity``.
        log_q: correct the negatives' scores for the sampling.
        exclude_history: no item of a user's training sequence is a negative of that user; of no
            effect against the whole catalogue.
        calibration: t of ``gbce``: 0 is ``bce``, 1 gives scores that are probabilities.
        loss_average: what weighs alike in the sequence loss: every ``token`` of every copy, every
            step whatever its number of copies (``copy``), or every ``user``.
    """

    loss: str = "softmax"
    num_negatives: int = 1024
    negatives_per: str = "batch"
    sampling: str = "uniform"
    log_q: bool = False
    exclude_history: bool = False
    calibration: float = 0.75
    loss_average: str = "token"

    @property
    def views(self) -> int:
        """How many views of each user the loss asks for."""
        return 1

    def __post_init__(self) -> None:
        """Refuses values that make no loss."""
        check_one_of(
            self,
            loss=LOSSES,
            negatives_per=SCOPES,
            sampling=SAMPLINGS,
            loss_average=AVERAGES,
        )
        check_at_least(self, 0, "num_negatives")
        if self.log_q and self.loss != "softmax":
            raise ConfigError(
                f"log_q: expected false with loss = {self.loss}, found true: it makes the sum of "
                "a softmax that of the whole catalogue"
            )
        if not 0 <= self.calibration <= 1:
            raise ConfigError(f"calibration: expected a number in [0, 1], found {self.calibration}")
        if self.num_negatives == 0:
            if self.loss != "softmax":
                raise ConfigError(f"num_negatives: {self.loss} needs at least 1, found 0")
            if self.negatives_per != "batch":
                raise ConfigError(
                    f"num_negatives: negatives_per = {self.negatives_per} needs at least 1"
                )


def batch_spec_of(config: ObjectiveConfig, max_len: int) -> BatchSpec:
    """Returns what a loss needs of its batches, with a target at every position."""
    return BatchSpec(
        max_len=max_len,
        positions="absolute",
        views=config.views,
        num_negatives=config.num_negatives,
        sampling=config.sampling,
        negatives_per=config.negatives_per,
        exclude_history=config.exclude_history,
    )


@dataclass(frozen=True)
class AgreementConfig(ObjectiveConfig):
    """The loss of a model that learns from two views whose predictions must agree.

    Attributes:
        kl_weight: λ (Blin, Eq. 19), the weight of the bidirectional KL divergence of two views.
        kl_positions: where they must agree: ``last_copy`` at every step of the newest copy,
            ``aligned`` at every step of every copy both views hold, or ``last`` at the newest step.
    """

    kl_weight: float = 2.0
    kl_positions: str = "last_copy"

    def __post_init__(self) -> None:
        """Refuses values that make no loss."""
        super().__post_init__()
        check_at_least(self, 0, "kl_weight")
        check_one_of(self, kl_positions=KL_POSITIONS)

    @property
    def views(self) -> int:
        """Two views when they are to agree, one otherwise."""
        return 2 if self.kl_weight > 0 else 1


def next_item_loss(
    states: Sequence[Tensor], table: Tensor, batch: Batch, config: ObjectiveConfig
) -> Losses:
    """Returns the loss of a batch: the weighted mean over its targets, and λ times the KL.

    Args:
        states: one (B, N, D) for each view; that of position i has seen items ≤ i only.
        table: (V + 1, D), the item embeddings that the states are scored with.
        batch: the views, and what their targets compete with.
        config: the loss.

    Returns:
        The total and its parts: ``sequence``, with two views ``kl`` before it is weighted, and
        where sequences are repeated ``HR@10 copy c``, the share of the targets of copy c (1 is the
        newest, and may see the others) that are among the ten best of the catalogue, measured on
        some: a newest copy far ahead of the oldest looks its answers up there.
    """
    views = [_Targets.of(view, state) for view, state in zip(batch.views, states, strict=True)]
    weights = _weights(batch, views, config.loss_average)
    agreement = config if isinstance(config, AgreementConfig) else None
    if len(views) == 1 or agreement is None or agreement.kl_weight == 0:
        alone = [torch.ones_like(view.steps, dtype=torch.bool) for view in views]
        pairs: list[Tensor] = []
    else:
        pairs = list(_pairs(views[0], views[1]))
        alone = [_others(view, pair) for view, pair in zip(views, pairs, strict=True)]
    total = table.new_zeros((), dtype=torch.float32)
    sequence, divergence = total, total
    if pairs and agreement is not None:
        first, second = (view.at(pair) for view, pair in zip(views, pairs, strict=True))
        chosen = _agreeing(first, batch, agreement.kl_positions)
        loss = _targets_loss(
            torch.stack([first.states, second.states]),
            table,
            first,
            batch,
            config,
            torch.stack([weight[pair] for weight, pair in zip(weights, pairs, strict=True)]),
            chosen * (agreement.kl_weight / chosen.sum().clamp(min=1)),
        )
        total = total + loss.total
        sequence = sequence + loss.sequence
        divergence = divergence + loss.divergence / agreement.kl_weight
    if not pairs or any(mask.any() for mask in alone):
        rest = _join([view.at(mask) for view, mask in zip(views, alone, strict=True)])
        weight = torch.cat([weight[mask] for weight, mask in zip(weights, alone, strict=True)])
        loss = _targets_loss(
            rest.states.unsqueeze(0), table, rest, batch, config, weight.unsqueeze(0), None
        )
        total = total + loss.total
        sequence = sequence + loss.sequence
    parts = {"sequence": sequence}
    if pairs:
        parts["kl"] = divergence
    return Losses(total, parts | _hits_by_copy(_join(views), table))


@dataclass(frozen=True)
class _Targets:
    """The positions of a view that have a target, read row by row, (R,) each."""

    states: Tensor  # (R, D)
    items: Tensor
    steps: Tensor
    copies: Tensor

    @classmethod
    def of(cls, view: View, states: Tensor) -> _Targets:
        here = view.targets > 0
        return cls(states[here], view.targets[here], view.steps[here], view.copies[here])

    def at(self, places: Tensor) -> _Targets:
        """Returns some of the targets, by index or by mask."""
        return _Targets(
            self.states[places],
            self.items[places],
            self.steps[places],
            self.copies[places],
        )


def _join(views: Sequence[_Targets]) -> _Targets:
    if len(views) == 1:
        return views[0]
    return _Targets(
        torch.cat([view.states for view in views]),
        torch.cat([view.items for view in views]),
        torch.cat([view.steps for view in views]),
        torch.cat([view.copies for view in views]),
    )


def _targets_loss(
    states: Tensor,
    table: Tensor,
    targets: _Targets,
    batch: Batch,
    config: ObjectiveConfig,
    weights: Tensor,
    kl_weights: Tensor | None,
) -> SequenceLoss:
    candidates = _candidates(targets, batch, config)
    if config.loss == "softmax":
        return softmax_loss(
            states,
            table,
            targets.items,
            candidates=candidates,
            weights=weights,
            kl_weights=kl_weights,
        )
    return binary_loss(
        states,
        table,
        targets.items,
        candidates=candidates,
        calibration=config.calibration if config.loss == "gbce" else 0.0,
        weights=weights,
        kl_weights=kl_weights,
    )


def _candidates(targets: _Targets, batch: Batch, config: ObjectiveConfig) -> Candidates:
    """Returns what the targets compete with."""
    if config.num_negatives == 0:
        return Candidates()
    log_q = batch.log_q if config.log_q else None
    if config.negatives_per != "batch":
        own: tuple[Tensor, ...] = (targets.steps,)
        if config.negatives_per == "copy":
            own = (targets.copies.long() - 1, targets.steps)
        return Candidates(batch.negatives[own], None if log_q is None else log_q[own])
    excluded = None if batch.excluded is None else batch.excluded[batch.step_users[targets.steps]]
    return Candidates(batch.negatives, log_q, excluded)


def _weights(batch: Batch, targets: Sequence[_Targets], average: str) -> list[Tensor]:
    """Returns the weight of every target, (R,) a view; together they sum to 1."""
    weights = []
    for view, own in zip(batch.views, targets, strict=True):
        dtype = torch.promote_types(own.states.dtype, torch.float32)
        weight = own.states.new_ones(len(own.steps), dtype=dtype)
        if average == "copy":
            weight = weight / torch.bincount(own.steps)[own.steps]
        elif view.weights is not None:
            weight = view.weights[view.targets > 0].to(dtype)
        if average == "user":
            users = batch.step_users[own.steps]
            share = weight.new_zeros(len(batch.users)).index_add_(0, users, weight)
            weight = weight / share[users]
        weights.append(weight)
    total = torch.stack([weight.sum() for weight in weights]).sum().clamp(min=1e-30)
    return [weight / total for weight in weights]


def _pairs(first: _Targets, second: _Targets) -> tuple[Tensor, Tensor]:
    """Returns the places, in either view, of the (step, copy) pairs that both hold."""
    steps = max(_size(first.steps), _size(second.steps))
    keys = [(view.copies.long() - 1) * steps + view.steps for view in (first, second)]
    size = max(_size(keys[0]), _size(keys[1]))
    places = []
    for key in keys:
        place = torch.full((size,), -1, dtype=torch.int64, device=key.device)
        place[key] = torch.arange(len(key), device=key.device)
        places.append(place)
    both = (places[0] >= 0) & (places[1] >= 0)
    return places[0][both], places[1][both]


def _size(indices: Tensor) -> int:
    """Returns how many places the indices need."""
    return int(indices.max()) + 1 if len(indices) else 0


def _others(view: _Targets, places: Tensor) -> Tensor:
    mask = torch.ones(len(view.steps), dtype=torch.bool, device=places.device)
    mask[places] = False
    return mask


def _agreeing(pairs: _Targets, batch: Batch, positions: str) -> Tensor:
    """Returns 1 for the pairs whose predictions must agree, 0 for the others."""
    if positions == "aligned":
        chosen = torch.ones_like(pairs.steps, dtype=torch.bool)
    elif positions == "last_copy":
        chosen = pairs.copies == 1
    else:
        users = batch.step_users
        ends = torch.ones_like(users, dtype=torch.bool)
        ends[:-1] = users[1:] != users[:-1]
        chosen = ends[pairs.steps] & (pairs.copies == 1)
    return chosen.to(torch.promote_types(pairs.states.dtype, torch.float32))


@torch.no_grad()
def _hits_by_copy(targets: _Targets, table: Tensor) -> dict[str, Tensor]:
    """Returns the share of hits of each copy, nothing where no sequence is repeated."""
    if len(targets.copies) == 0 or int(targets.copies.max()) == 1:
        return {}
    most = max(1, min(HITS_TARGETS, HITS_SCORES // table.shape[0]))
    hits = {}
    for copy in (1, 2, 3):
        some = targets.at(torch.nonzero(targets.copies == copy)[:most, 0])
        if len(some.steps) == 0:
            continue
        with torch.autocast(table.device.type, enabled=False):  # it would round what is compared
            scores = some.states.float() @ table.float().t()
        own = scores.gather(1, some.items.unsqueeze(-1))
        above = (scores[:, 1:] > own).sum(-1)
        hits[f"HR@{HITS_AT} copy {copy}"] = (above < HITS_AT).float().mean()
    return hits
