"""BlossomRec: a sparse attention for what lasts and one for what is recent, mixed by a gate.

After *BlossomRec: Block-level Fused Sparse Attention Mechanism for Sequential Recommendations* (Ma
et al., WWW 2026).
"""

from __future__ import annotations

from dataclasses import dataclass

from blin.config import check_at_least, check_one_of
from blin.errors import ConfigError
from blin.models.encoder import Encoder, EncoderConfig, check_even_heads
from blin.nn.attention.blossom import BLOCK_SIZE, CHOSEN_BLOCKS, WINDOW, BlossomAttention
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class BlossomRecConfig(EncoderConfig):
    """The sizes of a BlossomRec model, and its loss; 0 for ``hidden_dim`` is 2 times ``dim``.

    Attributes:
        num_kv_heads: heads of keys and values; divides ``num_heads``.
        block_size: positions in a block of the past.
        chosen_blocks: blocks of the past that a position may choose.
        window: newest positions that the short path sees without a gap.
        activation: inside the feed-forward network: relu, gelu or silu.
    """

    num_negatives: int = 0
    num_heads: int = 4
    dropout: float = 0.2
    positions: str = "none"
    num_kv_heads: int = 2
    block_size: int = BLOCK_SIZE
    chosen_blocks: int = CHOSEN_BLOCKS
    window: int = WINDOW
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "num_kv_heads", "block_size", "chosen_blocks", "window")
        check_one_of(self, activation=ACTIVATIONS)
        check_even_heads(self)
        if self.num_heads % self.num_kv_heads != 0:
            raise ConfigError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, "
                f"found {self.num_kv_heads}"
            )


class BlossomRec(Encoder):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    config: BlossomRecConfig

    def __init__(self, num_items: int, config: BlossomRecConfig) -> None:
        super().__init__(num_items, config)

    def _block(self) -> Block:
        config = self.config
        dim = config.dim
        return Block(
            BlossomAttention(
                dim,
                config.num_heads,
                num_kv_heads=config.num_kv_heads,
                block_size=config.block_size,
                chosen_blocks=config.chosen_blocks,
                window=config.window,
            ),
            FeedForward(dim, config.hidden_dim or 2 * dim, activation=config.activation),
            dim=dim,
            dropout=config.dropout,
            norm_first=False,
        )
