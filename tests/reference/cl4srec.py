"""How well users are told apart, one vector after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import View
from reference.sasrec import places_by_segment


def contrastive_loss(first: Sequence[Tensor], second: Sequence[Tensor], tau: float) -> Tensor:
    """The mean over all vectors of -log of the other one's share among all others."""
    vectors = [*first, *second]
    users = len(first)
    terms = []
    for i, own in enumerate(vectors):
        partner = vectors[(i + users) % (2 * users)]
        others = [torch.exp((own * z).sum() / tau) for j, z in enumerate(vectors) if j != i]
        terms.append(-torch.log(torch.exp((own * partner).sum() / tau) / sum(others)))
    return torch.stack(terms).mean()


def newest(view: View, states: Tensor) -> list[Tensor]:
    """The last state of each segment of a (B, N) view, in the order of the rows."""
    ends = sorted((row, places[-1]) for row, places in places_by_segment(view.segments))
    return [states[end] for end in ends]
