"""Depthwise convolution that stops at segment borders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseConvolution(nn.Module):
    """Mixes each channel with its own neighbourhood (Blin, Eq. 11).

        y_i = bias + Σ_{τ=0}^{K-1} weight_τ ⊙ x_{i+a-τ},   taps outside the segment of i are dropped

    where a is 0 in the causal form and ⌊(K-1)/2⌋ in the bidirectional one, which the paper prints.
    One zero delimiter does not keep two segments apart when K > 2, so every tap is gated by its
    segment. K is small: K shifted multiply-adds beat a call into a convolution library.

    Args:
        dim: number of channels D.
        kernel_size: number of taps K, the current position included.
        causal: look at what came before only.
    """

    def __init__(self, dim: int, kernel_size: int, *, causal: bool = True) -> None:
        super().__init__()
        if kernel_size < 1:
            raise ValueError(f"kernel_size must be at least 1, got {kernel_size}")
        self.ahead = 0 if causal else (kernel_size - 1) // 2
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
        n, ahead = x.shape[1], self.ahead
        y = x * self.weight[ahead] + self.bias
        for lag in range(1, min(self.weight.shape[0] - ahead, n)):
            same = (segments[:, lag:] == segments[:, :-lag]).unsqueeze(-1)  # (B, N - lag, 1)
            past = (x[:, :-lag] * same) * self.weight[ahead + lag]
            y = y + nn.functional.pad(past, (0, 0, lag, 0))
        for lead in range(1, min(ahead + 1, n)):
            same = (segments[:, lead:] == segments[:, :-lead]).unsqueeze(-1)
            future = (x[:, lead:] * same) * self.weight[ahead - lead]
            y = y + nn.functional.pad(future, (0, 0, 0, lead))
        return y * (segments > 0).unsqueeze(-1)

    def advance(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps the next M positions of sequences without padding, causal form only.

        Args:
            x: (B, M, D).
            past: (B, K - 1, D), the inputs before; None at the beginning.

        Returns:
            (B, M, D), and the newest K - 1 inputs.
        """
        if self.ahead > 0:
            raise ValueError("only a causal convolution can go on from what came before")
        kernel_size, m = self.weight.shape[0], x.shape[1]
        if past is None:
            past = x.new_zeros(x.shape[0], kernel_size - 1, x.shape[2])
        row = torch.cat([past, x], dim=1)
        y = x * self.weight[0] + self.bias
        for lag in range(1, kernel_size):
            start = kernel_size - 1 - lag
            y = y + row[:, start : start + m] * self.weight[lag]
        return y, row[:, m:].clone()
