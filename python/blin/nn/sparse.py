"""Rows of weights of which nearly all are zero: what goes with what, and how strongly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_DTYPES = {"offsets": torch.int64, "targets": torch.int32, "weights": torch.float32}


class SparseRows(nn.Module):
    """For each item, some other items with a weight.

    The entries of item i are those of ``targets`` and ``weights`` from ``offsets[i]`` up to
    ``offsets[i + 1]``; padding, item 0, has none.

    Attributes:
        offsets: (V + 2,) int64.
        targets: (P,) int32, 1…V, each at most once in a row.
        weights: (P,) float32, at least 0.

    Args:
        num_items: V.
    """

    offsets: Tensor
    targets: Tensor
    weights: Tensor

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.register_buffer("offsets", torch.zeros(num_items + 2, dtype=torch.int64))
        self.make_room(0)

    def make_room(self, entries: int) -> None:
        """Replaces the entries by so many that mean nothing, on the device of the offsets."""
        where = self.offsets.device
        self.register_buffer("targets", torch.empty(entries, dtype=torch.int32, device=where))
        self.register_buffer("weights", torch.empty(entries, dtype=torch.float32, device=where))

    def fill(self, lengths: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Replaces the entries.

        Args:
            lengths: (V + 1,), how many entries each item has; 0 for padding.
            targets: (P,), row by row.
            weights: (P,).
        """
        self.offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self.targets = targets.to(torch.int32)
        self.weights = weights.to(torch.float32)

    def check(self) -> None:
        """Raises ValueError where :meth:`fill` could not have left what is there."""
        for name, dtype in _DTYPES.items():
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"{name}: expected {dtype}, found {getattr(self, name).dtype}")
        bounds, entries = self.offsets, len(self.targets)
        inside = bool((bounds >= 0).all()) and bool((bounds <= entries).all())
        # Of numbers that are not inside, the differences may overflow.
        if bounds[:2].any() or bounds[-1] != entries or not inside or (bounds.diff() < 0).any():
            raise ValueError(f"offsets: expected to rise from 0 to {entries}")
        if ((self.targets < 1) | (self.targets > self.num_items)).any():
            raise ValueError(f"targets: expected items from 1 to {self.num_items}")
        if not (self.weights >= 0).all() or not torch.isfinite(self.weights).all():
            raise ValueError("weights: expected finite numbers of at least 0")

    def add_to(self, scores: Tensor, items: Tensor, factor: float = 1.0) -> None:
        """Adds to each of (B, V + 1) scores the row of its item, (B,), times a factor."""
        rows, entries = self.entries(items)
        cells = rows * scores.shape[1] + self.targets[entries]
        scores.view(-1).index_add_(0, cells, self.weights[entries], alpha=factor)

    def entries(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the entries of some rows, one row after the other.

        Args:
            items: (B,), whose rows.

        Returns:
            (P,) twice: for each entry the place in ``items``, and the place in ``targets`` and
            ``weights``.
        """
        starts = self.offsets[items]
        lengths = self.offsets[items + 1] - starts
        rows = torch.repeat_interleave(lengths)
        first = lengths.cumsum(0) - lengths
        return rows, torch.arange(len(rows), device=rows.device) + (starts - first)[rows]
