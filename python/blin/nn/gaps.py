"""How long after the item before each item came."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_GAPS = 65
"""What :func:`log_gaps` tells apart."""


def log_gaps(times: Tensor | None, segments: Tensor) -> Tensor:
    """Returns the order of magnitude of the time between each item and the one before it.

        gap_i = 0 where t_i ≤ t_{i-1},   1 + ⌊log₂(t_i - t_{i-1})⌋ otherwise

    So 1 is one unit of time, 2 two or three, and 63 the longest that 64 bits hold: whatever the
    unit is, there is a number for it. What does not directly follow an item of its segment is 64.

    Args:
        times: (B, N) int64; None for equal gaps of one unit.
        segments: (B, N).

    Returns:
        (B, N) int64 below :data:`NUM_GAPS`; 64 at padding.
    """
    gaps = torch.full(segments.shape, NUM_GAPS - 1, dtype=torch.int64, device=segments.device)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    if times is None:
        return gaps.masked_fill_(torch.nn.functional.pad(follows, (1, 0)), 1)
    earlier, later = times[:, :-1], times[:, 1:]
    # A difference of more than 63 bits comes out negative.
    apart = (later - earlier).where(later > earlier, 0)
    apart = apart.masked_fill(apart < 0, torch.iinfo(torch.int64).max)
    powers = 2 ** torch.arange(63, device=times.device)
    gaps[:, 1:] = torch.where(follows, torch.bucketize(apart, powers, right=True), gaps[:, 1:])
    return gaps
