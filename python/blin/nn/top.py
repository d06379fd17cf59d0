"""The highest scores of a row, in an order that is always the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def best_items(scores: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the k highest scores of each row and their items; the lower item first on a tie."""
    values, _ = torch.topk(scores, k, dim=1)
    threshold = values[:, -1:]
    # topk picks any of the items that tie at the threshold: take the lowest ones.
    above = scores > threshold
    level = (scores == threshold) & (scores > -torch.inf)
    room = k - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1) <= room))
    ranked = torch.where(chosen, scores, -torch.inf)
    order = torch.argsort(ranked, dim=1, descending=True, stable=True)[:, :k]
    return ranked.gather(1, order).cpu().numpy(), order.cpu().numpy()
