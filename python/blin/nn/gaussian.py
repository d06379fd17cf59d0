"""Gaussians and the Wasserstein distance between them.

A Gaussian has a mean μ and a diagonal covariance Σ, each of width D. The squared 2-Wasserstein
distance of two,

    W²(1, 2) = ‖μ₁ - μ₂‖² + ‖√Σ₁ - √Σ₂‖²,

is the Euclidean one of the points [μ, √Σ] of width 2D: all of it comes from matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.embedding import positions_from_end
from blin.nn.segments import SegmentRows

STRETCH = 8
"""Positions of the sequences in :func:`squared_distances_of_rows` that are compared at a time."""


def covariance(raw: Tensor) -> Tensor:
    """Returns what a tensor of any numbers stands for as a covariance, elu + 1: above 0."""
    return nn.functional.elu(raw) + 1


def point(mean: Tensor, cov: Tensor) -> Tensor:
    """Returns the points of Gaussians, (..., D) twice to (..., 2D)."""
    # Far below 0, elu + 1 is rounded to 0, where the root has no slope.
    return torch.cat([mean, cov.clamp(min=1e-24).sqrt()], dim=-1)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Returns W² of all pairs, (..., L, 2D) and (..., R, 2D) points to (..., L, R).

    The squares are expanded, ‖a‖² + ‖b‖² - 2ab, in at least fp32: near 0 digits are lost, and the
    result may be a little below it.
    """
    dtype = torch.promote_types(left.dtype, torch.float32)
    with torch.autocast(device_type=left.device.type, enabled=False):
        left, right = left.to(dtype), right.to(dtype)
        squares = left.square().sum(-1).unsqueeze(-1) + right.square().sum(-1).unsqueeze(-2)
        return squares - 2 * (left @ right.transpose(-1, -2))


def by_sequence(states: Tensor, segments: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Returns the states of each segment in a row of its own, the newest first, and their number.

    (B, N, W) states with (B, N) segments become (U, longest, W), with zeros at the end, and (U,).
    """
    real, found = segments > 0, SegmentRows.of(segments)
    owners = found.slots // found.longest
    rows = states.new_zeros(len(found.lengths), longest, states.shape[-1])
    rows = rows.index_put((owners, positions_from_end(segments)[real]), states[real])
    return rows, found.lengths


def squared_distances_of_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    """Returns W² of all pairs of (R, N, W) sequences, those with most states first, (R, R).

    Most sequences are short: stretch by stretch, products are taken of those that reach it.
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    with torch.autocast(device_type=rows.device.type, enabled=False):
        rows = rows.to(dtype)
        squares = rows.square().sum((1, 2))
        distances = squares.unsqueeze(1) + squares
        for start in range(0, rows.shape[1], STRETCH):
            some = rows[: int((lengths > start).sum()), start : start + STRETCH].flatten(1)
            rest = len(rows) - len(some)
            distances = distances - nn.functional.pad(2 * some @ some.t(), (0, rest, 0, rest))
        return distances
