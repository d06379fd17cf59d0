"""Blin: causal linear attention, depthwise convolution, and two views that must agree.

After *Blin: A Multi-Task Sequence Recommendation Based on Bidirectional KL-Divergence and Linear
Attention*. Two things differ from the printed paper, on purpose:

- Its operators (Eq. 10, 11) look both ways while its loss (Eq. 15) predicts the next item at every
  position; taken together, every position sees its answer. Here both operators are causal.
- Its repeated copies of a sequence see each other, so that a copy can fetch the answer from the
  copy before. Here the segments of a batch say what may see what.

The printed operators are sound where a row is a prefix and only its next item is predicted:
``causal = false`` with ``loss_positions = "last"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Losses, View
from blin.errors import ConfigError
from blin.models.objective import AgreementConfig, next_item_loss
from blin.nn.attention.linear import EXECUTIONS, LinearAttention
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.convolution import DepthwiseConvolution
from blin.nn.dropout import Dropout
from blin.nn.embedding import ItemEmbedding, PositionEmbedding, positions_from_end
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class BlinConfig(AgreementConfig):
    """The sizes of a Blin model, and its loss.

    Attributes:
        dim: width D of embeddings and states.
        num_heads: attention heads; divides ``dim``.
        num_blocks: residual blocks.
        max_len: longest history the model sees, N.
        dropout: probability of dropping a unit, in the embedding and in every branch.
        hidden_dim: width inside the feed-forward network (Eq. 12: equal to ``dim``); 0 for ``dim``.
        activation: inside the feed-forward network: relu, gelu or silu.
        kernel_size: taps of the depthwise convolution; 0 for none.
        norm_first: normalise before each branch instead of after it.
        positions: what the position embedding counts: ``absolute`` places in the row,
            ``per-copy`` steps since the first item, ``reversed`` steps to the newest, or ``none``.
        attention: ``linear``, or ``softmax``.
        execution: of the linear attention: ``parallel``, ``chunked``, ``recurrent``, or ``auto``
            for the fastest; the numbers are the same.
        causal: whether attention and convolution look at what came before only.
        loss_positions: what is learned from: ``all`` steps of a sequence in one row, or the
            ``last`` step of a row for each prefix.
    """

    dim: int = 64
    num_heads: int = 2
    num_blocks: int = 2
    max_len: int = 50
    dropout: float = 0.5
    hidden_dim: int = 0
    activation: str = "relu"
    kernel_size: int = 3
    norm_first: bool = False
    positions: str = "absolute"
    attention: str = "linear"
    execution: str = "auto"
    causal: bool = True
    loss_positions: str = "all"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        at_least = {
            "dim": 1,
            "num_heads": 1,
            "num_blocks": 1,
            "max_len": 1,
            "hidden_dim": 0,
            "kernel_size": 0,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if self.dim % self.num_heads != 0:
            raise ConfigError(
                f"num_heads: expected a divisor of dim {self.dim}, found {self.num_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected a number in [0, 1), found {self.dropout}")
        for name, known in _CHOICES.items():
            found = getattr(self, name)
            if found not in known:
                raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
        if self.attention != "linear" and self.execution != "auto":
            raise ConfigError(
                f"execution: expected auto with {self.attention} attention, "
                f"found {self.execution!r}"
            )
        if not self.causal and self.execution == "recurrent":
            raise ConfigError("execution: expected another than recurrent with causal = false")
        if not self.causal and self.loss_positions == "all":
            raise ConfigError(
                "causal: expected true with loss_positions = all, found false: every position "
                "would see the next item, the very one it has to predict, and learn to copy it; "
                "set loss_positions = last for a row per prefix"
            )


_CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "positions": ("absolute", "per-copy", "reversed", "none"),
    "attention": ("linear", "softmax"),
    "execution": EXECUTIONS,
    "loss_positions": ("all", "last"),
}


class BlinState(NamedTuple):
    """All that :meth:`BlinModel.advance` needs of a history, however long.

    Attributes:
        length: items so far.
        blocks: the state of each block's attention.
    """

    length: int
    blocks: tuple[Any, ...]


class BlinModel(nn.Module):
    """Scores the next item from a history (Blin, Eq. 5–19).

    Args:
        num_items: V; items are 1…V.
        config: the sizes and weights.
    """

    def __init__(self, num_items: int, config: BlinConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        dim = config.dim
        self.item_embedding = ItemEmbedding(num_items, dim)
        self.position_embedding = (
            None if config.positions == "none" else PositionEmbedding(config.max_len, dim)
        )
        self.embedding_norm = nn.LayerNorm(dim)
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(dim) if config.norm_first else nn.Identity()
        self.apply(_initialise)

    def _block(self) -> Block:
        config = self.config
        local = None
        if config.kernel_size > 0:
            local = DepthwiseConvolution(config.dim, config.kernel_size, causal=config.causal)
        attention: LinearAttention | SoftmaxAttention
        if config.attention == "linear":
            attention = LinearAttention(
                config.dim,
                config.num_heads,
                causal=config.causal,
                local=local,
                execution=config.execution,
            )
        else:
            attention = SoftmaxAttention(
                config.dim, config.num_heads, causal=config.causal, local=local
            )
        return Block(
            attention,
            FeedForward(config.dim, config.hidden_dim or config.dim, activation=config.activation),
            dim=config.dim,
            dropout=config.dropout,
            norm_first=config.norm_first,
        )

    @property
    def causal(self) -> bool:
        """Whether a state depends on nothing that comes after it."""
        return self.config.causal

    @property
    def batch_spec(self) -> BatchSpec:
        """Two views when they are to agree, one otherwise."""
        config = self.config
        return BatchSpec(
            max_len=config.max_len,
            positions="per-copy" if config.positions == "per-copy" else "absolute",
            views=config.views,
            num_negatives=config.num_negatives,
            sampling=config.sampling,
            negatives_per=config.negatives_per,
            exclude_history=config.exclude_history,
            loss_positions=config.loss_positions,
        )

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D).

        With causal operators that of position i has seen items ≤ i of its segment only, otherwise
        all items of its segment.
        """
        positions = view.positions
        if self.config.positions == "reversed":
            positions = positions_from_end(view.segments)
        x = self._embed(view.items, positions)
        for block in self.blocks:
            x = block(x, view.segments)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def _embed(self, items: Tensor, positions: Tensor) -> Tensor:
        """Returns the input of the first block, (B, N) twice to (B, N, D) (Eq. 5)."""
        x = self.item_embedding(items)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        return self.embedding_dropout(self.embedding_norm(x))  # type: ignore[no-any-return]

    @property
    def recurrence_obstacle(self) -> str | None:
        """Why :meth:`advance` cannot give what :meth:`encode` gives; None where it can."""
        config = self.config
        if not config.causal:
            return "causal = false: a new item changes what the model makes of all earlier ones"
        if config.attention != "linear":
            return f"attention = {config.attention}: it needs the whole history at every step"
        if config.positions not in ("per-copy", "none"):
            return (
                f"positions = {config.positions}: they count from the newest item, so that a new "
                "item moves all earlier ones"
            )
        return None

    def advance(self, items: Tensor, state: BlinState | None) -> tuple[Tensor, BlinState]:
        """Reads the next items of histories, at a cost that does not depend on those before.

        Together with the calls before it this is one :meth:`encode` of rows that hold the whole
        histories, and positions from ``max_len`` - 1 on share the last position embedding.

        Args:
            items: (B, M) items, without padding.
            state: what the items before have left; None at the beginning.

        Returns:
            (B, M, D) states, and what is left for the items to come.

        Raises:
            ConfigError: There is a :attr:`recurrence_obstacle`.
        """
        if self.recurrence_obstacle is not None:
            raise ConfigError(self.recurrence_obstacle)
        length = 0 if state is None else state.length
        positions = torch.arange(length, length + items.shape[1], device=items.device)
        x = self._embed(items, positions.expand_as(items))
        left = []
        for number, block in enumerate(self.blocks):
            x, own = block.advance(x, None if state is None else state.blocks[number])  # type: ignore[operator]
            left.append(own)
        return self.final_norm(x), BlinState(length + items.shape[1], tuple(left))

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch of one or two views (Eq. 19)."""
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


def _initialise(module: nn.Module) -> None:
    """Draws weights from N(0, 0.02²), as the post-norm family of SASRec does; biases are 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
