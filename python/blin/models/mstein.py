"""MStein: items and states are Gaussians, and the nearest item comes next.

After *Mutual Wasserstein Discrepancy Minimization for Sequential Recommendation* (Fan et al., WWW
2023) and the stochastic self-attention it is built on (*Sequential Recommendation via Stochastic
Self-Attention*, Fan et al., WWW 2022). Distances are the W² of :mod:`blin.nn.gaussian`:
attention weighs by them, items are scored by them, and the losses compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Losses, View
from blin.config import check_at_least, check_probability
from blin.errors import ConfigError
from blin.models.contrast import ContrastConfig, info_nce
from blin.nn.attention.stochastic import StochasticBlock
from blin.nn.dropout import Dropout
from blin.nn.embedding import ItemEmbedding, PositionEmbedding
from blin.nn.gaussian import (
    by_sequence,
    covariance,
    point,
    squared_distances,
    squared_distances_of_rows,
)


@dataclass(frozen=True)
class MSteinConfig(ContrastConfig):
    """The sizes of an MStein model, and its loss.

    Attributes:
        dim: width D of means and of covariances.
        num_heads: attention heads; divides ``dim``.
        num_blocks: residual blocks.
        max_len: longest history the model sees, N.
        dropout: probability of dropping a unit, in the embedding and in every branch.
        num_negatives: K, the negatives of its own that each target competes with, none of them in
            the user's training sequence.
        pvn_weight: weight of the triangle of state, target and negative.
        repeated: settings that say how many there are of a part with weights of its own.
    """

    repeated: ClassVar[tuple[str, ...]] = ("num_blocks",)

    dim: int = 64
    num_heads: int = 2
    num_blocks: int = 1
    max_len: int = 50
    dropout: float = 0.1
    num_negatives: int = 1
    pvn_weight: float = 0.01
    contrast_weight: float = 0.005
    temperature: float = 1e-4
    crop_ratio: float = 0.2
    mask_ratio: float = 0.7
    reorder_ratio: float = 0.2

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        check_at_least(self, 1, "dim", "num_heads", "num_blocks", "max_len", "num_negatives")
        if self.dim % self.num_heads != 0:
            raise ConfigError(
                f"num_heads: expected a divisor of dim {self.dim}, found {self.num_heads}"
            )
        check_probability(self, "dropout")
        check_at_least(self, 0, "pvn_weight")
        self.check_contrast()


class MStein(nn.Module):
    """Scores the next item by how near it is to a history.

    Args:
        num_items: V; items are 1…V, and V + 1 is the mask token of augmented views.
        config: the sizes and weights.
    """

    causal = True

    def __init__(self, num_items: int, config: MSteinConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        dim = config.dim
        self.item_embedding = ItemEmbedding(num_items, dim, tokens=1)
        self.item_covariance = ItemEmbedding(num_items, dim, tokens=1)
        self.position_embedding = PositionEmbedding(config.max_len, dim)
        self.position_covariance = PositionEmbedding(config.max_len, dim)
        self.embedding_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            StochasticBlock(dim, config.num_heads, dropout=config.dropout)
            for _ in range(config.num_blocks)
        )
        self.apply(_initialise)

    @property
    def state_dim(self) -> int:
        """2 D: a mean and a deviation."""
        return 2 * self.config.dim

    @property
    def batch_spec(self) -> BatchSpec:
        """A view to learn from and, where there is a contrast, two augmented ones."""
        config = self.config
        return BatchSpec(
            max_len=config.max_len,
            positions="absolute",
            views=1,
            num_negatives=config.num_negatives,
            negatives_per="position",
            exclude_history=True,
            augmentations=config.augmentations,
        )

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view as points [μ, √Σ], (B, N, 2D)."""
        streams = []
        for items, positions, norm in zip(
            (self.item_embedding, self.item_covariance),
            (self.position_embedding, self.position_covariance),
            self.embedding_norms,
            strict=True,
        ):
            x = norm(items(view.items) + positions(view.positions))
            streams.append(nn.functional.elu(self.embedding_dropout(x)))
        mean, cov = streams[0], streams[1] + 1
        for block in self.blocks:
            mean, cov = block(mean, cov, view.segments)
        return point(mean, cov)

    def forward(self, batch: Batch) -> Losses:
        """Returns BPR on distances, and the weighted triangle and contrast."""
        config, view = self.config, batch.views[0]
        here = view.targets > 0
        states = self.encode(view)[here].unsqueeze(1)  # (R, 1, 2D)
        target = self._items(view.targets[here]).unsqueeze(1)
        negatives = self._items(batch.negatives[view.steps[here]])  # (R, K, 2D)
        right = (states - target).square().sum(-1)
        wrong = (states - negatives).square().sum(-1)
        apart = (target - negatives).square().sum(-1)
        weights = states.new_ones(len(states)) if view.weights is None else view.weights[here]
        shares = weights / weights.sum().clamp(min=1e-30)
        sequence = (shares * nn.functional.softplus(right - wrong).mean(-1)).sum()
        triangle = (shares * (right - apart).relu().mean(-1)).sum()
        total = sequence + config.pvn_weight * triangle
        parts = {"sequence": sequence.detach(), "pvn": triangle.detach()}
        if batch.augmented:
            first, second = batch.augmented
            contrast = wasserstein_contrast(
                self.encode(first),
                first.segments,
                self.encode(second),
                second.segments,
                temperature=config.temperature,
            )
            total = total + config.contrast_weight * contrast
            parts["contrast"] = contrast.detach()
        return Losses(total, parts)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns -W² of the state after each row's last position and of items.

        Args:
            batch: its first view holds the histories.
            candidates: (B, K) items; None for the whole catalogue.

        Returns:
            (B, V + 1), or (B, K) for the candidates; column 0 of the former is padding's.
        """
        states = self.encode(batch.views[0])[:, -1]  # (B, 2D)
        if candidates is None:
            items = torch.arange(self.num_items + 1, device=states.device)
            return -squared_distances(states, self._items(items))
        return -squared_distances(states.unsqueeze(1), self._items(candidates)).squeeze(1)

    def _items(self, items: Tensor) -> Tensor:
        """Returns the points of items, (...) to (..., 2D)."""
        return point(self.item_embedding(items), covariance(self.item_covariance(items)))


def wasserstein_contrast(
    first: Tensor,
    first_segments: Tensor,
    second: Tensor,
    second_segments: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Returns the mean InfoNCE loss of U sequences in two augmented views.

    Each of the 2U must pick out its other view among all others by the similarity
    1 / (1 + W²) / τ. W² of two sequences is summed over their positions, the newest with the
    newest; where one has no position any more, the other is compared with the origin.

    Args:
        first: (B, N, 2D) points of one view, in each segment one sequence.
        first_segments: (B, N).
        second: (B', N, 2D), the same sequences in the same order.
        second_segments: (B', N).
        temperature: τ.
    """
    pairs = ((first, first_segments), (second, second_segments))
    longest = max(first.shape[1], second.shape[1])
    rows, lengths = (
        torch.cat(parts)
        for parts in zip(*(by_sequence(*pair, longest) for pair in pairs), strict=True)
    )
    order = lengths.argsort(descending=True, stable=True)
    distances = squared_distances_of_rows(rows[order], lengths[order])
    similarities = 1 / (1 + distances.relu()) / temperature
    other = order.argsort()[(order + len(order) // 2) % len(order)]
    return info_nce(similarities, other)


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02²); biases, and padding, are 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
