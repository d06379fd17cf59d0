"""Weights that sum to 1 and are mostly 0."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsemax(scores: Tensor) -> Tensor:
    """Returns the point of the simplex that is nearest to each row of scores.

        w_i = max(0, z_i - τ),   τ such that Σ w = 1

    After Martins and Astudillo, *From Softmax to Sparsemax* (ICML 2016), algorithm 1. With the
    scores z_(1) ≥ z_(2) ≥ … the weights above 0 are those of the k highest, k the most for which
    1 + k z_(k) > z_(1) + … + z_(k); and τ = (z_(1) + … + z_(k) - 1) / k. Of a change of the scores,
    the weights above 0 take its difference to its mean over them, the others nothing.

    Args:
        scores: (B, N); -inf where there is nothing to weigh.

    Returns:
        (B, N); a row of nothing but -inf gives zeros.
    """
    with torch.no_grad():
        falling = scores.sort(dim=-1, descending=True).values
        counts = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        inside = 1 + counts * falling > falling.cumsum(-1)
        least = falling.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
        chosen = scores >= least
    total = scores.masked_fill(~chosen, 0).sum(-1, keepdim=True)
    threshold = (total - 1) / chosen.sum(-1, keepdim=True).clamp(min=1)
    return (scores - threshold).masked_fill(~chosen, 0)
