"""The losses as their formulas read, for autograd to differentiate."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_probabilities(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    negatives: Tensor | None,
    *,
    log_q: bool = False,
) -> list[list[Tensor]]:
    """One vector of log-probabilities a row and view, the target's entry first."""
    views = []
    for view in states:
        rows = []
        for state, target in zip(view, targets.tolist(), strict=True):
            if negatives is None:
                others = [item for item in range(1, table.shape[0]) if item != target]
                shift = 0.0
            else:
                others = [item for item in negatives.tolist() if item != target]
                shift = math.log((table.shape[0] - 2) / negatives.numel()) if log_q else 0.0
            scores = [table[target] @ state] + [table[item] @ state + shift for item in others]
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
    log_q: bool = False,
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
