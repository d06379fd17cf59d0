"""Sequences cut into pieces so short as the histories of users that nobody knows yet.

A model that has only met long histories may make nothing of a short one. Where a model learns from
pieces, the tokens stay those of the batch, so that it costs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec, View


def with_pieces(batch: Batch, spec: BatchSpec, *, share: float, longest: int) -> Batch:
    """Returns a batch with the sequences of some users cut into pieces, all views alike.

    Args:
        batch: whose rows do not hold prefixes, nor copies that see each other.
        spec: what it was made by.
        share: the probability with which a sequence is cut; with 0 nothing is drawn.
        longest: the most inputs in a piece.
    """
    if share == 0:
        return batch
    pieces = draw_pieces(batch.step_users, len(batch.users), share=share, longest=longest)
    views = tuple(
        cut(view, pieces, max_len=spec.max_len, positions=spec.positions) for view in batch.views
    )
    return replace(batch, views=views)


class Pieces(NamedTuple):
    """Which steps of a batch stand in pieces, and where these begin.

    Attributes:
        cut: (T,) booleans, true for all steps of the sequences that are cut.
        begins: (T,) booleans, true for the first step of each piece.
    """

    cut: Tensor
    begins: Tensor


def draw_pieces(step_users: Tensor, num_users: int, *, share: float, longest: int) -> Pieces:
    """Draws which sequences are cut, and into pieces of how many inputs.

    Each sequence is cut with the same probability. Lengths of 1 to ``longest`` are alike probable;
    the first and the last piece of a sequence may be shorter than drawn. All draws come from
    torch's default generator.

    Args:
        step_users: (T,), the user of each step, in the order of the users.
        num_users: U.
        share: the probability.
        longest: the most inputs in a piece.
    """
    drawn = torch.rand(num_users) < share
    ends = torch.randint(1, longest + 1, (len(step_users),)).cumsum(0)
    begins = torch.zeros(len(step_users), dtype=torch.bool)
    begins[ends[ends < len(step_users)]] = True
    where = step_users.device
    cut = drawn.to(where)[step_users]
    return Pieces(cut, begins.to(where) & cut)


def cut(view: View, pieces: Pieces, *, max_len: int, positions: str) -> View:
    """Returns a view in which pieces are segments of their own, with the positions of a history.

    Inputs, targets and steps stay what and where they are. What a model makes of a piece is what it
    makes of a history of these inputs alone.

    Args:
        view: in which no segment holds two copies, and each input stands for a step.
        pieces: of its batch.
        max_len: positions in a row.
        positions: what they count, ``absolute`` or ``per-copy``.
    """
    real = view.segments > 0
    steps = view.steps.clamp(min=0)
    before = torch.nn.functional.pad(view.segments[:, :-1], (1, 0))
    cold = real & pieces.cut[steps]
    begins = real & ((view.segments != before) | (cold & pieces.begins[steps]))
    segments = torch.where(real, begins.cumsum(1), 0)
    columns = torch.arange(segments.shape[1], device=segments.device)
    places = columns - torch.where(begins, columns, 0).cummax(1).values
    if positions == "absolute":
        counts = segments.new_zeros(len(segments), segments.shape[1] + 1)
        counts = counts.scatter_add_(1, segments, torch.ones_like(segments))
        places = places + max_len - counts.gather(1, segments)
    return replace(
        view,
        segments=segments.to(view.segments.dtype),
        positions=torch.where(cold, places.to(view.positions.dtype), view.positions),
    )
