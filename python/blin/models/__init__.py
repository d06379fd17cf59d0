"""The models by name, and what every one of them can do."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from blin.batch import Batch, BatchSpec
from blin.models.blin import BlinConfig, BlinModel


class Scorer(Protocol):
    """Anything that can rank items: all that evaluation and recommendation ask for."""

    @property
    def num_items(self) -> int:
        """V; items are 1…V."""

    @property
    def batch_spec(self) -> BatchSpec:
        """What its batches must be."""

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) scores of the next item, or (B, K) for (B, K) candidates."""


class Model(NamedTuple):
    """A model that can be trained."""

    module: type[nn.Module]
    config: type[Any]


MODELS = {"blin": Model(BlinModel, BlinConfig)}
