"""CL4SRec: SASRec that also learns to tell users apart by two changed copies of their histories.

After *Contrastive Learning for Sequential Recommendation* (Xie et al., ICDE 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blin.batch import Augmentation, Batch, BatchSpec, Losses, View
from blin.config import check_at_least
from blin.errors import ConfigError
from blin.models.sasrec import SASRec, SASRecConfig


@dataclass(frozen=True)
class CL4SRecConfig(SASRecConfig):
    """The sizes of a CL4SRec model, and its loss.

    Attributes:
        contrast_weight: of the contrastive loss.
        temperature: what the products of two users' vectors are divided by.
        crop_ratio: how much of a history cropping keeps; 0 for no cropping.
        mask_ratio: how much of a history masking hides; 0 for no masking.
        reorder_ratio: how much of a history reordering shuffles; 0 for no reordering.
    """

    loss: str = "softmax"
    num_negatives: int = 1024
    negatives_per: str = "batch"
    exclude_history: bool = False
    contrast_weight: float = 0.1
    temperature: float = 1.0
    crop_ratio: float = 0.6
    mask_ratio: float = 0.3
    reorder_ratio: float = 0.6

    def __post_init__(self) -> None:
        """Refuses values that make no loss."""
        super().__post_init__()
        check_at_least(self, 0, "contrast_weight")
        if self.temperature <= 0:
            raise ConfigError(f"temperature: expected above 0, found {self.temperature}")
        for name in ("crop_ratio", "mask_ratio", "reorder_ratio"):
            found = getattr(self, name)
            if not 0 <= found <= 1:
                raise ConfigError(f"{name}: expected a number in [0, 1], found {found}")
        if self.contrast_weight > 0 and not self.augmentations:
            raise ConfigError(
                "contrast_weight: expected 0 where crop_ratio, mask_ratio and reorder_ratio are 0, "
                f"found {self.contrast_weight}"
            )

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The operators that histories are changed by."""
        ratios = {
            "crop": self.crop_ratio,
            "mask": self.mask_ratio,
            "reorder": self.reorder_ratio,
        }
        return tuple(Augmentation(name, ratio) for name, ratio in ratios.items() if ratio > 0)


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
        contrasts = self.config.contrast_weight > 0
        augmentations = self.config.augmentations if contrasts else ()
        return replace(super().batch_spec, augmentations=augmentations)

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch: of the next items, and of the contrast of the users."""
        losses = super().forward(batch)
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
        own = torch.eye(len(products), dtype=torch.bool, device=products.device)
        partner = torch.cat([users + len(users), users])
        total = torch.nn.functional.cross_entropy(
            products.masked_fill(own, -torch.inf), partner, reduction="sum"
        )
        return total / max(1, len(products))
