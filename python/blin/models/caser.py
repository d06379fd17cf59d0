"""Caser: convolutions over the newest items of a history.

After *Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding* (Tang and
Wang, WSDM 2018). The embeddings of the newest L items, one below the other, are looked at as an
image. The paper adds a learned vector for each user; it is left out here, so that a history is all
that a recommendation needs, whoever it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from blin.batch import Batch, Losses, View
from blin.config import check_at_least
from blin.models.next_item import NextItemConfig, NextItemModel
from blin.models.objective import next_item_loss
from blin.nn.dropout import Dropout
from blin.nn.embedding import ItemEmbedding, append_bias


@dataclass(frozen=True)
class CaserConfig(NextItemConfig):
    """The sizes of a Caser model, and its loss; ``dropout`` is that of the filters' outputs.

    Attributes:
        window: how many items a state sees, L.
        vertical: filters that mix the L items, each channel with itself.
        horizontal: filters of each height from 1 to L, over all channels.
    """

    repeated: ClassVar[tuple[str, ...]] = ("window",)

    loss: str = "bce"
    num_negatives: int = 3
    negatives_per: str = "position"
    exclude_history: bool = True
    window: int = 5
    vertical: int = 4
    horizontal: int = 16

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "window", "vertical", "horizontal")


class Caser(NextItemModel):
    """Scores the next item from the newest L items of a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    config: CaserConfig

    def __init__(self, num_items: int, config: CaserConfig) -> None:
        super().__init__(num_items, config)
        dim, window = config.dim, config.window
        self.vertical = nn.Linear(window, config.vertical)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(dim, config.horizontal, height) for height in range(1, window + 1)
        )
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(config.vertical * dim + config.horizontal * window, dim)
        self.output_embedding = ItemEmbedding(num_items, dim)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1))
        for table in (self.item_embedding, self.output_embedding):
            nn.init.normal_(table.weight, std=1 / dim)
            with torch.no_grad():
                table.weight[0].zero_()

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D): that of position i has seen the L items up to i.

        Items of other segments are not seen; where there are fewer than L, zeros take their place.
        """
        images = self._images(view).flatten(0, 1)  # (B·N, D, L)
        features = [self.vertical(images).flatten(1)]
        features += [conv(images).relu().amax(dim=2) for conv in self.horizontal]
        states = self.out(self.dropout(torch.cat(features, dim=1))).relu()
        return states.view(*view.items.shape, self.config.dim)  # type: ignore[no-any-return]

    def _images(self, view: View) -> Tensor:
        """Returns the embeddings of the L items up to each position, (B, N, D, L), oldest first."""
        segments, window = view.segments, self.config.window
        x = self.item_embedding(view.items) * (segments > 0).unsqueeze(-1)
        x = nn.functional.pad(x, (0, 0, window - 1, 0)).unfold(1, window, 1)
        seen = nn.functional.pad(segments, (window - 1, 0)).unfold(1, window, 1)
        return x * (seen == segments.unsqueeze(-1)).unsqueeze(2)

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch, at every position."""
        states = self.encode(batch.views[0])
        states, table = append_bias(states, self.output_embedding.weight, self.item_bias)
        return next_item_loss([states], table, batch, self.config)

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns the scores of the next item after each row's last position.

        Args:
            batch: its first view holds the histories.
            candidates: (B, K) items; None for the whole catalogue.

        Returns:
            (B, V + 1), or (B, K) for the candidates; column 0 of the former is padding's.
        """
        view = batch.views[0]
        newest = slice(-self.config.window, None)
        view = replace(view, items=view.items[:, newest], segments=view.segments[:, newest])
        states = self.encode(view)[:, -1]  # (B, D)
        bias = self.item_bias if candidates is None else self.item_bias[candidates]
        return self.output_embedding.score(states, candidates) + bias
