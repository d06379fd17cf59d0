"""eSASRec: SASRec with gated residuals, a gated feed-forward network and many negatives.

After *eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion* (RecSys 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from blin.config import check_probability
from blin.models.encoder import Encoder, EncoderConfig
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.feed_forward import SwiGLU
from blin.nn.ligr import LiGRBlock


@dataclass(frozen=True)
class ESASRecConfig(EncoderConfig):
    """The sizes of an eSASRec model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        attention_dropout: probability of dropping an attention weight.
    """

    num_negatives: int = 256
    negatives_per: str = "position"
    num_heads: int = 1
    num_blocks: int = 1
    dropout: float = 0.2
    positions: str = "reversed"
    attention_dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_probability(self, "attention_dropout")


class ESASRec(Encoder):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
    """

    config: ESASRecConfig

    def __init__(self, num_items: int, config: ESASRecConfig) -> None:
        super().__init__(num_items, config, embedding_norm=False)

    def _block(self) -> LiGRBlock:
        config = self.config
        dim, dropout = config.dim, config.dropout
        return LiGRBlock(
            SoftmaxAttention(dim, config.num_heads, dropout=config.attention_dropout),
            SwiGLU(dim, config.hidden_dim or 4 * dim, dropout=dropout),
            dim=dim,
            dropout=dropout,
        )

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Draws weights from N(0, 2 / (inputs + outputs)), as its authors do; biases are 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.xavier_normal_(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
