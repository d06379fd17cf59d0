"""SASRec: causal softmax attention over a history.

After *Self-Attentive Sequential Recommendation* (Kang and McAuley, ICDM 2018), in the post-norm
form that S3-Rec, RepPad and most of its successors compare themselves with.
"""

from __future__ import annotations

from dataclasses import dataclass

from blin.config import check_one_of, check_probability
from blin.models.encoder import Encoder, EncoderConfig
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class SASRecConfig(EncoderConfig):
    """The sizes of a SASRec model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        activation: inside the feed-forward network: relu, gelu or silu.
        norm_first: normalise before each branch instead of after it.
        attention_dropout: probability of dropping an attention weight.
    """

    loss: str = "bce"
    num_negatives: int = 1
    negatives_per: str = "position"
    exclude_history: bool = True
    activation: str = "gelu"
    norm_first: bool = False
    attention_dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_probability(self, "attention_dropout")
        check_one_of(self, activation=ACTIVATIONS)


class SASRec(Encoder):
    """Scores the next item from a history (SASRec, section III).

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
        tokens: how many inputs there are that are no items, V + 1…V + tokens.
    """

    config: SASRecConfig

    def __init__(self, num_items: int, config: SASRecConfig, *, tokens: int = 0) -> None:
        super().__init__(num_items, config, tokens=tokens, final_norm=config.norm_first)

    def _block(self) -> Block:
        config = self.config
        dim = config.dim
        return Block(
            SoftmaxAttention(dim, config.num_heads, dropout=config.attention_dropout),
            FeedForward(dim, config.hidden_dim or 4 * dim, activation=config.activation),
            dim=dim,
            dropout=config.dropout,
            norm_first=config.norm_first,
        )
