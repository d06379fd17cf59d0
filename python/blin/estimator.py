"""Models in the manner of scikit-learn: settings at the start, ``fit``, raw ids in and out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from blin.batch import Batch, BatchSpec
from blin.checkpoint import TrainedModel, load_run, resolve_device
from blin.config import whole_number
from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError, reason_of
from blin.inference.recommend import recommend_histories, recommend_users
from blin.inference.session import Session
from blin.models import MODELS
from blin.models.blin import BlinModel
from blin.training.distillation import Distillation
from blin.training.trainer import Event, RunResult, check_settings, train

if TYPE_CHECKING:
    import pyarrow as pa

AnyRecommender = TypeVar("AnyRecommender", bound="Recommender")


class Recommender:
    """A recommender of any model.

    >>> from blin import Recommender, load_dataset
    >>> dataset = load_dataset("ratings.csv")                       # doctest: +SKIP
    >>> model = Recommender("item-knn", max_len=10).fit(dataset)    # doctest: +SKIP
    >>> model.recommend(histories=[["i3", "i9"]], k=10)             # doctest: +SKIP

    Args:
        model: a key of ``blin.models.MODELS``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch; None for its default.
        settings: fields of the model's config and, unless it learns by counting, of
            :class:`~blin.training.config.TrainingConfig`.

    Raises:
        ConfigError: The model or a setting is unknown, or a setting is out of range.
    """

    def __init__(
        self, model: str, *, device: str = "auto", threads: int | None = None, **settings: object
    ) -> None:
        check_settings(model, settings)
        resolve_device(device)
        self.model = model
        self.device = device
        self.threads = None if threads is None else whole_number("threads", threads, least=1)
        self.settings = settings
        self.result: RunResult | None = None
        self._trained: TrainedModel | None = None
        self._dataset: Dataset | None = None

    def __repr__(self) -> str:
        """Shows the model and the settings that were given."""
        given = [f"{name}={value!r}" for name, value in self.settings.items()]
        return f"Recommender({', '.join([repr(self.model), *given])})"

    def fit(
        self: AnyRecommender,
        dataset: Dataset,
        *,
        runs_dir: str | Path | None = None,
        distillation: Distillation | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> AnyRecommender:
        """Trains on a dataset and keeps the model of the best validation epoch.

        It begins anew, also where the model is trained already. Threads of one process train one
        after the other.

        Args:
            dataset: a prepared dataset.
            runs_dir: where to keep the run; None keeps none.
            distillation: a teacher to learn from as well, and how, see
                :meth:`Distillation.of <blin.training.distillation.Distillation.of>`.
            on_event: told what happens, see :mod:`blin.training.trainer`.

        Raises:
            BlinError: The run cannot be written.
            ConfigError: There is a file where the directory of runs is to be.
            DataError: The dataset has nothing to learn from.
        """
        _refuse_file("runs_dir", runs_dir)
        theirs: list[OSError] = []

        def tell(event: Event) -> None:
            try:
                if on_event is not None:
                    on_event(event)
            except OSError as error:
                theirs.append(error)
                raise

        with (
            _named(runs_dir, theirs=theirs),
            tempfile.TemporaryDirectory(prefix="blin-") as scratch,
        ):
            self.result = train(
                dataset,
                model=self.model,
                settings=self.settings,
                runs_dir=Path(scratch if runs_dir is None else runs_dir),
                device=self.device,
                threads=self.threads,
                distillation=distillation,
                on_event=tell,
            )
            self._trained = load_run(self.result.run, device=self.device).model
        self._dataset = dataset
        return self

    @property
    def trained(self) -> TrainedModel:
        """The trained model; BlinError before ``fit``."""
        if self._trained is None:
            raise BlinError("this model is not trained yet: call fit(dataset) first")
        return self._trained

    @property
    def num_items(self) -> int:
        """V; items are 1…V."""
        return self.trained.num_items

    @property
    def batch_spec(self) -> BatchSpec:
        """What its batches must be."""
        return self.trained.batch_spec

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) scores of the next item, or (B, K) for (B, K) candidates."""
        return self.trained.score(batch, candidates)

    def recommend(
        self,
        users: Iterable[str | int] | None = None,
        *,
        histories: Iterable[Iterable[str | int]] | None = None,
        k: int = 10,
        include_seen: bool = False,
    ) -> pa.Table:
        """Recommends items to users of the training dataset, or by histories of raw item ids.

        Ids are text, or integers where a table had integers; they may be in lists, in arrays of
        NumPy or Arrow, or in a series of pandas or polars.

        Returns:
            A table with columns ``user_id``, ``item_id``, ``score`` and ``rank``; ``to_pandas()``
            or ``polars.from_arrow`` turn it into what you like. Histories are named ``0``, ``1``,
            …. Items that the model has never seen are left out of the histories.

        Raises:
            DataError: A user is not in the training dataset.
            ConfigError: Something is not a raw id, or ``k`` is below 1.
        """
        if (users is None) == (histories is None):
            raise BlinError("give either users or histories")
        if histories is not None:
            return recommend_histories(
                self.trained, histories, k=k, include_seen=include_seen
            ).table
        assert users is not None
        if self._dataset is None:
            raise BlinError("a loaded model knows no users: recommend by histories")
        return recommend_users(
            self.trained, self._dataset, users, k=k, include_seen=include_seen
        ).table

    def session(self, *, form: str = "auto") -> Session:
        """Returns an empty history to push items to, see :class:`~blin.inference.session.Session`.

        Args:
            form: ``recurrent``, ``window``, or ``auto`` for the first where the settings allow it.

        Raises:
            ConfigError: The settings have no recurrent form, and it was asked for.
        """
        return Session(self.trained, form=form)

    def save_pretrained(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors and items.parquet into a directory.

        Raises:
            BlinError: They cannot be written.
            ConfigError: There is a file where the directory is to be.
        """
        _refuse_file("path", path)
        with _named(path):
            self.trained.save(Path(path))

    @classmethod
    def from_pretrained(
        cls: type[AnyRecommender], path: str | Path, *, device: str = "auto"
    ) -> AnyRecommender:
        """Reads what :meth:`save_pretrained` wrote, or the ``model`` directory of a run.

        It has the settings of the model, and none of those that it was trained with, such as
        ``learning_rate``, ``batch_size``, ``schedule`` and ``padding``: :meth:`fit` of it trains
        another model, with their defaults. To train as before, give them to the class, or
        ``blin train --config`` the ``config.toml`` of the run.

        Raises:
            CheckpointError: A file is missing, damaged, or of another model.
        """
        trained = TrainedModel.load(Path(path), device=resolve_device(device))
        settings: dict[str, Any] = vars(trained.module.config)
        model = cls(model=trained.name, device=device, **settings)
        model._trained = trained
        return model


class Blin(Recommender):
    """A Blin recommender.

    >>> from blin import Blin, load_dataset
    >>> dataset = load_dataset("ratings.csv")                     # doctest: +SKIP
    >>> model = Blin(dim=64, kl_weight=2.0, seed=0).fit(dataset)  # doctest: +SKIP
    >>> model.recommend(histories=[["i3", "i9"]], k=10)           # doctest: +SKIP

    Args:
        model: ``blin`` or one of its variants.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch; None for its default.
        settings: fields of :class:`~blin.models.blin.BlinConfig` and of
            :class:`~blin.training.config.TrainingConfig`.

    Raises:
        ConfigError: The model is no Blin, or a setting is unknown or out of range.
    """

    def __init__(
        self,
        *,
        model: str = "blin",
        device: str = "auto",
        threads: int | None = None,
        **settings: object,
    ) -> None:
        super().__init__(model, device=device, threads=threads, **settings)
        if MODELS[model].module is not BlinModel:
            raise ConfigError(f'model: expected a Blin, found "{model}": use Recommender')

    def __repr__(self) -> str:
        """Shows the settings that were given, and the model if it is a variant."""
        variant = {} if self.model == "blin" else {"model": self.model}
        given = {**variant, **self.settings}
        return f"Blin({', '.join(f'{name}={value!r}' for name, value in given.items())})"


@contextmanager
def _named(path: str | Path | None, *, theirs: Sequence[OSError] = ()) -> Iterator[None]:
    """Raises BlinError in place of what the system says of a file, or of one below ``path``.

    What the caller's own code raised is ``theirs``, and stays as it is.
    """
    try:
        yield
    except OSError as cause:
        if any(cause is error for error in theirs):
            raise
        where = cause.filename or path
        raise BlinError(f"{where}: {reason_of(cause)}" if where else reason_of(cause)) from cause


def _refuse_file(argument: str, path: str | Path | None) -> None:
    if path is not None and Path(path).is_file():
        raise ConfigError(f"{argument}: expected a directory, found the file {path}")
