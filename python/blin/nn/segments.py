"""Segments in rows of their own, for operators that know no segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SegmentRows:
    """A row for each segment of a batch, its first position at the left.

    The positions of a segment follow one another, with nothing but padding (0) between them, which
    the rows leave out. The segments come in the order of their rows, and from left to right.

    Attributes:
        lengths: (S,), the positions of each segment.
        places: (P,), where each real position stands among the B·N of the batch, in rising order.
        slots: (P,), where it stands among the S·L of the rows.
        longest: L, the longest of the lengths; 0 where there are none.
        shape: (B, N).
    """

    lengths: Tensor
    places: Tensor
    slots: Tensor
    longest: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, segments: Tensor) -> SegmentRows:
        """Returns the rows of (B, N) segments."""
        batch, n = segments.shape
        flat = segments.reshape(-1)
        places = torch.nonzero(flat > 0).squeeze(-1)
        # A segment's number means something in its row only.
        rows, numbers = places // max(1, n), flat[places]
        begins = torch.ones_like(places, dtype=torch.bool)
        begins[1:] = (rows[1:] != rows[:-1]) | (numbers[1:] != numbers[:-1])
        owners = begins.cumsum(0) - 1
        firsts = torch.nonzero(begins).squeeze(-1)
        lengths = torch.bincount(owners, minlength=len(firsts))
        columns = torch.arange(len(places), device=places.device) - firsts[owners]
        longest = int(lengths.max()) if len(lengths) else 0
        return cls(lengths, places, owners * longest + columns, longest, (batch, n))

    @property
    def real(self) -> Tensor:
        """(S, L) booleans, true where there is a position."""
        columns = torch.arange(self.longest, device=self.lengths.device)
        return columns < self.lengths.unsqueeze(-1)

    def steps(self) -> tuple[Tensor, Tensor]:
        """Returns the real positions step by step: the first of all segments, the second, ...

        Of each step the longest segments come first, so that those that go on are a prefix of those
        of the step before, as packed sequences have it.

        Returns:
            (P,), where they stand among the B·N of the batch; (L,), how many each step has.
        """
        order = self.lengths.argsort(descending=True, stable=True)
        places = self.places.new_zeros(len(order) * self.longest)
        places = places.index_copy(0, self.slots, self.places).view(len(order), self.longest)
        real = self.real[order].t()
        return places[order].t()[real], real.sum(1)

    def split(self, x: Tensor) -> Tensor:
        """Maps (B, N, ...) to (S, L, ...), 0 behind the end of a segment."""
        rows = x.new_zeros(len(self.lengths) * self.longest, *x.shape[2:])
        rows = rows.index_copy(0, self.slots, x.flatten(0, 1).index_select(0, self.places))
        return rows.view(len(self.lengths), self.longest, *x.shape[2:])

    def join(self, rows: Tensor) -> Tensor:
        """Maps (S, L, ...) to (B, N, ...), 0 at padding."""
        batch, n = self.shape
        x = rows.new_zeros(batch * n, *rows.shape[2:])
        x = x.index_copy(0, self.places, rows.flatten(0, 1).index_select(0, self.slots))
        return x.view(batch, n, *rows.shape[2:])
