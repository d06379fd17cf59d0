"""Rows for the whole of a sequence that is longer than one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def windows(
    starts: NDArray[np.int64], ends: NDArray[np.int64], max_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the stretches in which every range can be learned from whole, the newest first.

    The newest stretch of a range ends where the range ends. Each has ``max_len + 1`` items, as
    many as give a row ``max_len`` inputs with a target each, but for the oldest, which has what is
    left. Neighbours share an item, the last input's target of the older and the first input of the
    newer, so that each item but the first of a range is a target once.

    Args:
        starts: (U,), where the ranges begin.
        ends: (U,), where they end.
        max_len: inputs in a row, N.

    Returns:
        (W,) three times: the range of each stretch, and where it starts and ends. A range without
        two items is one stretch as it is.
    """
    counts = np.maximum(-(-(ends - starts - 1) // max_len), 1)
    owners = np.repeat(np.arange(len(starts)), counts)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    stops = ends[owners] - number * max_len
    return owners, np.maximum(stops - max_len - 1, starts[owners]), stops
