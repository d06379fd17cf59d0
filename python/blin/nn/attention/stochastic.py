"""Attention of Gaussians (STOSA, Fan et al., WWW 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blin.nn.attention.heads import merge_heads, split_heads, visibility
from blin.nn.dropout import Dropout
from blin.nn.gaussian import covariance, point, squared_distances


class StochasticAttention(nn.Module):
    """Softmax attention of Gaussians: the nearer a key, the more it weighs.

        A = softmax over visible j of -W²(q_i, k_j) / √D_h,   μ_i = Σ_j A_ij μ_j,
        Σ_i = Σ_j A_ij² Σ_j                 the covariance of a sum of independent Gaussians

    Args:
        dim: width D.
        num_heads: number of heads; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mean_qkv = nn.Linear(dim, 3 * dim)
        self.covariance_qkv = nn.Linear(dim, 3 * dim)
        self.mean_out = nn.Linear(dim, dim)
        self.covariance_out = nn.Linear(dim, dim)

    def forward(self, mean: Tensor, cov: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, N, D) means and covariances with (B, N) segments to two (B, N, D)."""
        means, covs = (
            [split_heads(part, self.num_heads) for part in joined.chunk(3, dim=-1)]
            for joined in (self.mean_qkv(mean), covariance(self.covariance_qkv(cov)))
        )
        width = means[0].shape[-1]
        distances = squared_distances(point(means[0], covs[0]), point(means[1], covs[1]))
        # A softmax over nothing is not a number: padding sees itself and is put out after.
        own = torch.eye(segments.shape[1], dtype=torch.bool, device=segments.device)
        mask = (visibility(segments) | own).unsqueeze(1)  # (B, 1, N, N)
        weights = (-distances / width**0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        weights = (weights * (segments > 0)[:, None, :, None]).to(means[2].dtype)
        mean = self.mean_out(merge_heads(weights @ means[2]))
        return mean, self.covariance_out(merge_heads(weights.square() @ covs[2]))


class StochasticBlock(nn.Module):
    """Attention and feed-forward networks in two post-norm streams that meet in the attention.

    Args:
        dim: width D.
        num_heads: number of heads; divides ``dim``.
        dropout: probability of dropping a unit of either branch's output.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.attention = StochasticAttention(dim, num_heads)
        self.attention_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.ELU(), nn.Linear(4 * dim, dim))
            for _ in range(2)
        )
        self.feed_forward_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, mean: Tensor, cov: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, N, D) means and covariances with (B, N) segments to the same."""
        streams = []
        attended = self.attention(mean, cov, segments)
        for stream, (x, change) in enumerate(zip((mean, cov), attended, strict=True)):
            x = self.attention_norms[stream](x + self.dropout(change))
            change = self.feed_forwards[stream](x)
            streams.append(self.feed_forward_norms[stream](x + self.dropout(change)))
        return streams[0], covariance(streams[1])
