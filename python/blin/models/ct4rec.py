"""CT4Rec: SASRec whose two passes must agree, in what they predict and in what they find alike.

After *CT4Rec: Simple yet Effective Consistency Training for Sequential Recommendation* (KDD 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blin.batch import Batch, Losses, View
from blin.config import check_at_least
from blin.losses import MASKED
from blin.models.objective import AgreementConfig
from blin.models.sasrec import SASRec, SASRecConfig

SCALE = 5.0
"""What the cosines are multiplied with before they become probabilities."""

STATES = 2048
"""States that are compared with each other in a step, at most; their pairs bound the memory."""


@dataclass(frozen=True)
class CT4RecConfig(SASRecConfig, AgreementConfig):
    """The sizes of a CT4Rec model, and its loss.

    Attributes:
        similarity_weight: of the divergence between the two views' similarities of the states.
    """

    loss: str = "softmax"
    num_negatives: int = 50
    kl_weight: float = 1.0
    similarity_weight: float = 5.0

    def __post_init__(self) -> None:
        """Refuses values that make no loss."""
        super().__post_init__()
        check_at_least(self, 0, "similarity_weight")

    @property
    def views(self) -> int:
        """Two views when they are to agree in anything, one otherwise."""
        return 2 if self.kl_weight > 0 or self.similarity_weight > 0 else 1


class CT4Rec(SASRec):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V.
        config: the sizes and weights.
    """

    config: CT4RecConfig

    def _losses(self, batch: Batch, states: Sequence[Tensor]) -> Losses:
        """Returns the loss of a batch: of the sequences, and of both disagreements."""
        losses = super()._losses(batch, states)
        if self.config.similarity_weight == 0:
            return losses
        divergence = similarity_divergence(*_same_steps(batch.views, states))
        return Losses(
            losses.total + self.config.similarity_weight * divergence,
            losses.parts | {"similarity": divergence.detach()},
        )


def similarity_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Returns how much two views of the same T states disagree on which of them are alike.

    With P_v,i the softmax of 5 cos(h_v,i, h_v,j) over the other states j ≠ i of view v:

        ½ mean_i [ KL(P_1,i ‖ P_2,i) + KL(P_2,i ‖ P_1,i) ]

    Args:
        first: (T, D).
        second: (T, D).

    Returns:
        A scalar, 0 where there are fewer than two states.
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    with torch.autocast(device_type=first.device.type, enabled=False):
        logs = []
        for states in (first, second):
            unit = torch.nn.functional.normalize(states.to(dtype), dim=-1)
            cosines = (unit @ unit.t()).masked_fill(own, MASKED)
            logs.append(torch.log_softmax(SCALE * cosines, dim=-1))
        gap = logs[0] - logs[1]
        drift = ((logs[0].exp() - logs[1].exp()) * gap).sum()
        return 0.5 * drift / max(1, len(first))


def _same_steps(views: tuple[View, ...], states: Sequence[Tensor]) -> list[Tensor]:
    """Returns the states of two views, (T, D) each, at the newest copies of steps that both hold.

    Where there are more than ``STATES`` such steps, some are drawn.
    """
    places = [view.newest & (view.targets > 0) for view in views]
    steps = [view.steps[here] for view, here in zip(views, places, strict=True)]  # rising
    shared = [torch.isin(own, other) for own, other in (steps, steps[::-1])]
    count = int(shared[0].sum())
    kept = torch.arange(count) if count <= STATES else torch.randperm(count)[:STATES]
    kept = kept.to(states[0].device)
    return [
        state[here][both][kept] for state, here, both in zip(states, places, shared, strict=True)
    ]
