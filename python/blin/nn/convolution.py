"""Causal depthwise convolution that stops at segment borders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalDepthwiseConvolution(nn.Module):
    """Mixes each channel with its own recent past (Blin, Eq. 11, made causal).

        y_i = bias + Σ_{τ=0}^{K-1} weight_τ ⊙ x_{i-τ},   taps outside the segment of i are dropped

    One zero delimiter does not keep two segments apart when K > 2, so every tap is gated by its
    segment. K is small: K shifted multiply-adds beat a call into a convolution library.

    Args:
        dim: number of channels D.
        kernel_size: number of taps K, the current position included.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1:
            raise ValueError(f"kernel_size must be at least 1, got {kernel_size}")
        self.weight = nn.Parameter(torch.empty(kernel_size, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts small: on short sequences a full-size local branch drowns the attention."""
        bound = 0.1 / self.weight.shape[0] ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D); padding (segment 0) gives 0."""
        n = x.shape[1]
        y = x * self.weight[0] + self.bias
        for lag in range(1, min(self.weight.shape[0], n)):
            same = (segments[:, lag:] == segments[:, :-lag]).unsqueeze(-1)  # (B, N - lag, 1)
            past = (x[:, :-lag] * same) * self.weight[lag]
            y = y + nn.functional.pad(past, (0, 0, lag, 0))
        return y * (segments > 0).unsqueeze(-1)
