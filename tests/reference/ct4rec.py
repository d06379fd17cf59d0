"""Which states two views find alike, and how much they disagree, one pair after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blin.batch import Batch


def alike(states: Sequence[Tensor], i: int) -> Tensor:
    """The probabilities of all states but the i-th to be picked for their likeness to it."""
    here = states[i]
    cosines = [
        (here * other).sum() / (here.square().sum() * other.square().sum()).sqrt()
        for j, other in enumerate(states)
        if j != i
    ]
    weights = [torch.exp(5 * cosine) for cosine in cosines]
    return torch.stack([weight / sum(weights) for weight in weights])


def similarity_divergence(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The mean over the states of ½ (KL(P₁‖P₂) + KL(P₂‖P₁))."""
    terms = []
    for i in range(len(first)):
        p, q = alike(first, i), alike(second, i)
        terms.append(0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()))
    return torch.stack(terms).mean()


def same_steps(batch: Batch, states: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The states of both views at the newest copies of the steps that both hold."""
    found: list[dict[int, Tensor]] = []
    for view, state in zip(batch.views, states, strict=True):
        found.append(
            {
                int(view.steps[row, place]): state[row, place]
                for row, place in torch.nonzero(view.copies == 1).tolist()
                if view.targets[row, place] > 0
            }
        )
    shared = sorted(found[0].keys() & found[1].keys())
    return [found[0][step] for step in shared], [found[1][step] for step in shared]
