"""SPNN: heads that look back to different distances, and a gate that tells which of them matters.

The published design is known to us by its abstract only: times enter with the items, a layer of
semantic perception tells the importance of different temporal features apart, and a user has a
semantic code. Everything beyond that is our reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from blin.batch import BatchSpec, View
from blin.config import check_at_least, check_one_of
from blin.models.encoder import Encoder, EncoderConfig
from blin.nn.attention.spans import SpanAttention
from blin.nn.embedding import positions_from_end
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.gaps import NUM_GAPS, log_gaps
from blin.nn.transformer import Block


@dataclass(frozen=True)
class SPNNConfig(EncoderConfig):
    """The sizes of an SPNN model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        shortest_span: newest items that the first head sees; the spans of the others grow by the
            same factor from head to head, and the last one sees all ``max_len``.
        activation: inside the feed-forward network: relu, gelu or silu.
    """

    num_heads: int = 4
    shortest_span: int = 4
    activation: str = "gelu"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "shortest_span")
        check_one_of(self, activation=ACTIVATIONS)


class SPNN(Encoder):
    """Scores the next item from a history and the gaps between its items.

        x_i  = drop(norm(E[item_i] + P[position_i] + G[gap_i]))
        x    ← norm(x + drop(perceive(x))),  x ← norm(x + drop(W₂ gelu(W₁ x)))
        c_i  = W_c x_i + b_c
        score(item) = c_newest · E[item]

    The semantic code c of a user is the newest state, mapped from the space of histories to that
    of the items. It begins as the state itself.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and the loss.
    """

    config: SPNNConfig

    def __init__(self, num_items: int, config: SPNNConfig) -> None:
        super().__init__(num_items, config)
        self.gap_embedding = nn.Embedding(NUM_GAPS, config.dim)
        nn.init.normal_(self.gap_embedding.weight, std=0.02)
        self.code = nn.Linear(config.dim, config.dim)
        nn.init.eye_(self.code.weight)
        nn.init.zeros_(self.code.bias)

    def _block(self) -> Block:
        config = self.config
        dim = config.dim
        return Block(
            SpanAttention(dim, config.num_heads, config.max_len, shortest=config.shortest_span),
            FeedForward(dim, config.hidden_dim or 4 * dim, activation=config.activation),
            dim=dim,
            dropout=config.dropout,
            norm_first=False,
        )

    @property
    def batch_spec(self) -> BatchSpec:
        """One view with its times, a target at every position."""
        return replace(super().batch_spec, times=True)

    def _output(self, x: Tensor) -> Tensor:
        """Returns the codes, (B, N, D), from what the last block returns."""
        return self.code(super()._output(x))  # type: ignore[no-any-return]

    def _embed_view(self, view: View) -> Tensor:
        """Returns the input of the first block, (B, N, D).

        A view without times is taken for one with equal gaps.
        """
        x = self.item_embedding(view.items)
        if self.position_embedding is not None:
            positions = view.positions
            if self.config.positions == "reversed":
                positions = positions_from_end(view.segments, view.copies)
            x = x + self.position_embedding(positions)
        x = x + self.gap_embedding(log_gaps(view.times, view.segments))
        return self.embedding_dropout(self.embedding_norm(x))  # type: ignore[no-any-return]
