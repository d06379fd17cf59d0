"""MQSA-TED: the newest item asks, and so does the mean of the newest few.

After *Collaboration and Transition: Distilling Item Transitions into Multi-Query Self-Attention for
Sequential Recommendation* (WSDM 2024). TED is shared with other models, in
:mod:`blin.models.transitions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin.batch import View
from blin.config import check_at_least, check_probability
from blin.errors import ConfigError
from blin.models.encoder import Encoder, EncoderConfig
from blin.models.objective import AgreementConfig
from blin.nn.attention.heads import merge_heads, split_heads
from blin.nn.attention.softmax import softmax_attention
from blin.nn.dropout import Dropout
from blin.nn.feed_forward import FeedForward
from blin.nn.window import window_mean


@dataclass(frozen=True)
class MQSATEDConfig(EncoderConfig, AgreementConfig):
    """The sizes of an MQSA-TED model, and its loss; 0 for ``hidden_dim`` is ``dim``.

    Attributes:
        window: L, the items whose mean is the long query.
        alpha: the share of the short query in the scores; the long one has the rest.
        attention_dropout: probability of dropping an attention weight.
    """

    num_negatives: int = 0
    kl_weight: float = 0.0
    num_heads: int = 1
    num_blocks: int = 1
    ted_weight: float = 0.1
    window: int = 3
    alpha: float = 0.5
    attention_dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "window")
        check_probability(self, "attention_dropout")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha: expected a number in [0, 1], found {self.alpha}")


class QueryBlock(nn.Module):
    """Softmax attention that asks with a mean of its newest inputs, and a feed-forward network.

        a = LN(mean of the last L inputs),   h = LN(a + softmax(W_q a · W_k x) W_v x),
        y = h + drop(FFN(h))

    Args:
        config: the sizes.
        window: L.
    """

    def __init__(self, config: MQSATEDConfig, window: int) -> None:
        super().__init__()
        dim = config.dim
        self.window = window
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.query_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, config.hidden_dim or dim, activation="relu")
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        asking = self.query_norm(window_mean(x, segments, self.window))
        keys, values = self.key_value(x).chunk(2, dim=-1)
        attended = softmax_attention(
            split_heads(self.query(asking), self.num_heads),
            split_heads(keys, self.num_heads),
            split_heads(values, self.num_heads),
            segments,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        x = self.feed_forward_norm(asking + merge_heads(attended))
        return x + self.dropout(self.feed_forward(x))  # type: ignore[no-any-return]


class MQSATED(Encoder):
    """Scores the next item from a history.

    Two stacks of blocks read the same input and share nothing else: in one the newest item asks, in
    the other the mean of the newest L. Their scores are mixed; and as both are dot products with
    the same items, so are their states.

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
    """

    config: MQSATEDConfig

    def __init__(self, num_items: int, config: MQSATEDConfig) -> None:
        super().__init__(num_items, config, embedding_norm=False, final_norm=True)
        self.long_blocks = nn.ModuleList(
            QueryBlock(config, config.window) for _ in range(config.num_blocks)
        )
        self.long_final_norm = nn.LayerNorm(config.dim)
        self.long_blocks.apply(self._initialise)

    def _block(self) -> QueryBlock:
        return QueryBlock(self.config, 1)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Draws weights as its authors do: embeddings from N(0, 0.01²), matrices after Glorot."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def features(self, view: View) -> Iterator[Tensor]:
        """Yields the input of both stacks and what their blocks make of it, mixed, (B, N, D) each.

        After the last blocks come the mixed states.
        """
        short = long = self._embed_view(view)
        for block, long_block in zip(self.blocks, self.long_blocks, strict=True):
            yield torch.lerp(long, short, self.config.alpha)
            short = block(short, view.segments)
            long = long_block(long, view.segments)
        yield torch.lerp(self.long_final_norm(long), self.final_norm(short), self.config.alpha)

    def _embed(self, items: Tensor, positions: Tensor) -> Tensor:
        """Returns the input of both stacks, (B, N) twice to (B, N, D)."""
        x = self.item_embedding(items) * self.config.dim**0.5
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        return self.embedding_dropout(x)  # type: ignore[no-any-return]
