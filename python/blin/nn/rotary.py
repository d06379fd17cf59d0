"""Rotary positions: what two vectors make of each other depends on how far apart they are."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0


def rotate(x: Tensor, steps: Tensor) -> Tensor:
    """Turns channel c against channel c + D / 2 by the angle step · BASE^(-2c / D).

    The dot product of two turned vectors depends on the difference of their steps only. After
    *RoFormer: Enhanced Transformer with Rotary Position Embedding* (Su et al., 2021).

    Args:
        x: (P, ..., D); D is even.
        steps: (P,).

    Returns:
        The shape of ``x``.
    """
    half = x.shape[-1] // 2
    channels = torch.arange(half, dtype=x.dtype, device=x.device)
    angles = steps.to(x.dtype).unsqueeze(-1) * BASE ** (-channels / half)  # (P, D / 2)
    angles = angles.view(len(steps), *[1] * (x.dim() - 2), half)
    cosine, sine = angles.cos(), angles.sin()
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
