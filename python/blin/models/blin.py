"""Blin: causal linear attention, depthwise convolution, and two views that must agree.

After *Blin: A Multi-Task Sequence Recommendation Based on Bidirectional KL-Divergence and Linear
Attention*. Two things differ from the printed paper, on purpose:

- Its operators (Eq. 10, 11) look both ways while its loss (Eq. 15) predicts the next item at every
  position; taken together, every position sees its answer. Here both operators are causal.
- Its repeated copies of a sequence see each other, so that a copy can fetch the answer from the
  copy before. Here the segments of a batch say what may see what.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Losses, View
from blin.errors import ConfigError
from blin.models.objective import ObjectiveConfig, next_item_loss
from blin.nn.attention.linear import LinearAttention
from blin.nn.convolution import CausalDepthwiseConvolution
from blin.nn.dropout import Dropout
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class BlinConfig(ObjectiveConfig):
    """The sizes of a Blin model, and its loss.

    Attributes:
        dim: width D of embeddings and states.
        num_heads: attention heads; divides ``dim``.
        num_blocks: residual blocks.
        max_len: longest history the model sees, N.
        dropout: probability of dropping a unit, in the embedding and in every branch.
        hidden_dim: width inside the feed-forward network (Eq. 12: equal to ``dim``); 0 for ``dim``.
        activation: inside the feed-forward network: relu, gelu or silu.
        kernel_size: taps of the depthwise convolution; 0 for none.
        norm_first: normalise before each branch instead of after it.
        positions: what the position embedding counts: ``absolute`` places in the row,
            ``per-copy`` steps since the first item, or ``none``.
    """

    dim: int = 64
    num_heads: int = 2
    num_blocks: int = 2
    max_len: int = 50
    dropout: float = 0.5
    hidden_dim: int = 0
    activation: str = "relu"
    kernel_size: int = 3
    norm_first: bool = False
    positions: str = "absolute"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        at_least = {
            "dim": 1,
            "num_heads": 1,
            "num_blocks": 1,
            "max_len": 1,
            "hidden_dim": 0,
            "kernel_size": 0,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if self.dim % self.num_heads != 0:
            raise ConfigError(
                f"num_heads: expected a divisor of dim {self.dim}, found {self.num_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected a number in [0, 1), found {self.dropout}")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ConfigError(f"activation: expected one of {known}, found {self.activation!r}")
        if self.positions not in ("absolute", "per-copy", "none"):
            raise ConfigError(
                f"positions: expected absolute, per-copy or none, found {self.positions!r}"
            )


class BlinModel(nn.Module):
    """Scores the next item from a history (Blin, Eq. 5–19).

    Args:
        num_items: V; items are 1…V.
        config: the sizes and weights.
    """

    def __init__(self, num_items: int, config: BlinConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        dim = config.dim
        self.item_embedding = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.position_embedding = (
            None if config.positions == "none" else nn.Embedding(config.max_len, dim)
        )
        self.embedding_norm = nn.LayerNorm(dim)
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(dim) if config.norm_first else nn.Identity()
        self.apply(_initialise)

    def _block(self) -> Block:
        config = self.config
        local = None
        if config.kernel_size > 0:
            local = CausalDepthwiseConvolution(config.dim, config.kernel_size)
        return Block(
            LinearAttention(config.dim, config.num_heads, local=local),
            FeedForward(config.dim, config.hidden_dim or config.dim, activation=config.activation),
            dim=config.dim,
            dropout=config.dropout,
            norm_first=config.norm_first,
        )

    @property
    def batch_spec(self) -> BatchSpec:
        """Two views when they are to agree, one otherwise."""
        config = self.config
        return BatchSpec(
            max_len=config.max_len,
            positions="absolute" if config.positions == "none" else config.positions,
            views=config.views,
            num_negatives=config.num_negatives,
            sampling=config.sampling,
            negatives_per=config.negatives_per,
            exclude_history=config.exclude_history,
        )

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D); that of position i has seen items ≤ i only."""
        x = self.item_embedding(view.items)
        if self.position_embedding is not None:
            x = x + self.position_embedding(view.positions)
        x = self.embedding_dropout(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, view.segments)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch of one or two views (Eq. 19)."""
        states = [self.encode(view) for view in batch.views]
        return next_item_loss(states, self.item_embedding.weight, batch, self.config)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns the scores of the next item after each row's last position.

        Args:
            batch: its first view holds the histories.
            candidates: (B, K) items; None for the whole catalogue.

        Returns:
            (B, V + 1), or (B, K) for the candidates; column 0 of the former is padding's.
        """
        states = self.encode(batch.views[0])[:, -1]  # (B, D)
        table = self.item_embedding.weight
        if candidates is None:
            return states @ table.t()
        return (table[candidates] @ states.unsqueeze(-1)).squeeze(-1)


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02²), as the post-norm family of SASRec does; biases are 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
