"""Softmax attention in which each position has a short list of keys of its own.

Gathered keys are as many as the positions times the length of the lists: more than anything else
around them. They are therefore never kept: forward and backward gather them for some queries at a
time, and what stays is the output and one number a query.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GATHERED = 1 << 18
"""Numbers in the keys that are gathered at a time."""


def gathered_attention(
    queries: Tensor, keys: Tensor, values: Tensor, runs: Tensor, seen: Tensor, scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes softmax attention of each query over the keys on its list.

        w_pj = softmax over the seen j of the list of p of q_p · k_j / √D,   out_p = Σ_j w_pj v_j

    Keys lie in runs of W neighbours, and lists name runs.

    Args:
        queries: (P, G, R, D); the R queries of a group share a list.
        keys: (G, S, D).
        values: (G, S, D).
        runs: (P, G, T) int64, below S / W: the lists, of T · W keys.
        seen: (P, T · W) booleans, which keys of a list count: in each row one at least.
        scores: (P, G, U), U ≤ T. Their values play no part. Their gradient is what it would be
            were they added to the logits of the keys of the first U runs.

    Returns:
        (P, G, R, D), and (P, G, R): the logarithms of Σ_j exp(q_p · k_j / √D).
    """
    out, logs = _Gathered.apply(queries, keys, values, runs, seen, scores)
    return out, logs


class _Gathered(torch.autograd.Function):
    """:func:`gathered_attention`, whose backward gathers and weighs the keys once more."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        runs: Tensor,
        seen: Tensor,
        scores: Tensor,
    ) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(queries)
        logs = queries.new_empty(queries.shape[:-1])
        for part in _parts(keys, runs, seen):
            logits, _ = _logits(queries[part], keys, runs[part], seen[part])
            logs[part] = logits.logsumexp(-1)
            weights = (logits - logs[part].unsqueeze(-1)).exp_()
            listed, _ = _gather(values, runs[part], seen.shape[1])
            out[part] = weights @ listed
        ctx.save_for_backward(queries, keys, values, runs, seen, out, logs)
        ctx.scored = scores.shape[-1]
        return out, logs

    @staticmethod
    def backward(
        ctx: Any, out_grad: Tensor, logs_grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, Tensor]:
        queries, keys, values, runs, seen, out, logs = ctx.saved_tensors
        groups, slots, dim = keys.shape
        lists = runs.shape[-1]
        width = seen.shape[1] // lists
        queries_grad = torch.empty_like(queries)
        keys_grad, values_grad = (
            keys.new_zeros(groups * slots // width, width * dim) for _ in "kv"
        )
        scores_grad = queries.new_empty(*runs.shape[:2], ctx.scored)
        for part in _parts(keys, runs, seen):
            asked, given = queries[part], out_grad[part]
            logits, listed = _logits(asked, keys, runs[part], seen[part])
            weights = (logits - logs[part].unsqueeze(-1)).exp_()
            listed_values, places = _gather(values, runs[part], seen.shape[1])
            shift = logs_grad[part] - (given * out[part]).sum(-1)
            slopes = weights * (given @ listed_values.transpose(-1, -2) + shift.unsqueeze(-1))
            pushed = slopes.sum(2).view(-1, groups, lists, width).sum(-1)
            scores_grad[part] = pushed[..., : ctx.scored]
            slopes = slopes / dim**0.5
            queries_grad[part] = slopes @ listed
            for total, grads in (
                (keys_grad, slopes.transpose(-1, -2) @ asked),
                (values_grad, weights.transpose(-1, -2) @ given),
            ):
                total.index_add_(0, places, grads.reshape(len(places), width * dim))
        return (
            queries_grad,
            keys_grad.view_as(keys),
            values_grad.view_as(values),
            None,
            None,
            scores_grad,
        )


def _parts(keys: Tensor, runs: Tensor, seen: Tensor) -> list[slice]:
    """Cuts the P queries into parts whose keys fit :data:`GATHERED`."""
    size = max(1, GATHERED // max(1, keys.shape[0] * seen.shape[1] * keys.shape[2]))
    return [slice(begin, begin + size) for begin in range(0, len(runs), size)]


def _gather(x: Tensor, runs: Tensor, listed: int) -> tuple[Tensor, Tensor]:
    """Returns what is on the lists, (C, G, T · W, D), and the (C · G · T,) places of its runs."""
    groups, slots, dim = x.shape
    width = listed // runs.shape[-1]
    offsets = torch.arange(groups, device=x.device) * (slots // width)
    places = (runs + offsets.unsqueeze(-1)).flatten()
    found = x.reshape(-1, width * dim).index_select(0, places)
    return found.view(len(runs), groups, listed, dim), places


def _logits(queries: Tensor, keys: Tensor, runs: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (C, G, R, T · W), -∞ where nothing is seen, and the keys on the lists."""
    listed, _ = _gather(keys, runs, seen.shape[1])
    logits = (queries @ listed.transpose(-1, -2)) / queries.shape[-1] ** 0.5
    return logits.masked_fill_(~seen[:, None, None, :], -torch.inf), listed
