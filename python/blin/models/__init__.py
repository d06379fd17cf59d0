"""The models by name, and what every one of them can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from blin.batch import Batch, BatchSpec, Interactions, Losses, View
from blin.models.bert4rec import BERT4Rec, BERT4RecConfig
from blin.models.blin import BlinConfig, BlinModel
from blin.models.blossomrec import BlossomRec, BlossomRecConfig
from blin.models.caser import Caser, CaserConfig
from blin.models.cl4srec import CL4SRec, CL4SRecConfig
from blin.models.ct4rec import CT4Rec, CT4RecConfig
from blin.models.esasrec import ESASRec, ESASRecConfig
from blin.models.gru4rec import GRU4Rec, GRU4RecConfig
from blin.models.item_knn import ItemKNN, ItemKNNConfig
from blin.models.linrec import LinRec, LinRecConfig
from blin.models.markov import Markov, MarkovConfig
from blin.models.mqsa_ted import MQSATED, MQSATEDConfig
from blin.models.mstein import MStein, MSteinConfig
from blin.models.popularity import (
    Popularity,
    PopularityConfig,
    RecentPopularity,
    RecentPopularityConfig,
)
from blin.models.sasrec import SASRec, SASRecConfig
from blin.models.spnn import SPNN, SPNNConfig
from blin.models.tisasrec import TiSASRec, TiSASRecConfig
from blin.nn.embedding import ItemEmbedding


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


@runtime_checkable
class Learned(Scorer, Protocol):
    """A module that learns by a loss, from the batches it asks for.

    Of a state, nothing outside its position's segment may matter.
    """

    config: Any
    item_embedding: ItemEmbedding

    @property
    def state_dim(self) -> int:
        """How wide the states of :meth:`encode` are."""

    @property
    def causal(self) -> bool:
        """Whether a state depends on nothing that comes after it."""

    def encode(self, view: View) -> Tensor:
        """Returns the states of a view, (B, N, ``state_dim``)."""

    def forward(self, batch: Batch) -> Losses:
        """Returns the loss of a batch and its named parts."""


@runtime_checkable
class Informed(Protocol):
    """A module that learns by a loss for which it must know more than the batches tell."""

    @property
    def needs_interactions(self) -> bool:
        """Whether :meth:`inform` must come before the first loss."""

    def inform(self, interactions: Interactions) -> None:
        """Keeps what it needs of all training interactions, which lie on the CPU.

        It comes after the module is moved to its device. What is kept is no part of the weights:
        whoever trains tells it anew, and a module that only scores is told nothing.
        """


@runtime_checkable
class Recurrent(Protocol):
    """A module that can read a history item by item, at a cost that never grows.

    Not all settings of such a module allow it; ``recurrence_obstacle`` says what stands in the way.
    """

    item_embedding: ItemEmbedding

    @property
    def recurrence_obstacle(self) -> str | None:
        """Why the recurrent form would not give the scores of the full one; None if it does."""

    def advance(self, items: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Reads the next (B, M) items and returns (B, M, D) states and what to go on from."""


@runtime_checkable
class Counted(Protocol):
    """A module that learns by counting: from all interactions at once, without a loss."""

    def count(self, interactions: Interactions) -> None:
        """Learns from all training interactions, which lie on the CPU, and forgets any others."""


class Model(NamedTuple):
    """A model that can be trained.

    Attributes:
        module: built from the number of items and a config.
        config: its settings, a dataclass.
        defaults: settings, of the model and of its training, that differ from their usual default.
        reads_times: whether what it learns depends on the times of the interactions.
    """

    module: type[nn.Module]
    config: type[Any]
    defaults: Mapping[str, object] = {}
    reads_times: bool = False

    @property
    def counted(self) -> bool:
        """Whether it learns by counting, and has no epochs."""
        return issubclass(self.module, Counted)


MODELS = {
    "blin": Model(BlinModel, BlinConfig),
    "blin-paper": Model(BlinModel, BlinConfig, {"causal": False, "loss_positions": "last"}),
    "blin-zc": Model(BlinModel, BlinConfig, {"padding": "zero", "crop": 0.6}),
    "blin-d": Model(BlinModel, BlinConfig, {"attention": "softmax"}),
    "blin-dwc": Model(BlinModel, BlinConfig, {"kernel_size": 0}),
    "blin-bkl": Model(BlinModel, BlinConfig, {"kl_weight": 0.0}),
    "sasrec": Model(SASRec, SASRecConfig),
    "gru4rec": Model(GRU4Rec, GRU4RecConfig),
    "caser": Model(Caser, CaserConfig, {"weight_decay": 1e-6}),
    "bert4rec": Model(BERT4Rec, BERT4RecConfig),
    "tisasrec": Model(TiSASRec, TiSASRecConfig, {"weight_decay": 5e-5}, reads_times=True),
    "linrec": Model(LinRec, LinRecConfig),
    "cl4srec": Model(CL4SRec, CL4SRecConfig),
    "ct4rec": Model(CT4Rec, CT4RecConfig),
    "mstein": Model(MStein, MSteinConfig),
    "esasrec": Model(ESASRec, ESASRecConfig),
    "mqsa-ted": Model(MQSATED, MQSATEDConfig, {"weight_decay": 1e-4}),
    "blossomrec": Model(BlossomRec, BlossomRecConfig),
    "spnn": Model(SPNN, SPNNConfig, reads_times=True),
    "popularity": Model(Popularity, PopularityConfig),
    "recent-popularity": Model(RecentPopularity, RecentPopularityConfig, reads_times=True),
    "markov": Model(Markov, MarkovConfig),
    "item-knn": Model(ItemKNN, ItemKNNConfig),
}
"""Blin, Blin as printed, and what its paper takes away one by one to see what is missing; the
models it is compared with; and the baselines that all of them have to beat."""

BASELINES = tuple(name for name, model in MODELS.items() if model.counted)
"""The models that learn by counting, in seconds."""
