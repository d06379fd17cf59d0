"""CL4SRec: SASRec that also learns to tell users apart by two changed copies of their histories.

After *Contrastive Learning for Sequential Recommendation* (Xie et al., ICDE 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blin.batch import Batch, BatchSpec, Losses, View
from blin.models.contrast import ContrastConfig, info_nce
from blin.models.sasrec import SASRec, SASRecConfig


@dataclass(frozen=True)
class CL4SRecConfig(SASRecConfig, ContrastConfig):
    """The sizes of a CL4SRec model, and its loss."""

    loss: str = "softmax"
    num_negatives: int = 1024
    negatives_per: str = "batch"
    exclude_history: bool = False

    def __post_init__(self) -> None:
        """Refuses values that make no loss."""
        super().__post_init__()
        self.check_contrast()


class CL4SRec(SASRec):
    """Scores the next item from a history.

    Args:
        num_items: V; items are 1…V, and V + 1 is the mask.
        config: the sizes and weights.
    """

    config: CL4SRecConfig

    def __init__(self, num_items: int, config: CL4SRecConfig) -> None:
        super().__init__(num_items, config, tokens=1)

    @property
    def batch_spec(self) -> BatchSpec:
        """One view to learn the next items from, and two augmented ones to tell users apart."""
        return replace(super().batch_spec, augmentations=self.config.augmentations)

    def _losses(self, batch: Batch, states: Sequence[Tensor]) -> Losses:
        """Returns the loss of a batch: of the next items, and of the contrast of the users."""
        losses = super()._losses(batch, states)
        if not batch.augmented:
            return losses
        vectors = [self._newest(view) for view in batch.augmented]
        contrast = contrastive_loss(*vectors, temperature=self.config.temperature)
        return Losses(
            losses.total + self.config.contrast_weight * contrast,
            losses.parts | {"contrast": contrast.detach()},
        )

    def _newest(self, view: View) -> Tensor:
        """Returns the state at the end of each segment of a view, (U, D) for one segment a user."""
        following = torch.nn.functional.pad(view.segments[:, 1:], (0, 1))
        return self.encode(view)[(view.segments > 0) & (view.segments != following)]


def contrastive_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Returns how badly each vector finds the other one of its user among all others.

        - mean_i log( exp(z_i · z_i' / τ) / Σ_{j ≠ i} exp(z_i · z_j / τ) )

    where i and j run over all 2 U vectors and i' is the other vector of the user of i.

    Args:
        first: (U, D), a vector of each user.
        second: (U, D), another.
        temperature: τ.

    Returns:
        A scalar, 0 for fewer than two users.
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    users = torch.arange(len(first), device=first.device)
    with torch.autocast(device_type=first.device.type, enabled=False):
        vectors = torch.cat([first, second]).to(dtype)
        products = vectors @ vectors.t() / temperature
        return info_nce(products, torch.cat([users + len(users), users]))
