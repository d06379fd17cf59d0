"""GRU4Rec: a gated recurrent unit reads the history.

After *Session-based Recommendations with Recurrent Neural Networks* (Hidasi et al., ICLR 2016), in
the form that RecBole made common: an embedding of its own for each item, dropout, a GRU without
biases, a linear map back to the width of the embedding, and the dot product with the items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from blin.batch import View
from blin.config import check_at_least
from blin.models.next_item import NextItemConfig, NextItemModel
from blin.nn.dropout import Dropout
from blin.nn.segments import SegmentRows


@dataclass(frozen=True)
class GRU4RecConfig(NextItemConfig):
    """The sizes of a GRU4Rec model, and its loss; ``dropout`` is that of the embedding.

    Attributes:
        hidden_dim: width of the recurrent unit.
        num_layers: recurrent units, each reading the one below.
    """

    repeated: ClassVar[tuple[str, ...]] = ("num_layers",)

    hidden_dim: int = 128
    num_layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "hidden_dim", "num_layers")


class GRU4Rec(NextItemModel):
    """Scores the next item from a history, read one item after the other.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    config: GRU4RecConfig

    def __init__(self, num_items: int, config: GRU4RecConfig) -> None:
        super().__init__(num_items, config)
        self.embedding_dropout = Dropout(config.dropout)
        self.gru = nn.GRU(
            config.dim, config.hidden_dim, config.num_layers, bias=False, batch_first=True
        )
        self.out = nn.Linear(config.hidden_dim, config.dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights of items and units as Glorot and Bengio do; padding is 0."""
        nn.init.xavier_normal_(self.item_embedding.weight)
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D): that of position i has read its segment up to i.

        Padding has the state of an empty history.
        """
        x = self._embed(view.items)
        rows = SegmentRows.of(view.segments)
        hidden = x.new_zeros(view.items.numel(), self.config.hidden_dim)
        if rows.longest > 0:
            places, counts = rows.steps()
            steps = x.flatten(0, 1).index_select(0, places)
            # On a GPU autocast would read in fp16, also where bf16 is asked for.
            with torch.autocast(x.device.type, enabled=False):
                read, _ = self.gru(PackedSequence(steps, counts.cpu()))
            hidden = hidden.index_copy(0, places, read.data)
        return self.out(hidden.view(*view.items.shape, self.config.hidden_dim))  # type: ignore[no-any-return]

    def _embed(self, items: Tensor) -> Tensor:
        return self.embedding_dropout(self.item_embedding(items))  # type: ignore[no-any-return]

    @property
    def recurrence_obstacle(self) -> str | None:
        """None: the model has no other form than the recurrent one."""
        return None

    def advance(self, items: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reads the next items of histories, at a cost that does not depend on those before.

        Args:
            items: (B, M) items, without padding.
            state: what the items before have left; None at the beginning.

        Returns:
            (B, M, D) states, and what is left for the items to come.
        """
        read, state = self.gru(self._embed(items), state)
        return self.out(read), state
