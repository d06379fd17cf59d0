"""The loss of a batch, one target after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import Batch, View
from blin.losses import Candidates
from blin.models.objective import AgreementConfig, ObjectiveConfig
from reference import losses

Place = tuple[int, int]


def targets_of(view: View) -> list[Place]:
    """All places of a view that have a target, row by row."""
    return [(int(b), int(n)) for b, n in torch.nonzero(view.targets)]


def user_of(view: View, batch: Batch, place: Place) -> int:
    """Which user of the batch a target belongs to."""
    return int(batch.step_users[view.steps[place]])


def weights(batch: Batch, average: str) -> list[list[float]]:
    """The weight of every target of every view."""
    found = []
    for view in batch.views:
        places = targets_of(view)
        plain = [1.0 if view.weights is None else float(view.weights[place]) for place in places]
        steps = [int(view.steps[place]) for place in places]
        if average == "copy":
            times = Counter(steps)
            plain = [1.0 / times[step] for step in steps]
        if average == "user":
            users = [user_of(view, batch, place) for place in places]
            share = dict.fromkeys(users, 0.0)
            for w, user in zip(plain, users, strict=True):
                share[user] += w
            plain = [w / share[user] for w, user in zip(plain, users, strict=True)]
        found.append(plain)
    total = sum(sum(plain) for plain in found)
    return [[w / total for w in plain] for plain in found]


def candidates_of(view: View, batch: Batch, config: ObjectiveConfig, place: Place) -> Candidates:
    """What one target competes with."""
    if config.num_negatives == 0:
        return Candidates()
    step = int(view.steps[place])
    if config.negatives_per == "position":
        log_q = batch.log_q[step] if config.log_q else None
        return Candidates(batch.negatives[step], log_q)
    if config.negatives_per == "copy":
        copy = int(view.copies[place]) - 1
        log_q = batch.log_q[copy][step] if config.log_q else None
        return Candidates(batch.negatives[copy][step], log_q)
    excluded = None
    if config.exclude_history:
        assert batch.excluded is not None
        excluded = batch.excluded[user_of(view, batch, place)].unsqueeze(0)
    return Candidates(batch.negatives, batch.log_q if config.log_q else None, excluded)


def next_item_loss(
    states: Sequence[Tensor], table: Tensor, batch: Batch, config: ObjectiveConfig
) -> tuple[Tensor, Tensor]:
    """The sequence loss and the divergence, the latter before it is weighted."""
    one = torch.ones(1, 1, dtype=table.dtype)
    sequence = torch.zeros((), dtype=table.dtype)
    shares = weights(batch, config.loss_average)
    for view, state, share in zip(batch.views, states, shares, strict=True):
        for place, weight in zip(targets_of(view), share, strict=True):
            here = state[place].reshape(1, 1, -1)
            target = view.targets[place].reshape(1)
            candidates = candidates_of(view, batch, config, place)
            if config.loss == "softmax":
                loss = losses.softmax_loss(here, table, target, candidates, one)
            else:
                calibration = config.calibration if config.loss == "gbce" else 0.0
                loss = losses.binary_loss(here, table, target, candidates, one, calibration)
            sequence = sequence + weight * loss
    divergence = torch.zeros((), dtype=table.dtype)
    if not isinstance(config, AgreementConfig) or config.kl_weight == 0:
        return sequence, divergence
    first, second = batch.views
    there = {(int(second.steps[p]), int(second.copies[p])): p for p in targets_of(second)}
    final = {int(user): step for step, user in enumerate(batch.step_users)}
    terms = []
    for place in targets_of(first):
        other = there.get((int(first.steps[place]), int(first.copies[place])))
        if other is None:
            continue
        if config.kl_positions == "last_copy" and first.copies[place] != 1:
            continue
        if config.kl_positions == "last":
            is_final = final[user_of(first, batch, place)] == first.steps[place]
            if first.copies[place] != 1 or not is_final:
                continue
        both = torch.stack([states[0][place], states[1][other]]).unsqueeze(1)
        target = first.targets[place].reshape(1)
        candidates = candidates_of(first, batch, config, place)
        terms.append(losses.divergence(both, table, target, candidates, one[0]))
    return sequence, torch.stack(terms).mean() if terms else divergence
