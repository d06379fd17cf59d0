"""Dropout whose random numbers cost little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes units at random while training and scales up the rest, as ``nn.Dropout`` does.

    On a CPU ``nn.Dropout`` draws one Bernoulli number a unit, which takes longer than the matrix
    products around it. Here one 64-bit draw serves eight units, a byte each, so the probability
    is rounded to a multiple of 1/256, to 0 only if it is 0; the scale is exact for the rounded one.
    The draws come from torch's default generator in one thread, whatever the number of threads.

    Args:
        p: probability of zeroing a unit, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Maps a tensor to one of the same shape."""
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p, self.training)
        if not self.training or self.p == 0:
            return x
        dropped = min(255, max(1, round(256 * self.p)))
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return (x * kept).mul_(256 / (256 - dropped))
