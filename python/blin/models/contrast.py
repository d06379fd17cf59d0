"""What models share that tell users apart by two augmented views of each history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blin.batch import Augmentation
from blin.config import check_at_least
from blin.errors import ConfigError

_OPERATORS = ("crop", "mask", "reorder")


@dataclass(frozen=True)
class ContrastConfig:
    """How histories are changed, and how much telling them apart weighs.

    Attributes:
        contrast_weight: of the contrastive loss; 0 for no augmented views.
        temperature: τ, what similarities are divided by.
        crop_ratio: share of a history that cropping keeps; 0 for no cropping.
        mask_ratio: share that masking hides; 0 for no masking.
        reorder_ratio: share that reordering shuffles; 0 for no reordering.
    """

    contrast_weight: float = 0.1
    temperature: float = 1.0
    crop_ratio: float = 0.6
    mask_ratio: float = 0.3
    reorder_ratio: float = 0.6

    def check_contrast(self) -> None:
        """Raises ConfigError for values that make no loss."""
        check_at_least(self, 0, "contrast_weight")
        if not self.temperature > 0:
            raise ConfigError(f"temperature: expected above 0, found {self.temperature}")
        for name in _OPERATORS:
            found = getattr(self, f"{name}_ratio")
            if not 0 <= found <= 1:
                raise ConfigError(f"{name}_ratio: expected a number in [0, 1], found {found}")
        if self.contrast_weight > 0 and not self.augmentations:
            raise ConfigError(
                "contrast_weight: expected 0 where crop_ratio, mask_ratio and reorder_ratio are 0, "
                f"found {self.contrast_weight}"
            )

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The operators that histories are changed by; none where nothing is contrasted."""
        if self.contrast_weight == 0:
            return ()
        ratios = ((name, getattr(self, f"{name}_ratio")) for name in _OPERATORS)
        return tuple(Augmentation(name, ratio) for name, ratio in ratios if ratio > 0)


def info_nce(similarities: Tensor, partners: Tensor) -> Tensor:
    """Returns how badly each picks out its partner among all others.

        mean_i - log( exp(s_i,p(i)) / Σ_{j ≠ i} exp(s_ij) )

    Args:
        similarities: (M, M), divided by the temperature.
        partners: (M,), p.

    Returns:
        A scalar, 0 for M = 0.
    """
    own = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    total = torch.nn.functional.cross_entropy(
        similarities.masked_fill(own, -torch.inf), partners, reduction="sum"
    )
    return total / max(1, len(similarities))
