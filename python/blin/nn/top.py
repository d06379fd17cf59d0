"""The highest scores of a row, in an order that is always the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin.errors import BlinError


def best_items(scores: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the k highest scores of each row and their items; the lower item first on a tie.

    Raises:
        BlinError: Some score is not a number.
    """
    values, _ = torch.topk(scores, k, dim=1)
    # topk takes what is not a number for the highest.
    if values.isnan().any():
        raise BlinError("the model's scores are not numbers: it diverged, and cannot be ranked by")
    threshold = values[:, -1:]
    # It picks any of the items that tie at the threshold: take the lowest ones, k in all.
    above = scores > threshold
    level = scores == threshold
    room = k - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1) <= room))
    items = chosen.nonzero()[:, 1].view(len(scores), k)
    values, order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    return values.cpu().numpy(), items.gather(1, order).cpu().numpy()
