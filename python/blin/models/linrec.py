"""LinRec: attention that is linear in the length of the history, and looks both ways.

After *LinRec: Linear Attention Mechanism for Long-term Sequential Recommender Systems* (Liu et al.,
SIGIR 2023): the blocks of SASRec around another attention. A state sees its own successor, which is
why a row holds a prefix of a sequence and only its next item is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from blin.batch import BatchSpec
from blin.config import check_one_of
from blin.errors import ConfigError
from blin.models.encoder import Encoder, EncoderConfig
from blin.nn.attention.linrec import LinRecAttention
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class LinRecConfig(EncoderConfig):
    """The sizes of a LinRec model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        activation: inside the feed-forward network: relu, gelu or silu.
        causal: look at what came before only: another model than the paper's.
        loss_positions: what is learned from: the ``last`` step of a row for each prefix, or ``all``
            steps of a sequence in one row, if the model is causal.
    """

    num_negatives: int = 0
    num_heads: int = 4
    dropout: float = 0.2
    activation: str = "gelu"
    causal: bool = False
    loss_positions: str = "last"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_one_of(self, activation=ACTIVATIONS, loss_positions=("all", "last"))
        if not self.causal and self.loss_positions == "all":
            raise ConfigError(
                "loss_positions: expected last with causal = false, found all: every position "
                "would see the next item, the very one it has to predict, and learn to copy it"
            )


class LinRec(Encoder):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    config: LinRecConfig

    def __init__(self, num_items: int, config: LinRecConfig) -> None:
        super().__init__(num_items, config)

    def _block(self) -> Block:
        config = self.config
        dim = config.dim
        return Block(
            LinRecAttention(dim, config.num_heads, causal=config.causal),
            FeedForward(dim, config.hidden_dim or 4 * dim, activation=config.activation),
            dim=dim,
            dropout=config.dropout,
            norm_first=False,
        )

    @property
    def causal(self) -> bool:
        """Whether a state depends on nothing that comes after it."""
        return self.config.causal

    @property
    def batch_spec(self) -> BatchSpec:
        """One view, of prefixes unless the model is causal and told otherwise."""
        return replace(super().batch_spec, loss_positions=self.config.loss_positions)
