"""BERT4Rec: attention that looks both ways fills in items that were hidden from it.

After *BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer* (Sun et al., CIKM 2019). A state may see everything around it, so that the next item
cannot be learned at every position. Instead some items of a sequence are hidden behind a mask token
and told from the others (Cloze task). To recommend, a mask token is put after the history.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from blin.batch import Batch, Losses, View
from blin.config import check_one_of, check_probability
from blin.errors import ConfigError
from blin.models.encoder import Encoder, EncoderConfig
from blin.models.objective import next_item_loss
from blin.nn.attention.softmax import SoftmaxAttention
from blin.nn.embedding import append_bias
from blin.nn.feed_forward import ACTIVATIONS, FeedForward
from blin.nn.transformer import Block


@dataclass(frozen=True)
class BERT4RecConfig(EncoderConfig):
    """The sizes of a BERT4Rec model, and its loss; 0 for ``hidden_dim`` is 4 times ``dim``.

    Attributes:
        activation: inside the feed-forward network: relu, gelu or silu.
        attention_dropout: probability of dropping an attention weight.
        mask_prob: probability of hiding an item.
        last_mask_prob: probability that of a sequence the last item is hidden, and no other.
    """

    num_negatives: int = 0
    activation: str = "gelu"
    attention_dropout: float = 0.2
    mask_prob: float = 0.6
    last_mask_prob: float = 0.1

    def __post_init__(self) -> None:
        """Refuses values that no model can be built from."""
        super().__post_init__()
        check_probability(self, "attention_dropout")
        check_one_of(self, activation=ACTIVATIONS)
        for name in ("mask_prob", "last_mask_prob"):
            if not 0 <= getattr(self, name) <= 1:
                found = getattr(self, name)
                raise ConfigError(f"{name}: expected a number in [0, 1], found {found}")


class BERT4Rec(Encoder):
    """Scores a hidden item from the items around it.

    Args:
        num_items: V; items are 1…V, and V + 1 is the mask token.
        config: the sizes and the loss.
    """

    config: BERT4RecConfig

    def __init__(self, num_items: int, config: BERT4RecConfig) -> None:
        # The mask token stands after a history, at a position of its own.
        super().__init__(num_items, replace(config, max_len=config.max_len + 1), tokens=1)
        self.config = config
        self.transform = nn.Sequential(
            nn.Linear(config.dim, config.dim), nn.GELU(), nn.LayerNorm(config.dim)
        )
        nn.init.normal_(self.transform[0].weight, std=0.02)  # type: ignore[arg-type]
        nn.init.zeros_(self.transform[0].bias)  # type: ignore[arg-type]
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1))

    def _block(self) -> Block:
        config = self.config
        dim = config.dim
        return Block(
            SoftmaxAttention(dim, config.num_heads, causal=False, dropout=config.attention_dropout),
            FeedForward(dim, config.hidden_dim or 4 * dim, activation=config.activation),
            dim=dim,
            dropout=config.dropout,
            norm_first=False,
        )

    @property
    def causal(self) -> bool:
        """False: a state has seen all of its segment."""
        return False

    @property
    def learns_from_states(self) -> bool:
        """False: what it learns from has hidden items."""
        return False

    @property
    def mask_token(self) -> int:
        """What stands in the place of a hidden item."""
        return self.num_items + 1

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch: items are drawn to be hidden, and predicted."""
        return self._with_ted(batch, self._cloze(batch))

    def _cloze(self, batch: Batch) -> Losses:
        """Returns the loss of the hidden items."""
        view = whole_sequences(batch.views[0], len(batch.step_users))
        hidden = self._draw(view)
        states = self.encode(replace(view, items=view.items.masked_fill(hidden, self.mask_token)))
        # The steps of first items are numbered after all others.
        own = batch.negatives.dim() > 1
        asked = replace(
            batch,
            views=(_at(view, hidden),),
            negatives=torch.cat([batch.negatives] * 2, dim=-2) if own else batch.negatives,
            log_q=torch.cat([batch.log_q] * 2, dim=-2) if own else batch.log_q,
            step_users=torch.cat([batch.step_users] * 2),
        )
        outputs = self.transform(states[hidden]).unsqueeze(0)
        outputs, table = append_bias(outputs, self.item_embedding.items, self.item_bias)
        return next_item_loss([outputs], table, asked, self.config)

    def _draw(self, view: View) -> Tensor:
        """Returns which items of whole sequences to hide, (B, W) booleans, at least one of each.

        Of a sequence of which none was drawn, the last is hidden.
        """
        real = view.segments > 0
        begins = _begins(view)[real]
        ends = torch.ones_like(begins)
        ends[:-1] = begins[1:]
        owners = begins.cumsum(0) - 1
        drawn = torch.rand(len(begins), device=real.device) < self.config.mask_prob
        count = int(begins.sum())
        last = torch.rand(count, device=real.device) < self.config.last_mask_prob
        last |= torch.bincount(owners[drawn], minlength=count) == 0
        hidden = torch.zeros_like(real)
        hidden[real] = torch.where(last[owners], ends, drawn)
        return hidden

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns the scores of the next item, a mask token, after each row's last position.

        Args:
            batch: its first view holds the histories.
            candidates: (B, K) items; None for the whole catalogue.

        Returns:
            (B, V + 1), or (B, K) for the candidates; column 0 of the former is padding's.
        """
        states = self.encode(self._with_mask(batch.views[0]))[:, -1]  # (B, D)
        outputs = self.transform(states)
        bias = self.item_bias if candidates is None else self.item_bias[candidates]
        return self.item_embedding.score(outputs, candidates) + bias

    def _with_mask(self, view: View) -> View:
        """Returns histories with a mask token after their last position, which is all it needs."""
        none = view.segments[:, -1:] == 0
        first = 0 if self.config.positions == "per-copy" else self.config.max_len
        place = torch.where(none, first, view.positions[:, -1:] + 1)
        mask = torch.full_like(view.items[:, :1], self.mask_token)
        return replace(
            view,
            items=torch.cat([view.items, mask], dim=1),
            segments=torch.cat([view.segments, view.segments[:, -1:].clamp(min=1)], dim=1),
            positions=torch.cat([view.positions, place], dim=1),
            copies=torch.cat([view.copies, view.copies[:, -1:].clamp(min=1)], dim=1),
        )


def whole_sequences(view: View, steps: int) -> View:
    """Returns the copies of a view with all their items: the first input and every target.

    Each takes a position more than in the view, so that rows grow by as many as they hold copies.

    Args:
        view: (B, N), to learn from.
        steps: T, the number of steps of its batch.

    Returns:
        (B, W), in which each item is its own target. The step of an item is the one whose target it
        is; that of a copy's first item is T + the number of the copy's first step.
    """
    real, begins = view.segments > 0, _begins(view)
    batch, n = view.items.shape
    ordinal = begins.cumsum(1)
    width = n + (int(ordinal.max()) if ordinal.numel() > 0 else 0)
    places = torch.arange(n, device=real.device) + ordinal
    places = places + width * torch.arange(batch, device=real.device).unsqueeze(1)

    def lay(first: Tensor, rest: Tensor, nothing: int = 0) -> Tensor:
        whole = rest.new_full((batch * width,), nothing)
        whole[places[real]] = rest[real]
        whole[places[begins] - 1] = first[begins]
        return whole.view(batch, width)

    items = lay(view.items, view.targets)
    return View(
        items=items,
        targets=items,
        segments=lay(view.segments, view.segments),
        positions=lay(view.positions, view.positions + 1),
        copies=lay(view.copies, view.copies),
        steps=lay(view.steps + steps, view.steps, -1),
        weights=None if view.weights is None else lay(view.weights, view.weights),
    )


def _begins(view: View) -> Tensor:
    """Returns where the copies of sequences begin, (B, N) booleans."""
    changes = torch.ones_like(view.segments, dtype=torch.bool)
    changes[:, 1:] = (view.segments[:, 1:] != view.segments[:, :-1]) | (
        view.copies[:, 1:] != view.copies[:, :-1]
    )
    return changes & (view.segments > 0)


def _at(view: View, places: Tensor) -> View:
    """Returns some positions of a view, (B, N) booleans, as one row."""
    parts: dict[str, Any] = {field.name: getattr(view, field.name) for field in fields(view)}
    return View(
        **{name: part[places].unsqueeze(0) for name, part in parts.items() if part is not None}
    )
