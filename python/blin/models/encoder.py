"""What models in the manner of SASRec share: a history becomes states, and states become scores.

They differ in their blocks and in what they learn from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Interactions, Losses, View
from blin.config import check_at_least, check_one_of
from blin.errors import BlinError, ConfigError
from blin.models.next_item import NextItemConfig, NextItemModel
from blin.models.objective import next_item_loss
from blin.models.transitions import Transitions, count_transitions, distillation_loss
from blin.nn.dropout import Dropout
from blin.nn.embedding import PositionEmbedding, positions_from_end
from blin.nn.spectral import spectral_vectors

POSITIONS = ("absolute", "per-copy", "reversed", "none")


@dataclass(frozen=True)
class EncoderConfig(NextItemConfig):
    """The sizes of an encoder, and its loss; ``dropout`` is in the embedding and in every branch.

    Attributes:
        num_heads: attention heads; divides ``dim``.
        num_blocks: residual blocks.
        hidden_dim: width inside the feed-forward network; 0 for what the model makes of ``dim``.
        positions: what the position embedding counts: ``absolute`` places in the row,
            ``per-copy`` steps since the first item, ``reversed`` steps to the newest, or ``none``.
        spectral_span: where item embeddings begin: where items met within so many steps of each
            other are alike; 0 to draw them all.
        ted_weight: of TED, which teaches the item embeddings what follows what; 0 for none.
        ted_span: an item follows another if it comes so many steps after it, or fewer.
        ted_temperature: τ of TED.
        ted_inputs: what TED compares in a step: so many of the inputs, drawn; 0 for all.
    """

    repeated: ClassVar[tuple[str, ...]] = ("num_blocks",)

    num_heads: int = 2
    num_blocks: int = 2
    hidden_dim: int = 0
    positions: str = "absolute"
    spectral_span: int = 0
    ted_weight: float = 0.0
    ted_span: int = 1
    ted_temperature: float = 0.1
    ted_inputs: int = 0

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_at_least(self, 1, "num_heads", "num_blocks", "ted_span")
        check_at_least(self, 0, "hidden_dim", "spectral_span", "ted_weight", "ted_inputs")
        if self.dim % self.num_heads != 0:
            raise ConfigError(
                f"num_heads: expected a divisor of dim {self.dim}, found {self.num_heads}"
            )
        check_one_of(self, positions=POSITIONS)
        if self.ted_temperature <= 0:
            raise ConfigError(f"ted_temperature: expected above 0, found {self.ted_temperature}")


def check_even_heads(config: EncoderConfig) -> None:
    """Raises ConfigError unless the width of a head can be rotated, pair by pair."""
    if config.dim % (2 * config.num_heads) != 0:
        width = config.dim // config.num_heads
        raise ConfigError(f"num_heads: expected heads of an even width, found a width of {width}")


class Encoder(NextItemModel):
    """Embeds items and positions, passes them through blocks, and scores by a tied dot product.

    Args:
        num_items: V; items are 1…V.
        config: the sizes.
        tokens: how many inputs there are that are no items, V + 1…V + tokens.
        embedding_norm: normalise the sum of the embeddings.
        final_norm: normalise the output of the last block.
    """

    config: EncoderConfig

    def __init__(
        self,
        num_items: int,
        config: EncoderConfig,
        *,
        tokens: int = 0,
        embedding_norm: bool = True,
        final_norm: bool = False,
    ) -> None:
        super().__init__(num_items, config, tokens=tokens)
        dim = config.dim
        self.position_embedding = (
            None if config.positions == "none" else PositionEmbedding(config.max_len, dim)
        )
        self.embedding_norm = nn.LayerNorm(dim) if embedding_norm else nn.Identity()
        self.embedding_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(dim) if final_norm else nn.Identity()
        self.apply(self._initialise)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        # No weights, and not saved: the training data have it, and scores do not need it.
        self._transitions: Transitions | None = None

    @abstractmethod
    def _block(self) -> nn.Module:
        """Returns a module (x (B, N, D), segments (B, N)) → (B, N, D)."""

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        """Draws weights from N(0, 0.02²), as the post-norm family of SASRec does; biases are 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def batch_spec(self) -> BatchSpec:
        """The views that the loss asks for, a target at every position."""
        positions = "per-copy" if self.config.positions == "per-copy" else "absolute"
        return replace(super().batch_spec, positions=positions)

    @property
    def learns_from_states(self) -> bool:
        """Whether :meth:`forward` asks for nothing but what :meth:`encode` makes of each view."""
        return True

    @property
    def needs_interactions(self) -> bool:
        """Whether :meth:`inform` must come before the first loss.

        It must where there is TED, or where item embeddings begin with what is met with what.
        """
        return self.config.ted_weight > 0 or self.config.spectral_span > 0

    def inform(self, interactions: Interactions) -> None:
        """Counts what follows what in all training sequences, and begins with it."""
        config = self.config
        if config.ted_weight > 0:
            transitions = Transitions.of(
                interactions, num_items=self.num_items, span=config.ted_span
            )
            self._transitions = transitions.to(self.item_embedding.weight.device)
        if config.spectral_span > 0:
            pairs = count_transitions(
                interactions, num_items=self.num_items, span=config.spectral_span
            )
            self._turn_to(spectral_vectors(*pairs, dim=config.dim))

    @torch.no_grad()
    def _turn_to(self, directions: Tensor) -> None:
        """Gives item embeddings other directions, (V + 1, D) of length 1 or 0, at their length.

        An item whose direction is 0 keeps its own.
        """
        table = self.item_embedding.items
        turned = directions.to(table) * table.norm(dim=1, keepdim=True)
        table.copy_(torch.where(turned.any(1, keepdim=True), turned, table))

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, D).

        Where the model is causal, that of position i has seen items ≤ i of its segment only,
        otherwise all items of its segment.
        """
        return deque(self.features(view), maxlen=1).pop()

    def features(self, view: View) -> Iterator[Tensor]:
        """Yields the input of the first block and what each block makes of it, (B, N, D) each.

        After the last block come the states that :meth:`encode` returns.
        """
        x = self._embed_view(view)
        for block in self.blocks:
            yield x
            x = block(x, view.segments)
        yield self._output(x)

    def _output(self, x: Tensor) -> Tensor:
        """Returns the states, (B, N, D), from what the last block returns."""
        return self.final_norm(x)  # type: ignore[no-any-return]

    def _embed_view(self, view: View) -> Tensor:
        """Returns the input of the first block, (B, N, D)."""
        positions = view.positions
        if self.config.positions == "reversed":
            positions = positions_from_end(view.segments, view.copies)
        return self._embed(view.items, positions)

    def _embed(self, items: Tensor, positions: Tensor) -> Tensor:
        """Returns the input of the first block, (B, N) twice to (B, N, D)."""
        x = self._embed_items(items)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        return self.embedding_dropout(self.embedding_norm(x))  # type: ignore[no-any-return]

    def _embed_items(self, items: Tensor) -> Tensor:
        """Returns what stands for items in a history, (B, N) to (B, N, D)."""
        return self.item_embedding(items)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch.

        Raises:
            BlinError: There is TED, and nobody has called :meth:`inform`.
        """
        return self.losses(batch, [self.encode(view) for view in batch.views])

    def losses(self, batch: Batch, states: Sequence[Tensor]) -> Losses:
        """Returns the loss of a batch whose views have the given states.

        Args:
            batch: the batch.
            states: what :meth:`encode` returned for each of its views.

        Raises:
            BlinError: There is TED, and nobody has called :meth:`inform`.
        """
        return self._with_ted(batch, self._losses(batch, states))

    def _losses(self, batch: Batch, states: Sequence[Tensor]) -> Losses:
        """Returns the loss of a batch without TED."""
        return next_item_loss(states, self.item_embedding.items, batch, self.config)

    def _with_ted(self, batch: Batch, losses: Losses) -> Losses:
        """Adds TED, where there is any, to the loss of a batch."""
        config = self.config
        if config.ted_weight == 0:
            return losses
        if self._transitions is None:
            raise BlinError("ted_weight: expected 0, or a model that was given the interactions")
        distillation = distillation_loss(
            self.item_embedding.items,
            torch.cat([view.items[view.items > 0] for view in batch.views]),
            self._transitions,
            temperature=config.ted_temperature,
            dropout=self.embedding_dropout,
            most=config.ted_inputs,
        )
        return Losses(
            losses.total + config.ted_weight * distillation,
            losses.parts | {"ted": distillation.detach()},
        )
