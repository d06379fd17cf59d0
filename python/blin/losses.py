"""The losses: functions from states and scores to scalars, computed in at least fp32."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 18
"""Scores held at a time: small enough to stay in a core's cache between the passes over them."""

MASKED = -1e9
"""The score of a candidate that does not count: no probability, and no NaN in a difference."""


class SoftmaxLoss(NamedTuple):
    """What :func:`softmax_loss` returns: sums over the rows, not means."""

    total: Tensor
    cross_entropy: Tensor
    divergence: Tensor


def softmax_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    negatives: Tensor | None = None,
    log_q: Tensor | None = None,
    cross_entropy_weight: float = 1.0,
    kl_weight: float = 0.0,
) -> SoftmaxLoss:
    """Sums the cross-entropy of each view and the bidirectional KL divergence of two.

    For target t and views v (Blin, Eq. 15, 18, 19):

        CE = - Σ_v Σ_t log p_v(target_t)
        KL = ½ Σ_t [ KL(p_1t ‖ p_2t) + KL(p_2t ‖ p_1t) ]
           = ½ Σ_t Σ_c (p_1tc - p_2tc) log(p_1tc / p_2tc)

    where p_v is the softmax of the dot products with the whole catalogue, or with the target and
    K negatives that all rows and both views share. A negative that is the target does not count.

    The scores are never held all at once: value and gradient are worked out together, a few rows
    at a time, so that memory is O(T·D) and not O(T·K).

    Args:
        states: (S, T, D), one view (S = 1) or two (S = 2) of the same T targets.
        table: (V + 1, D), the item embeddings; row 0 is padding and never a candidate.
        targets: (T,), the right items.
        negatives: (K,), drawn from 1…V; None for the whole catalogue.
        log_q: (K,), the logarithm of how often each negative is expected among K draws; it is
            taken off the scores, so that the denominator estimates that of the whole catalogue.
        cross_entropy_weight: weight of CE in the total.
        kl_weight: weight of KL in the total; must be 0 with one view.

    Returns:
        The total, which carries the gradient, and CE and KL, which do not. All are 0 for T = 0.
    """
    if states.shape[0] not in (1, 2) or (states.shape[0] == 1 and kl_weight != 0):
        raise ValueError(
            f"expected two views, or one and kl_weight 0, got {states.shape[0]} and {kl_weight}"
        )
    with torch.autocast(device_type=states.device.type, enabled=False):
        total, cross_entropy, divergence = _SoftmaxLoss.apply(
            states, table, targets, negatives, log_q, cross_entropy_weight, kl_weight
        )
    return SoftmaxLoss(total, cross_entropy, divergence)


class _SoftmaxLoss(torch.autograd.Function):
    """Value and gradient in one pass over chunks of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        negatives: Tensor | None,
        log_q: Tensor | None,
        weight: float,
        kl_weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(states.dtype, torch.float32)
        views, rows = states.shape[:2]
        source = states.detach().to(dtype)
        weights = table.detach().to(dtype)
        candidates = weights[1:] if negatives is None else weights[negatives]  # (K, D)
        positives = weights[targets]  # (T, D)
        state_grad = torch.empty_like(source)
        candidate_grad = torch.zeros_like(candidates)
        positive_grad = torch.zeros_like(positives)
        sums = torch.zeros(2, dtype=torch.float64, device=states.device)
        size = max(1, CHUNK_ELEMENTS // max(1, candidates.shape[0]))
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            label = targets[part]
            scores = [source[view, part] @ candidates.t() for view in range(views)]
            own = None
            if negatives is not None:
                own = [(source[view, part] * positives[part]).sum(-1) for view in range(views)]
                hit = label.unsqueeze(-1) == negatives
                for score in scores:
                    if log_q is not None:
                        score -= log_q
                    score.masked_fill_(hit, MASKED)
            grads, own_grads = _chunk(scores, own, label - 1, weight, kl_weight, sums)
            for view in range(views):
                state = source[view, part]
                torch.mm(grads[view], candidates, out=state_grad[view, part])
                candidate_grad.addmm_(grads[view].t(), state)
                if own_grads is not None:
                    along = own_grads[view].unsqueeze(-1)
                    state_grad[view, part] += along * positives[part]
                    positive_grad[part] += along * state
        table_grad = torch.zeros_like(weights)
        if negatives is None:
            table_grad[1:] = candidate_grad
        else:
            table_grad.index_add_(0, negatives, candidate_grad)
            table_grad.index_add_(0, targets, positive_grad)
        ctx.save_for_backward(state_grad.to(states.dtype), table_grad.to(table.dtype))
        cross_entropy, divergence = sums.to(dtype).unbind()
        total = weight * cross_entropy + kl_weight * divergence
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return total, cross_entropy, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        state_grad, table_grad = ctx.saved_tensors
        return state_grad * grads[0], table_grad * grads[0], None, None, None, None, None


def _chunk(
    scores: list[Tensor],
    own: list[Tensor] | None,
    label: Tensor,
    weight: float,
    kl_weight: float,
    sums: Tensor,
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Turns scores into their gradients and adds the two losses to ``sums``.

    ``own`` holds the targets' scores where they are no column of ``scores``; otherwise ``label``
    names their columns. The gradients come back in the same form.
    """
    row = torch.arange(label.shape[0], device=label.device)
    for view, score in enumerate(scores):
        log_sum = torch.logsumexp(score, dim=-1)
        if own is not None:
            log_sum = torch.logaddexp(log_sum, own[view])
            own[view] = own[view] - log_sum
        score -= log_sum.unsqueeze(-1)  # log-probabilities from here on
        sums[0] -= (score[row, label] if own is None else own[view]).sum()
    probabilities = [score.exp() for score in scores]
    own_probabilities = None if own is None else [log.exp() for log in own]
    if len(scores) == 1:
        grads = [probabilities[0].mul_(weight)]
        own_grads = None
        if own_probabilities is not None:
            own_grads = [(own_probabilities[0] - 1) * weight]
    else:
        gap = scores[0] - scores[1]  # log(p_1 / p_2)
        drift = [(p * gap).sum(-1) for p in probabilities]
        if own is not None and own_probabilities is not None:
            own_gap = own[0] - own[1]
            drift = [d + p * own_gap for d, p in zip(drift, own_probabilities, strict=True)]
        sums[1] += 0.5 * (drift[0] - drift[1]).sum()
        half = 0.5 * kl_weight
        pull = [weight + half - half * drift[0], weight + half + half * drift[1]]
        first, second = probabilities
        bend = gap.mul_(half)
        grads = [
            (pull[0].unsqueeze(-1) + bend).mul_(first).sub_(second, alpha=half),
            (pull[1].unsqueeze(-1) - bend).mul_(second).sub_(first, alpha=half),
        ]
        own_grads = None
        if own_probabilities is not None:
            p, q = own_probabilities
            own_grads = [
                p * (pull[0] + half * own_gap) - half * q - weight,
                q * (pull[1] - half * own_gap) - half * p - weight,
            ]
    if own_grads is None:
        for grad in grads:
            grad[row, label] -= weight
    return grads, own_grads
