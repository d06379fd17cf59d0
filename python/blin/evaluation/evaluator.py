"""Metrics of a model on held-out items, with the protocol they were measured by."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from blin.data.dataset import SPLITS, Dataset
from blin.errors import ConfigError, DataError
from blin.evaluation.metrics import metrics_of
from blin.evaluation.ranking import Progress, full_ranks, sampled_ranks
from blin.files import replacing
from blin.models import Scorer


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` returns.

    Attributes:
        metrics: ``HR@10``, ``NDCG@10``, …, ``MRR`` on the 0–1 scale; a sampled protocol adds its
            name, as in ``HR@10[uniform-500]``.
        protocol: all that must be equal for two evaluations to be comparable.
        ranks: (users,), the rank of each held-out item.
        users: number of users ranked.
        seconds: wall-clock time.
    """

    metrics: dict[str, float]
    protocol: dict[str, object]
    ranks: NDArray[np.int64]
    users: int
    seconds: float

    def save(self, directory: Path) -> Path:
        """Writes metrics and protocol as JSON and returns the file, named after the protocol.

        Metrics that an earlier evaluation by the same protocol left there (of other k) are kept.
        """
        name = str(self.protocol["split"])
        if self.protocol["ranking"] != "full":
            name += f"-{self.protocol['ranking']}-s{self.protocol['seed']}"
        path = directory / f"{name}.json"
        metrics = self.metrics
        with suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["protocol"] == self.protocol:
                metrics = {**before["metrics"], **metrics}
        record = {
            "protocol": self.protocol,
            "metrics": metrics,
            "versions": {"blin": version("blin-rec"), "torch": torch.__version__},
        }
        directory.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return path


def evaluate(
    model: Scorer,
    dataset: Dataset,
    *,
    k: Sequence[int] = (10, 20),
    split: str = "test",
    negatives: int | None = None,
    sampling: str = "uniform",
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks every user's held-out item and averages the metrics.

    The history of the test item is all that comes before it, the validation item included.

    Args:
        model: anything that scores.
        dataset: a prepared dataset with the model's items.
        k: lengths of the lists.
        split: ``test`` or ``valid``.
        negatives: rank among this many drawn items instead of the whole catalogue.
        sampling: how they are drawn: ``uniform``, or in proportion to ``popularity``.
        seed: of the drawn items.
        on_progress: called with the users done and the users to do.

    Raises:
        ConfigError: An argument is out of range, or the dataset has other items than the model.
    """
    if not k or min(k) < 1:
        raise ConfigError(f"k: expected lengths of at least 1, found {list(k)}")
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    if sampling not in ("uniform", "popularity"):
        raise ConfigError(f"sampling: expected uniform or popularity, found {sampling!r}")
    if negatives is not None and not 1 <= negatives < dataset.num_items:
        raise ConfigError(
            f"negatives: expected 1 to {dataset.num_items - 1}, fewer than there are items, "
            f"found {negatives}"
        )
    if model.num_items != dataset.num_items:
        raise ConfigError(
            f"expected a dataset of {model.num_items} items, found {dataset.num_items} "
            f"in {dataset.path}"
        )
    begin = time.perf_counter()
    with torch.inference_mode():
        if negatives is None:
            ranks = full_ranks(model, dataset, split, on_progress=on_progress)
        else:
            ranks = sampled_ranks(
                model,
                dataset,
                split,
                negatives=negatives,
                sampling=sampling,
                seed=seed,
                on_progress=on_progress,
            )
    if len(ranks) == 0:
        raise DataError(f"{dataset.path}: no user has a {split} item")
    ranking = "full" if negatives is None else f"{sampling}-{negatives}"
    suffix = "" if negatives is None else f"[{ranking}]"
    metrics = {name + suffix: value for name, value in metrics_of(ranks, sorted(set(k))).items()}
    protocol: dict[str, object] = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "ranking": ranking,
        "masked": "history" if negatives is None else "whole sequence",
        "ties": "random",
        "users": len(ranks),
    }
    if negatives is not None:
        protocol["seed"] = seed
    return Evaluation(metrics, protocol, ranks, len(ranks), time.perf_counter() - begin)
