"""Metrics of a model on held-out items, with the protocol they were measured by."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from blin.config import whole_number
from blin.data.dataset import SPLITS, TARGETS, Dataset
from blin.errors import ConfigError, DataError
from blin.evaluation.beyond_accuracy import beyond_accuracy as measure_lists
from blin.evaluation.groups import Group, groups_of
from blin.evaluation.intervals import bootstrap_intervals
from blin.evaluation.metrics import MISS, metrics_of, user_values
from blin.evaluation.per_user import SUFFIX, PerUser, hash_of, write_per_user
from blin.evaluation.protocol import evaluation_name, metric_suffix
from blin.evaluation.ranking import Progress, full_ranks, sampled_ranks
from blin.evaluation.targets import Targets
from blin.files import replacing
from blin.models import Scorer

REPEATS = ("candidate", "miss", "skip")
"""What becomes of a target that its user has had before."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` returns.

    Attributes:
        metrics: ``HR@10``, ``NDCG@10``, …, ``MRR`` on the 0–1 scale; any protocol but the usual
            one adds its name, as in ``HR@10[uniform-500]`` or ``HR@10[last-3]``.
        protocol: all that must be equal for two evaluations to be comparable.
        ranks: (T,), the rank of each target, by user, then by time.
        users: number of users ranked.
        seconds: wall-clock time.
        model: what was evaluated.
        targets: what was ranked.
        k: lengths of the lists, in ascending order.
        beyond_accuracy: ``coverage@10``, … of the lists, if they were asked for.
    """

    metrics: dict[str, float]
    protocol: dict[str, object]
    ranks: NDArray[np.int64]
    users: int
    seconds: float
    model: str
    targets: Targets = field(repr=False)
    k: tuple[int, ...]
    beyond_accuracy: dict[str, float] | None = None

    @property
    def name(self) -> str:
        """The name of the protocol: ``test``, ``test-uniform-500-s0``, ``valid-last-3``."""
        return evaluation_name(self.protocol)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % bootstrap interval of each metric over users; none of a single user."""
        values = user_values(self.ranks, self.k, users=self.targets.users)
        suffix = metric_suffix(self.protocol)
        return {name + suffix: ends for name, ends in bootstrap_intervals(values).items()}

    @cached_property
    def groups(self) -> dict[str, dict[str, Group]]:
        """The metrics by history, popularity of the target, and new items and repeats."""
        return groups_of(self.targets, self.ranks, self.k, suffix=metric_suffix(self.protocol))

    def per_user(self) -> PerUser:
        """Returns the rank of each target in a table with raw ids."""
        dataset = self.targets.dataset
        return PerUser(
            self.protocol,
            dataset.user_ids.take(self.targets.users),
            dataset.item_ids.take(self.targets.items),
            self.ranks.astype(np.int32),
            self.targets.history.astype(np.int32),
            self.targets.popularity,
        )

    def save(self, directory: str | Path) -> Path:
        """Writes the ranks as Parquet and the metrics as JSON, and returns the JSON file.

        What an earlier evaluation left there of other k is kept if it comes from the same ranks,
        and computed anew if not; if nothing else would change, the date does not either.

        Args:
            directory: ``eval`` in the directory of a run.
        """
        directory = Path(directory)
        directory.mkdir(exist_ok=True)
        table = directory / (self.name + SUFFIX)
        write_per_user(table, self.per_user())
        path = directory / f"{self.name}.json"
        before = _read_record(path)
        ranks = {"file": table.name, "sha256": hash_of(table)}
        told = self if before.get("per_user") == ranks else self._with_lengths_of(before)
        record: dict[str, Any] = {
            "protocol": told.protocol,
            "metrics": told.metrics,
            "intervals": told.intervals,
            "groups": told.groups,
            "beyond_accuracy": told.beyond_accuracy or {},
            "per_user": ranks,
            "model": self.model,
            "run": directory.resolve().parent.name,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {
                "blin": version("blin-rec"),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
        }
        if before.get("per_user") == ranks:
            record = _merged(before, record)
        if json.loads(json.dumps({**record, "date": before.get("date")})) == before:
            return path
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return path

    def _with_lengths_of(self, before: Mapping[str, Any]) -> Evaluation:
        """Returns it with the k of an earlier evaluation, too, whose ranks were others."""
        names = before.get("metrics") if before.get("protocol") == self.protocol else None
        found = re.findall(r"(?<=HR@)\d+", " ".join(names)) if isinstance(names, dict) else []
        ks = tuple(sorted({*self.k, *map(int, found)}))
        if ks == self.k:
            return self
        metrics = metrics_of(self.ranks, ks, users=self.targets.users)
        suffix = metric_suffix(self.protocol)
        return replace(self, k=ks, metrics={name + suffix: at for name, at in metrics.items()})


def evaluate(
    model: Scorer,
    dataset: Dataset,
    *,
    k: Sequence[int] = (10, 20),
    split: str = "test",
    targets: str = "first",
    repeats: str = "candidate",
    negatives: int | None = None,
    sampling: str = "uniform",
    seed: int = 0,
    last: int | None = None,
    beyond_accuracy: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks held-out items and averages the metrics: over a user's targets, then over the users.

    The history of a target is all that comes before it; that of a test item includes the
    validation items.

    Args:
        model: anything that scores.
        dataset: a prepared dataset with the model's items.
        k: lengths of the lists.
        split: ``test`` or ``valid``.
        targets: the ``first`` item that each user has in the split, the ``last``, or ``all``. Under
            leave-one-out there is one.
        repeats: a target that its user has had before is a ``candidate`` as any other, counts as a
            ``miss``, or is left out (``skip``).
        negatives: rank among this many drawn items instead of the whole catalogue.
        sampling: how they are drawn: ``uniform``, or in proportion to ``popularity``.
        seed: of the drawn items.
        last: show the model only so many items of each history, the newest, as if its user were
            new; None shows all. Nothing else changes: who is ranked, among which items, and which
            of them the user has had are told by the whole history.
        beyond_accuracy: also measure what the lists hold.
        on_progress: called with the targets done and the targets to do.

    Raises:
        ConfigError: An argument is out of range, or the dataset has other items than the model.
        DataError: There is nothing to rank.
        BlinError: A score is not finite.
    """
    try:
        ks = tuple(sorted({index(each) for each in k}))
    except TypeError:
        ks = ()
    if not ks or ks[0] < 1 or ks[-1] >= MISS:
        raise ConfigError(f"k: expected whole numbers of at least 1, below 2^31, found {k}")
    for name, value, known in (
        ("split", split, SPLITS),
        ("targets", targets, TARGETS),
        ("repeats", repeats, REPEATS),
        ("sampling", sampling, ("uniform", "popularity")),
    ):
        if value not in known:
            raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    if negatives is not None:
        negatives = whole_number("negatives", negatives, least=1, below=2**63)
        if negatives >= dataset.num_items:
            raise ConfigError(
                f"negatives: expected 1 to {dataset.num_items - 1}, fewer than there are items, "
                f"found {negatives}"
            )
    if last is not None:
        last = whole_number("last", last, least=1)
    seed = whole_number("seed", seed, below=2**64)
    if negatives is not None and beyond_accuracy:
        raise ConfigError("beyond_accuracy: expected full ranking, found negatives")
    if model.num_items != dataset.num_items:
        raise ConfigError(
            f"expected a dataset of {model.num_items} items, found {dataset.num_items} "
            f"in {dataset.path}"
        )
    ids = getattr(model, "item_ids", None)
    if ids is not None and not ids.equals(dataset.item_ids):
        raise ConfigError(
            f"expected a dataset of the model's items, found others in {dataset.path}"
        )
    begin = time.perf_counter()
    first = Targets(dataset, *dataset.held_out(split))
    chosen = first if targets == "first" else Targets(dataset, *dataset.held_out(split, targets))
    if np.array_equal(first.places, chosen.places):
        targets = "first"
    chosen = replace(chosen, last=last)
    if repeats == "skip":
        chosen = chosen.without(chosen.repeats)
    if len(chosen) == 0:
        new = " that they have not had before" if repeats == "skip" else ""
        raise DataError(f"{dataset.path}: no user has a {split} item{new}")
    lists = None
    with torch.inference_mode():
        if negatives is None:
            ranks = full_ranks(model, chosen, on_progress=on_progress)
        else:
            ranks = sampled_ranks(
                model,
                chosen,
                negatives=negatives,
                sampling=sampling,
                seed=seed,
                on_progress=on_progress,
            )
        if beyond_accuracy:
            lists = measure_lists(model, chosen, ks, on_progress=on_progress)
    if repeats == "miss":
        ranks[chosen.repeats] = MISS
    users = len(np.unique(chosen.users))
    protocol: dict[str, object] = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "targets": targets,
        "repeats": repeats,
        "ranking": "full" if negatives is None else f"{sampling}-{negatives}",
        "masked": "history" if negatives is None else "whole sequence",
        "ties": "random",
        "users": users,
        "ranked": len(chosen),
    }
    if negatives is not None:
        protocol["seed"] = seed
    if last is not None:
        protocol["history"] = f"last-{last}"
    metrics = metrics_of(ranks, ks, users=chosen.users)
    suffix = metric_suffix(protocol)
    return Evaluation(
        metrics={name + suffix: value for name, value in metrics.items()},
        protocol=protocol,
        ranks=ranks,
        users=users,
        seconds=time.perf_counter() - begin,
        model=getattr(model, "name", type(model).__name__),
        targets=chosen,
        k=ks,
        beyond_accuracy=lists and {name + suffix: value for name, value in lists.items()},
    )


def _read_record(path: Path) -> dict[str, Any]:
    """Returns what an earlier evaluation left; a damaged file is as good as none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _merged(before: Any, now: Any) -> Any:
    """Returns the newer of two JSON values, and what only the older has."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return now
    kept = {key: value for key, value in before.items() if key not in now}
    return {**{key: _merged(before.get(key), value) for key, value in now.items()}, **kept}
