"""The stretches in which a sequence that is longer than a row is read whole."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Windows(NamedTuple):
    """Stretches of ranges, range by range and the newest first, (W,) each.

    Attributes:
        owners: the range of each.
        starts: where it begins.
        ends: where it ends.
    """

    owners: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def windows(
    starts: NDArray[np.int64], ends: NDArray[np.int64], *, size: int, stride: int
) -> Windows:
    """Returns the windows of every range.

    The newest ends where its range ends, and each one before it ``stride`` places earlier; the
    oldest begins where the range begins. A range without places is one window as it is.

    Args:
        starts: (U,), where the ranges begin.
        ends: (U,), where they end.
        size: the most places in a window.
        stride: at most ``size``, so that no place is in none.
    """
    counts = 1 + -(-np.maximum(ends - starts - size, 0) // stride)
    owners = np.repeat(np.arange(len(starts)), counts)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    stops = ends[owners] - numbers * stride
    return Windows(owners, np.maximum(stops - size, starts[owners]), stops)
