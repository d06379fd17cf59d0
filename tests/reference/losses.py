"""The losses as their formulas read, for autograd to differentiate."""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor | None,
    *,
    log_q: Tensor | None = None,
) -> list[list[Tensor]]:
    """One vector of log-probabilities a row and view, the target's entry first."""
    views = []
    for view in states:
        rows = []
        for state, target in zip(view, targets.tolist(), strict=True):
            others = range(1, table.shape[0]) if negatives is None else negatives.tolist()
            scores = [table[target] @ state]
            for place, item in enumerate(others):
                if item != target:
                    correction = 0 if log_q is None else log_q[place]
                    scores.append(table[item] @ state - correction)
            stacked = torch.stack(scores)
            rows.append(stacked - torch.logsumexp(stacked, dim=0))
        views.append(rows)
    return views


def softmax_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor | None = None,
    *,
    log_q: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of cross-entropy and of ½ (KL(p₁‖p₂) + KL(p₂‖p₁))."""
    views = log_probabilities(states, table, targets, negatives, log_q=log_q)
    cross_entropy = -sum(row[0] for rows in views for row in rows)
    divergence = torch.zeros((), dtype=states.dtype)
    if len(views) == 2:
        for first, second in zip(*views, strict=True):
            p, q = first.exp(), second.exp()
            divergence = divergence + 0.5 * (p * (first - second)).sum()
            divergence = divergence + 0.5 * (q * (second - first)).sum()
    return cross_entropy, divergence
