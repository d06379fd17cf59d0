"""GRU4Rec: a gated recurrent unit reads the history.

After *Session-based Recommendations with Recurrent Neural Networks* (Hidasi et al., ICLR 2016), in
the form that RecBole made common: an embedding of its own for each item, dropout, a GRU without
biases, a linear map back to the width of the embedding, and the dot product with the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from blin.batch import Batch, BatchSpec, Losses, View
from blin.config import check_at_least, check_probability
from blin.models.objective import ObjectiveConfig, batch_spec_of, next_item_loss
from blin.nn.dropout import Dropout
from blin.nn.embedding import ItemEmbedding
from blin.nn.segments import SegmentRows


@dataclass(frozen=True)
class GRU4RecConfig(ObjectiveConfig):
    """The sizes of a GRU4Rec model, and its loss.

    Attributes:
        dim: width D of embeddings and states.
        hidden_dim: width of the recurrent unit.
        num_layers: recurrent units, each reading the one below.
        max_len: longest history the model sees, N.
        dropout: probability of dropping a unit of an item's embedding.
    """

    dim: int = 64
    hidden_dim: int = 128
    num_layers: int = 1
    max_len: int = 50
    dropout: float = 0.3

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "dim", "hidden_dim", "num_layers", "max_len")
        check_probability(self, "dropout")


class GRU4Rec(nn.Module):
    """Scores the next item from a history, read one item after the other.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    def __init__(self, num_items: int, config: GRU4RecConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.item_embedding = ItemEmbedding(num_items, config.dim)
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

    @property
    def causal(self) -> bool:
        """True: what comes later has not been read."""
        return True

    @property
    def state_dim(self) -> int:
        """D."""
        return self.config.dim

    @property
    def batch_spec(self) -> BatchSpec:
        """One view, of which no position is asked."""
        return batch_spec_of(self.config, self.config.max_len)

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D): that of position i has read its segment up to i.

        Padding has the state of an empty history.
        """
        x = self._embed(view.items)
        rows = SegmentRows.of(view.segments)
        hidden = x.new_zeros(*view.items.shape, self.config.hidden_dim)
        if rows.longest > 0:
            packed = pack_padded_sequence(
                rows.split(x), rows.lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            read, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
            hidden = rows.join(read)
        return self.out(hidden)  # type: ignore[no-any-return]

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

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch, at every position."""
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
        return self.item_embedding.score(states, candidates)
