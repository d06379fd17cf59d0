"""eSASRec: SASRec with gated residuals, a gated feed-forward network and many negatives.

After *eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion* (RecSys 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from blin.batch import Batch, Losses
from blin.config import added, check_probability
from blin.models.encoder import Encoder, EncoderConfig
from blin.models.objective import next_item_loss
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.dropout import Dropout
from blin.nn.feed_forward import SwiGLU
from blin.nn.ligr import LiGRBlock


@dataclass(frozen=True)
class ESASRecConfig(EncoderConfig):
    """The sizes of an eSASRec model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        attention_dropout: probability of dropping an attention weight.
        item_dropout: probability of dropping a number of an item's embedding, where it stands in a
            history and where it is scored.
    """

    num_negatives: int = 256
    negatives_per: str = "position"
    num_heads: int = 1
    num_blocks: int = 1
    dropout: float = 0.2
    positions: str = "reversed"
    attention_dropout: float = 0.2
    item_dropout: float = added(0.2, before=0.0)

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_probability(self, "attention_dropout", "item_dropout")


class ESASRec(Encoder):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
    """

    config: ESASRecConfig

    def __init__(self, num_items: int, config: ESASRecConfig) -> None:
        super().__init__(num_items, config, embedding_norm=False)
        self.item_dropout = Dropout(config.item_dropout)

    def _block(self) -> LiGRBlock:
        config = self.config
        dim, dropout = config.dim, config.dropout
        return LiGRBlock(
            SoftmaxAttention(dim, config.num_heads, dropout=config.attention_dropout),
            SwiGLU(dim, config.hidden_dim or 4 * dim, dropout=dropout),
            dim=dim,
            dropout=dropout,
        )

    def _embed_items(self, items: Tensor) -> Tensor:
        return self.item_dropout(super()._embed_items(items))  # type: ignore[no-any-return]

    def _losses(self, batch: Batch, states: Sequence[Tensor]) -> Losses:
        """Returns the loss of a batch, against items that each miss some of their numbers."""
        table = self.item_dropout(self.item_embedding.items)
        return next_item_loss(states, table, batch, self.config)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Draws weights from N(0, 2 / (inputs + outputs)), as its authors do; biases are 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.xavier_normal_(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
