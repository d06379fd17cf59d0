"""The losses as their formulas read, for autograd to differentiate."""

from __future__ import annotations

import torch
from torch import Tensor

from blin.losses import Candidates


def scores(
    states: Tensor, table: Tensor, targets: Tensor, candidates: Candidates
) -> list[list[Tensor]]:
    """One vector of scores a view and target, the target's entry first."""
    views = []
    for view in states:
        rows = []
        for t, (state, target) in enumerate(zip(view, targets.tolist(), strict=True)):
            row = [table[target] @ state]
            if candidates.negatives is None:
                others = list(range(1, table.shape[0]))
            elif candidates.negatives.ndim == 2:
                others = candidates.negatives[t].tolist()
            else:
                others = candidates.negatives.tolist()
            for k, item in enumerate(others):
                if item == target:
                    continue
                if candidates.excluded is not None and candidates.excluded[t, k]:
                    continue
                score = table[item] @ state
                if candidates.log_q is not None:
                    q = candidates.log_q
                    score = score - (q[t, k] if q.ndim == 2 else q[k])
                row.append(score)
            rows.append(torch.stack(row))
        views.append(rows)
    return views


def softmax_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    candidates: Candidates,
    weights: Tensor,
) -> Tensor:
    """Weighted sum of -log p(target)."""
    total = torch.zeros((), dtype=states.dtype)
    for v, rows in enumerate(scores(states, table, targets, candidates)):
        for t, row in enumerate(rows):
            total = total - weights[v, t] * torch.log_softmax(row, dim=0)[0]
    return total


def binary_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    candidates: Candidates,
    weights: Tensor,
    calibration: float,
) -> Tensor:
    """Weighted sum of -[β log σ(s⁺ - log K) + Σ log(1 - σ(s⁻ - log K))] / (K + 1)."""
    assert candidates.negatives is not None
    drawn = candidates.negatives.shape[-1]
    alpha = min(1.0, drawn / (table.shape[0] - 2))
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    total = torch.zeros((), dtype=states.dtype)
    for v, rows in enumerate(scores(states, table, targets, candidates)):
        for t, row in enumerate(rows):
            row = row - torch.tensor(float(drawn)).log()
            right = beta * torch.log(torch.sigmoid(row[0]))
            wrong = torch.log(1 - torch.sigmoid(row[1:])).sum()
            total = total - weights[v, t] * (right + wrong) / (drawn + 1)
    return total


def divergence(
    states: Tensor, table: Tensor, targets: Tensor, candidates: Candidates, weights: Tensor
) -> Tensor:
    """Weighted sum of ½ (KL(p₁‖p₂) + KL(p₂‖p₁))."""
    total = torch.zeros((), dtype=states.dtype)
    first, second = scores(states, table, targets, candidates)
    for weight, one, two in zip(weights, first, second, strict=True):
        p, q = torch.softmax(one, dim=0), torch.softmax(two, dim=0)
        total = total + weight * 0.5 * (p * (p / q).log()).sum()
        total = total + weight * 0.5 * (q * (q / p).log()).sum()
    return total
