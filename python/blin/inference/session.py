"""A history that grows item by item, and what to recommend after each; raw ids in, raw ids out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from blin.checkpoint import TrainedModel
from blin.config import whole_number
from blin.data.loader import history_batch
from blin.errors import ConfigError
from blin.models import Recurrent
from blin.nn.top import best_items
from blin.vocabulary import raw_ids

FORMS = ("auto", "recurrent", "window")


class Session:
    """The history of one user as it goes on.

    >>> session = Session(model)     # doctest: +SKIP
    >>> session.push("i3")           # doctest: +SKIP
    >>> session.push("i9", "i4")     # doctest: +SKIP
    >>> session.top(10)              # doctest: +SKIP
    [("i12", 3.41), ...]

    What a push costs does not depend on how long the history is. There are two forms:

    - ``recurrent``: the session keeps what the model makes of all items so far and forgets none:
      of linear attention sums, H·(D² + D) numbers and K - 1 vectors a block, of a recurrent unit
      its state. It needs a model whose view of the past does not change with each new item: such a
      unit, or causal linear attention with positions ``none`` or ``per-copy``. Up to ``max_len``
      items the scores are those of ``model.score``. Beyond, they are those of one pass over the
      whole history, in which the items from the ``max_len``-th on share a position.
    - ``window``: the session keeps the newest ``max_len`` items and passes over them when scores
      are asked for. It works for every model; its scores are those of ``model.score``, and so of
      ``recommend`` and of the evaluation, at any length.

    Args:
        model: a trained model.
        form: ``recurrent``, ``window``, or ``auto`` for the first where the model allows it.

    Raises:
        ConfigError: The model has no recurrent form, and it was asked for.
    """

    def __init__(self, model: TrainedModel, *, form: str = "auto") -> None:
        if form not in FORMS:
            raise ConfigError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
        obstacle = _obstacle(model)
        if form == "recurrent" and obstacle is not None:
            raise ConfigError(f'form: expected "window", found "recurrent" with {obstacle}')
        self.model = model
        self.form = ("window" if obstacle else "recurrent") if form == "auto" else form
        self._history: _History = _Window(model) if self.form == "window" else _Recurrence(model)
        self._seen = torch.zeros(model.num_items + 1, dtype=torch.bool, device=model.device)
        self._seen[0] = True  # padding
        self._scores: Tensor | None = None
        self.length = 0
        """Items in the history."""
        self.unknown = 0
        """Items that were left out because the model has never seen them."""

    def push(self, *items: str | int) -> None:
        """Adds items to the history, the oldest first; unknown ones are counted and left out.

        Raises:
            ConfigError: Something is not a raw id.
        """
        known, unknown = self.model.item_ids.indices_of(raw_ids("push", items))
        self.unknown += len(unknown)
        if known:
            self._history.push(known)
            self._seen[known] = True
            self.length += len(known)
            self._scores = None

    def scores(self) -> Tensor:
        """Returns the scores of all items as the next one, (V + 1,); that of padding comes first.

        Item i's raw id is ``model.item_ids.raw(i)``.
        """
        if self._scores is None:
            self._scores = self._history.scores()
        return self._scores.clone()

    def top(self, k: int = 10, *, include_seen: bool = False) -> list[tuple[str, float]]:
        """Returns the best items and their scores, the best first.

        Args:
            k: how many, or fewer where the history leaves fewer.
            include_seen: also recommend items of the history.
        """
        k = whole_number("k", k, least=1, below=2**63)
        scores = self.scores()
        if include_seen:
            scores[0] = -torch.inf
        else:
            scores[self._seen] = -torch.inf
        values, items = best_items(scores.unsqueeze(0), min(k, self.model.num_items))
        pairs = zip(items[0].tolist(), values[0].tolist(), strict=True)
        return [(self.model.item_ids.raw(item), score) for item, score in pairs if score > -np.inf]


class _History(Protocol):
    """What a session remembers."""

    def push(self, items: list[int]) -> None:
        """Adds items, the oldest first."""

    def scores(self) -> Tensor:
        """Returns (V + 1,) scores."""


class _Window:
    """The newest items."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        self.items: deque[int] = deque(maxlen=model.batch_spec.max_len)

    def push(self, items: list[int]) -> None:
        self.items.extend(items)

    def scores(self) -> Tensor:
        items = np.array(self.items, dtype=np.uint32)
        bounds = np.array([0, len(items)], dtype=np.int64)
        batch = history_batch(items, bounds[:1], bounds[1:], self.model.batch_spec)
        return self.model.score(batch)[0]


class _Recurrence:
    """What a recurrent model goes on from."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        self.module: Any = model.module
        self.state: Any = None
        self.newest: Tensor | None = None

    def push(self, items: list[int]) -> None:
        with _evaluating(self.module), torch.inference_mode():
            row = torch.tensor([items], device=self.model.device)
            states, self.state = self.module.advance(row, self.state)
            self.newest = states[:, -1].clone()

    def scores(self) -> Tensor:
        if self.newest is None:
            return _Window(self.model).scores()
        with torch.no_grad():
            return self.module.item_embedding.score(self.newest)[0]  # type: ignore[no-any-return]


def _obstacle(model: TrainedModel) -> str | None:
    """Returns why a model has no recurrent form, or None if it has one."""
    module = model.module
    return module.recurrence_obstacle if isinstance(module, Recurrent) else f"model {model.name}"


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Turns dropout off for a while, where it is on: the walk over all parts costs as a block."""
    if not module.training:
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()
