"""The losses: functions from states and scores to scalars, computed in at least fp32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 18
"""Scores held at a time: small enough to stay in a core's cache between the passes over them."""

GPU_CHUNK_ELEMENTS = 1 << 24
"""The same on a GPU, which has a few large passes cost less than many small ones: 64 MB in fp32."""

SHARING_ROWS = 32
"""Rows of a chunk, at least, where all rows are scored against the same items: that many share one
pass through these items and through their gradient, which are too many to stay in a cache."""

MASKED = -1e9
"""The score of a candidate that does not count: no probability, and no NaN in a difference."""


@dataclass(frozen=True)
class Candidates:
    """What the targets compete with.

    Attributes:
        negatives: (K,) items of 1…V that all targets share, (T, K) for a choice of each target's
            own, or None for the whole catalogue. A negative that is the target does not count.
        log_q: of the shape of ``negatives``, the logarithm of how often each is expected among
            the K draws; it is taken off the scores, so that a softmax's denominator estimates
            that of the whole catalogue.
        excluded: (T, K) booleans, the negatives that do not count for a target; None for none.
    """

    negatives: Tensor | None = None
    log_q: Tensor | None = None
    excluded: Tensor | None = None


class SequenceLoss(NamedTuple):
    """What a loss returns: sums over the targets, each times its weight."""

    total: Tensor
    sequence: Tensor
    divergence: Tensor


def softmax_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    candidates: Candidates = Candidates(),
    weights: Tensor | None = None,
    kl_weights: Tensor | None = None,
) -> SequenceLoss:
    """Sums the cross-entropy of each view and the bidirectional KL divergence of two.

    For target t and views v (Blin, Eq. 15, 18, 19):

        CE = - Σ_v Σ_t w_vt log p_v(target_t)
        KL = ½ Σ_t u_t [ KL(p_1t ‖ p_2t) + KL(p_2t ‖ p_1t) ]
           = ½ Σ_t u_t Σ_c (p_1tc - p_2tc) log(p_1tc / p_2tc)

    where p_v is the softmax of the dot products with the whole catalogue, or with the target and
    the K negatives that both views share.

    The scores are never held all at once: value and gradient are worked out together, a few rows
    at a time, so that memory is O(T·D + K) and not O(T·K).

    Args:
        states: (S, T, D), one view (S = 1) or two (S = 2) of the same T targets.
        table: (V + 1, D), the item embeddings; row 0 is padding and never a candidate.
        targets: (T,), the right items.
        candidates: what the targets compete with.
        weights: (S, T), w; None for ones.
        kl_weights: (T,), u; None for zeros, the only choice with one view.

    Returns:
        The total CE + KL, which carries the gradient, and both parts, which do not. All are 0 for
        T = 0.
    """
    return _loss(states, table, targets, candidates, weights, kl_weights, None)


def binary_loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    candidates: Candidates,
    calibration: float = 0.0,
    weights: Tensor | None = None,
    kl_weights: Tensor | None = None,
) -> SequenceLoss:
    """Sums the binary cross-entropy of each view, calibrated or not, and the KL of two.

        BCE = - Σ_v Σ_t w_vt [ β log σ(s_vt⁺ - c) + Σ_k log(1 - σ(s_vtk⁻ - c)) ] / (K + 1)

    With α = K / (V - 1), the share of the catalogue that is drawn, β is
    α (t (1 - 1/α) + 1/α): 1 for calibration t = 0, the loss of SASRec, and α for t = 1, whose
    scores are probabilities again (gBCE; gSASRec, Petrov and Macdonald 2023, Eq. 12).

    c is log K: nothing for the one negative of SASRec. Without it the K negatives of each target
    would first push all scores down, which a model that embeds and scores items by one table can
    only do by giving all items a common direction, in which what tells them apart is lost.

    Args:
        states: as for :func:`softmax_loss`.
        table: as for :func:`softmax_loss`.
        targets: as for :func:`softmax_loss`.
        candidates: what the targets compete with; there must be negatives.
        calibration: t, in [0, 1].
        weights: as for :func:`softmax_loss`.
        kl_weights: as for :func:`softmax_loss`; the divergence is that of the softmax.

    Returns:
        As :func:`softmax_loss`.
    """
    if candidates.negatives is None:
        raise ValueError("a binary loss needs negatives")
    alpha = min(1.0, candidates.negatives.shape[-1] / max(1, table.shape[0] - 2))
    beta = calibration * (alpha - 1) + 1
    return _loss(states, table, targets, candidates, weights, kl_weights, beta)


def _loss(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    candidates: Candidates,
    weights: Tensor | None,
    kl_weights: Tensor | None,
    beta: float | None,
) -> SequenceLoss:
    if states.shape[0] not in (1, 2) or (states.shape[0] == 1 and kl_weights is not None):
        raise ValueError(
            f"expected two views, or one and no kl_weights, got {states.shape[0]} views"
        )
    dtype = torch.promote_types(states.dtype, torch.float32)
    ones = states.new_ones(states.shape[:2], dtype=dtype)
    weights = ones if weights is None else weights.to(dtype)
    kl_weights = None if kl_weights is None else kl_weights.to(dtype)
    with torch.autocast(device_type=states.device.type, enabled=False):
        total, sequence, divergence = _Loss.apply(
            states, table, targets, candidates, weights, kl_weights, beta
        )
    return SequenceLoss(total, sequence, divergence)


class _Loss(torch.autograd.Function):
    """Value and gradient in one pass over chunks of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        candidates: Candidates,
        weights: Tensor,
        kl_weights: Tensor | None,
        beta: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = weights.dtype
        views, rows, dim = states.shape
        source = states.detach().to(dtype)
        embeddings = table.detach().to(dtype)
        negatives = candidates.negatives
        own_choice = negatives is not None and negatives.ndim == 2
        shared = None  # (K, D), what all rows are scored against
        if negatives is None:
            shared = embeddings[1:]
        elif not own_choice:
            shared = embeddings[negatives]
        positives = embeddings[targets]  # (T, D)
        state_grad = torch.empty_like(source)
        table_grad = torch.zeros_like(embeddings)
        shared_grad = None if shared is None else torch.zeros_like(shared)
        positive_grad = torch.zeros_like(positives)
        sums = torch.zeros(2, dtype=torch.float64, device=states.device)
        width = table.shape[0] - 1 if negatives is None else negatives.shape[-1]
        elements = CHUNK_ELEMENTS if states.device.type == "cpu" else GPU_CHUNK_ELEMENTS
        if own_choice:
            size = max(1, elements // max(1, width * dim))
        else:
            size = max(SHARING_ROWS, elements // max(1, width))
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            label = targets[part]
            drawn = None  # (R, K, D), what each row is scored against
            if own_choice:
                assert negatives is not None
                # Rows are taken, and products of a vector each summed, several times as fast as by
                # an index of two dimensions and by a batch of products of matrices with vectors.
                drawn = embeddings.index_select(0, negatives[part].flatten())
                drawn = drawn.view(-1, width, dim)
                scores = [(drawn * source[v, part].unsqueeze(1)).sum(-1) for v in range(views)]
            else:
                assert shared is not None
                scores = [source[v, part] @ shared.t() for v in range(views)]
            own = None
            if negatives is not None:
                own = [(source[v, part] * positives[part]).sum(-1) for v in range(views)]
                masked = _masked(candidates, label, part)
                for score in scores:
                    if candidates.log_q is not None:
                        score -= candidates.log_q[part] if own_choice else candidates.log_q
                    score.masked_fill_(masked, MASKED)
            chunk_weights = weights[:, part]
            chunk_kl = None if kl_weights is None else kl_weights[part]
            if beta is None:
                grads, own_grads = _softmax(scores, own, label - 1, chunk_weights, chunk_kl, sums)
            else:
                assert own is not None
                grads, own_grads = _binary(scores, own, chunk_weights, chunk_kl, beta, sums)
            for view in range(views):
                state, grad = source[view, part], grads[view]
                if drawn is not None and negatives is not None:
                    column = grad.unsqueeze(-1)
                    torch.sum(column * drawn, dim=1, out=state_grad[view, part])
                    spread = column * state.unsqueeze(1)  # (R, K, D)
                    table_grad.index_add_(0, negatives[part].flatten(), spread.flatten(0, 1))
                elif shared is not None and shared_grad is not None:
                    torch.mm(grad, shared, out=state_grad[view, part])
                    shared_grad.addmm_(grad.t(), state)
                if own_grads is not None:
                    along = own_grads[view].unsqueeze(-1)
                    state_grad[view, part] += along * positives[part]
                    positive_grad[part] += along * state
        if negatives is None:
            table_grad[1:] = shared_grad  # type: ignore[assignment]
        else:
            if shared_grad is not None:
                table_grad.index_add_(0, negatives, shared_grad)
            table_grad.index_add_(0, targets, positive_grad)
        ctx.save_for_backward(state_grad, table_grad)
        ctx.dtypes = states.dtype, table.dtype
        sequence, divergence = sums.to(dtype).unbind()
        total = sequence + divergence
        ctx.mark_non_differentiable(sequence, divergence)
        return total, sequence, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        # What is too small for 16 bits need not be once a scaler has multiplied the loss.
        state_grad, table_grad = (
            (grad * grads[0]).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return state_grad, table_grad, None, None, None, None, None


def _masked(candidates: Candidates, label: Tensor, part: slice) -> Tensor:
    """Returns (R, K), true for the negatives that do not count for a chunk of targets."""
    negatives, excluded = candidates.negatives, candidates.excluded
    assert negatives is not None
    masked = label.unsqueeze(-1) == (negatives[part] if negatives.ndim == 2 else negatives)
    return masked if excluded is None else masked | excluded[part]


def _softmax(
    scores: list[Tensor],
    own: list[Tensor] | None,
    label: Tensor,
    weights: Tensor,
    kl_weights: Tensor | None,
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
        hit = score[row, label] if own is None else own[view]
        sums[0] -= (weights[view] * hit).sum()
    probabilities = [score.exp() for score in scores]
    own_probabilities = None if own is None else [log.exp() for log in own]
    if kl_weights is None:
        grads = [
            p.mul_(weight.unsqueeze(-1)) for p, weight in zip(probabilities, weights, strict=True)
        ]
        own_grads = None
        if own_probabilities is not None:
            own_grads = [
                (p - 1) * weight for p, weight in zip(own_probabilities, weights, strict=True)
            ]
    else:
        gap = scores[0] - scores[1]  # log(p_1 / p_2)
        drift = [(p * gap).sum(-1) for p in probabilities]
        if own is not None and own_probabilities is not None:
            own_gap = own[0] - own[1]
            drift = [d + p * own_gap for d, p in zip(drift, own_probabilities, strict=True)]
        half = 0.5 * kl_weights
        sums[1] += (half * (drift[0] - drift[1])).sum()
        pull = [weights[0] + half - half * drift[0], weights[1] + half + half * drift[1]]
        first, second = probabilities
        column = half.unsqueeze(-1)
        bend = gap.mul_(column)
        # The scores are not needed any more: their memory is.
        rise = [
            torch.add(pull[0].unsqueeze(-1), bend, out=scores[0]),
            torch.sub(pull[1].unsqueeze(-1), bend, out=scores[1]),
        ]
        grads = [
            rise[0].mul_(first).addcmul_(second, column, value=-1),
            rise[1].mul_(second).addcmul_(first, column, value=-1),
        ]
        own_grads = None
        if own_probabilities is not None:
            p, q = own_probabilities
            own_grads = [
                p * (pull[0] + half * own_gap) - half * q - weights[0],
                q * (pull[1] - half * own_gap) - half * p - weights[1],
            ]
    if own_grads is None:
        for grad, weight in zip(grads, weights, strict=True):
            grad[row, label] -= weight
    return grads, own_grads


def _binary(
    scores: list[Tensor],
    own: list[Tensor],
    weights: Tensor,
    kl_weights: Tensor | None,
    beta: float,
    sums: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """As :func:`_softmax`, for scores that are each a probability of their own."""
    drawn = scores[0].shape[-1]
    per, offset = 1 / (drawn + 1), math.log(drawn)
    positive, negative = [], []
    for raw_score, raw_hit, weight in zip(scores, own, weights, strict=True):
        score, hit = raw_score - offset, raw_hit - offset
        loss = beta * torch.nn.functional.softplus(-hit)
        loss = loss + torch.nn.functional.softplus(score).sum(-1)
        sums[0] += (weight * loss).sum() * per
        scale = weight * per
        positive.append(-beta * torch.sigmoid(-hit) * scale)
        negative.append(torch.sigmoid(score).mul_(scale.unsqueeze(-1)))
    if kl_weights is None:
        return negative, positive
    label = torch.zeros(scores[0].shape[0], dtype=torch.int64, device=scores[0].device)
    bend, own_bend = _softmax(scores, own, label, torch.zeros_like(weights), kl_weights, sums)
    assert own_bend is not None
    return (
        [grad + more for grad, more in zip(negative, bend, strict=True)],
        [grad + more for grad, more in zip(positive, own_bend, strict=True)],
    )
