"""TiSASRec: attention that knows when each item was had.

After *Time Interval Aware Self-Attention for Sequential Recommendation* (Li et al., WSDM 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blin.batch import BatchSpec, View
from blin.config import check_at_least, check_one_of
from blin.models.encoder import Encoder, EncoderConfig
from blin.nn.attention.intervals import IntervalAttention, time_intervals
from blin.nn.dropout import Dropout
from blin.nn.embedding import PositionEmbedding, positions_from_end
from blin.nn.feed_forward import FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class TiSASRecConfig(EncoderConfig):
    """The sizes of a TiSASRec model, and its loss; 0 for ``hidden_dim`` is ``dim``.

    Attributes:
        max_interval: longer intervals between two items count as this one, in units of the
            shortest that the history has.
    """

    dim: int = 50
    num_heads: int = 1
    dropout: float = 0.2
    loss: str = "bce"
    num_negatives: int = 1
    negatives_per: str = "position"
    exclude_history: bool = True
    max_interval: int = 256

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "max_interval")
        check_one_of(self, positions=("absolute", "per-copy", "reversed"))


class TiSASRec(Encoder):
    """Scores the next item from a history and its times (TiSASRec, section 3).

    Positions and intervals have embeddings for keys and for values, which all blocks share.

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
    """

    config: TiSASRecConfig

    def __init__(self, num_items: int, config: TiSASRecConfig) -> None:
        super().__init__(num_items, config, embedding_norm=False, final_norm=True)
        # Positions are seen by the attention and are no part of the input.
        self.position_embedding = None
        dim = config.dim
        self.position_keys = PositionEmbedding(config.max_len, dim)
        self.position_values = PositionEmbedding(config.max_len, dim)
        self.interval_keys = nn.Embedding(config.max_interval + 1, dim)
        self.interval_values = nn.Embedding(config.max_interval + 1, dim)
        for table in (
            self.position_keys,
            self.position_values,
            self.interval_keys,
            self.interval_values,
        ):
            nn.init.normal_(table.weight, std=0.02)
        self.position_dropout = Dropout(config.dropout)

    def _block(self) -> Block:
        config = self.config
        return Block(
            IntervalAttention(config.dim, config.num_heads, dropout=config.dropout),
            FeedForward(config.dim, config.hidden_dim or config.dim, activation="relu"),
            dim=config.dim,
            dropout=config.dropout,
            norm_first=True,
        )

    @property
    def batch_spec(self) -> BatchSpec:
        """One view with its times, a target at every position."""
        return replace(super().batch_spec, times=True)

    def features(self, view: View) -> Iterator[Tensor]:
        """Yields the input of the first block and what each block makes of it, (B, N, D) each.

        A view without times is taken for one with equal gaps.
        """
        positions = view.positions
        if self.config.positions == "reversed":
            positions = positions_from_end(view.segments, view.copies)
        times = view.times
        if times is None:
            places = torch.arange(view.items.shape[1], device=view.items.device)
            times = places.expand_as(view.items)
        context = (
            view.segments,
            time_intervals(times, view.segments, most=self.config.max_interval),
            self.position_dropout(self.position_keys(positions)),
            self.position_dropout(self.position_values(positions)),
            self.interval_keys.weight,
            self.interval_values.weight,
        )
        x = self._embed(view.items, positions) * self.config.dim**0.5
        for block in self.blocks:
            yield x
            x = block(x, *context)
        yield self._output(x)
