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

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blin.batch import BatchSpec
from blin.config import check_at_least, check_one_of
from blin.errors import ConfigError
from blin.models.encoder import Encoder, EncoderConfig, check_even_heads
from blin.models.objective import AgreementConfig
from blin.nn.attention.blossom import BlossomAttention
from blin.nn.attention.linear import EXECUTIONS, LinearAttention
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.convolution import DepthwiseConvolution
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class BlinConfig(EncoderConfig, AgreementConfig):
    """The sizes of a Blin model, and its loss; 0 for ``hidden_dim`` is ``dim`` (Eq. 12).

    Attributes:
        activation: inside the feed-forward network: relu, gelu or silu.
        kernel_size: taps of the depthwise convolution; 0 for none.
        norm_first: normalise before each branch instead of after it.
        attention: ``linear``, ``softmax``, or ``blossom``, that of BlossomRec with keys and values
            for every head.
        execution: of the linear attention: ``parallel``, ``chunked``, ``recurrent``, or ``auto``
            for the fastest; the numbers are the same.
        causal: whether attention and convolution look at what came before only.
        loss_positions: what is learned from: ``all`` steps of a sequence in one row, or the
            ``last`` step of a row for each prefix.
    """

    activation: str = "relu"
    kernel_size: int = 3
    norm_first: bool = False
    attention: str = "linear"
    execution: str = "auto"
    causal: bool = True
    loss_positions: str = "all"

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 0, "kernel_size")
        check_one_of(
            self,
            activation=ACTIVATIONS,
            attention=("linear", "softmax", "blossom"),
            execution=EXECUTIONS,
            loss_positions=("all", "last"),
        )
        if self.attention != "linear" and self.execution != "auto":
            raise ConfigError(
                f"execution: expected auto with {self.attention} attention, "
                f"found {self.execution!r}"
            )
        if self.attention == "blossom":
            check_even_heads(self)
            if not self.causal:
                raise ConfigError("causal: expected true with blossom attention, found false")
        if not self.causal and self.execution == "recurrent":
            raise ConfigError("execution: expected another than recurrent with causal = false")
        if not self.causal and self.loss_positions == "all":
            raise ConfigError(
                "causal: expected true with loss_positions = all, found false: every position "
                "would see the next item, the very one it has to predict, and learn to copy it; "
                "set loss_positions = last for a row per prefix"
            )


class BlinState(NamedTuple):
    """All that :meth:`BlinModel.advance` needs of a history, however long.

    Attributes:
        length: items so far.
        blocks: the state of each block's attention.
    """

    length: int
    blocks: tuple[Any, ...]


class BlinModel(Encoder):
    """Scores the next item from a history (Blin, Eq. 5–19).

    Args:
        num_items: V; items are 1…V.
        config: the sizes and weights.
    """

    config: BlinConfig

    def __init__(self, num_items: int, config: BlinConfig) -> None:
        super().__init__(num_items, config, final_norm=config.norm_first)

    def _block(self) -> Block:
        config = self.config
        local = None
        if config.kernel_size > 0:
            local = DepthwiseConvolution(config.dim, config.kernel_size, causal=config.causal)
        attention: LinearAttention | SoftmaxAttention | BlossomAttention
        if config.attention == "linear":
            attention = LinearAttention(
                config.dim,
                config.num_heads,
                causal=config.causal,
                local=local,
                execution=config.execution,
            )
        elif config.attention == "softmax":
            attention = SoftmaxAttention(
                config.dim, config.num_heads, causal=config.causal, local=local
            )
        else:
            attention = BlossomAttention(
                config.dim, config.num_heads, num_kv_heads=config.num_heads, local=local
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
        """What the loss asks for, at every position or at the last of each prefix."""
        return replace(super().batch_spec, loss_positions=self.config.loss_positions)

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
