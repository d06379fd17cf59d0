"""The best items for users of a dataset, or for anybody's history; raw ids in, raw ids out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from blin.checkpoint import TrainedModel
from blin.config import whole_number
from blin.data.dataset import Dataset
from blin.data.loader import flat_histories, history_batch
from blin.errors import ConfigError, DataError
from blin.nn.top import best_items
from blin.vocabulary import raw_ids

if TYPE_CHECKING:
    import pyarrow as pa

SCORES_AT_ONCE = 1 << 21
"""Scores held at a time, 8 MiB."""


@dataclass(frozen=True)
class Recommendations:
    """A table of recommendations.

    Attributes:
        table: columns ``user_id``, ``item_id``, ``score`` and ``rank`` (1 is the best), sorted by
            user and rank.
        unknown_items: items of the histories that the model has never seen; they were left out.
    """

    table: pa.Table
    unknown_items: list[str] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the table as a list of dicts."""
        return self.table.to_pylist()  # type: ignore[no-any-return]


def recommend_users(
    model: TrainedModel,
    dataset: Dataset,
    users: Iterable[str | int],
    *,
    k: int = 10,
    include_seen: bool = False,
) -> Recommendations:
    """Recommends items to users of the dataset, by all they have had.

    Raises:
        DataError: A user is not in the dataset.
        ConfigError: Something is not a raw id, or ``k`` is below 1.
    """
    names = raw_ids("users", users)
    indices, unknown = dataset.user_ids.indices_of(names)
    if unknown:
        raise DataError(
            f'{dataset.path}: no user "{unknown[0]}" in it (the k-core filter may have removed '
            "them): recommend by their items with --history instead"
        )
    chosen = np.asarray(indices, dtype=np.int64)
    starts, ends = dataset.offsets[:-1][chosen], dataset.offsets[1:][chosen]
    tables = _tables(model, dataset.items, starts, ends, names, k, include_seen, dataset.timestamps)
    return Recommendations(_concatenate(tables))


def recommend_all(
    model: TrainedModel, dataset: Dataset, *, k: int = 10, include_seen: bool = False
) -> Iterator[pa.Table]:
    """Yields recommendations for all users of the dataset, some users at a time."""
    starts, ends = dataset.offsets[:-1], dataset.offsets[1:]
    names, times = dataset.user_ids.ids, dataset.timestamps
    return _tables(model, dataset.items, starts, ends, names, k, include_seen, times)


def recommend_histories(
    model: TrainedModel,
    histories: Iterable[Iterable[str | int]],
    *,
    k: int = 10,
    include_seen: bool = False,
    user_ids: Sequence[str] | None = None,
) -> Recommendations:
    """Recommends items to anybody, by raw ids of what they have had, oldest first.

    Args:
        model: a trained model.
        histories: one list of raw item ids a user; a user without any known item is recommended
            what the model thinks of an empty history.
        k: items per user.
        include_seen: also recommend items of the history.
        user_ids: what to call the users; by default ``0``, ``1``, ….

    Raises:
        ConfigError: Something is not a raw id, or ``k`` is below 1.
    """
    try:
        each = None if isinstance(histories, str) else iter(histories)
    except TypeError:
        each = None
    if each is None:
        raise ConfigError(f"histories: expected lists of ids, found {histories!r:.100}")
    indices, unknown = [], []
    for history in each:
        known, dropped = model.item_ids.indices_of(raw_ids("history", history))
        indices.append(known)
        unknown += dropped
    lengths = np.array([len(known) for known in indices], dtype=np.int64)
    ends = np.cumsum(lengths)
    items = np.array([item for known in indices for item in known], dtype=np.uint32)
    names = [str(number) for number in range(len(indices))] if user_ids is None else list(user_ids)
    tables = _tables(model, items, ends - lengths, ends, names, k, include_seen)
    return Recommendations(_concatenate(tables), unknown)


def _tables(
    model: TrainedModel,
    items: NDArray[np.uint32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    names: Sequence[str] | pa.Array,
    k: int,
    include_seen: bool,
    timestamps: NDArray[np.int64] | None = None,
) -> Iterator[pa.Table]:
    k = whole_number("k", k, least=1, below=2**63)
    size = max(1, min(1024, SCORES_AT_ONCE // (model.num_items + 1)))
    for first in range(0, max(1, len(starts)), size):
        part = slice(first, first + size)
        batch = history_batch(
            items, starts[part], ends[part], model.batch_spec, timestamps=timestamps
        )
        scores = model.score(batch)
        scores[:, 0] = -torch.inf
        if not include_seen:
            rows, seen = flat_histories(items, starts[part], ends[part])
            scores[rows.to(scores.device), seen.to(scores.device)] = -torch.inf
        values, best = best_items(scores, min(k, model.num_items))
        yield _table(model, names[part], values, best)


def _table(
    model: TrainedModel,
    names: Sequence[str] | pa.Array,
    values: NDArray[np.float32],
    items: NDArray[np.int64],
) -> pa.Table:
    import pyarrow as pa

    real = np.isfinite(values)  # fewer than k where the history leaves fewer
    rows, _ = np.nonzero(real)
    ranks = np.broadcast_to(np.arange(1, values.shape[1] + 1), values.shape)
    users = names if isinstance(names, pa.Array) else pa.array(names, type=pa.string())
    return pa.table(
        {
            "user_id": users.take(pa.array(rows)).cast(pa.large_string()),
            "item_id": model.item_ids.take(items[real]).cast(pa.large_string()),
            "score": values[real].astype(np.float32),
            "rank": ranks[real].astype(np.int32),
        }
    )


def _concatenate(tables: Iterator[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(list(tables)).combine_chunks()
