"""Means over the last positions of a segment."""

from __future__ import annotations

from torch import Tensor, nn


def window_mean(x: Tensor, segments: Tensor, window: int) -> Tensor:
    """Returns for each position the mean over itself and those before it.

        y_i = Σ_{l < L, i - l in the segment of i} x_{i-l} / (how many those are)

    L is small: L - 1 shifted additions.

    Args:
        x: (B, N, D).
        segments: (B, N).
        window: L, at least 1.

    Returns:
        (B, N, D); padding (segment 0) gives 0.
    """
    real = segments > 0
    total = x * real.unsqueeze(-1)
    count = real.to(x.dtype)
    for lag in range(1, min(window, x.shape[1])):
        same = ((segments[:, lag:] == segments[:, :-lag]) & real[:, lag:]).to(x.dtype)
        total = total + nn.functional.pad(x[:, :-lag] * same.unsqueeze(-1), (0, 0, lag, 0))
        count = count + nn.functional.pad(same, (lag, 0))
    return total / count.clamp(min=1).unsqueeze(-1)
