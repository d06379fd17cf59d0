"""What models share that score the next item by the dot product of a state and the items."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Losses, View
from blin.config import check_at_least, check_probability
from blin.models.objective import ObjectiveConfig, batch_spec_of, next_item_loss
from blin.nn.embedding import ItemEmbedding


@dataclass(frozen=True)
class NextItemConfig(ObjectiveConfig):
    """The sizes that all of them have, and the loss.

    Attributes:
        dim: width D of embeddings and states.
        max_len: longest history the model sees, N.
        dropout: probability of dropping a unit.
        repeated: settings that say how many there are of a part with weights of its own.
    """

    repeated: ClassVar[tuple[str, ...]] = ()

    dim: int = 64
    max_len: int = 50
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "dim", "max_len")
        check_probability(self, "dropout")


class NextItemModel(nn.Module):
    """Embeds items, makes states of histories, and scores by the table that embeds.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
        tokens: how many inputs there are that are no items, V + 1…V + tokens.
    """

    def __init__(self, num_items: int, config: NextItemConfig, *, tokens: int = 0) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.item_embedding = ItemEmbedding(num_items, config.dim, tokens=tokens)

    @property
    def causal(self) -> bool:
        """Whether a state depends on nothing that comes after it."""
        return True

    @property
    def state_dim(self) -> int:
        """D."""
        return self.config.dim

    @property
    def batch_spec(self) -> BatchSpec:
        """The views that the loss asks for, a target at every position."""
        return batch_spec_of(self.config, self.config.max_len)

    @abstractmethod
    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D)."""

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch, at every position."""
        states = [self.encode(view) for view in batch.views]
        return next_item_loss(states, self.item_embedding.items, batch, self.config)

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
