"""Run directories that were never trained, with ranks of one's choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tomli_w

from blin.evaluation.metrics import metrics_of
from blin.evaluation.per_user import SUFFIX, PerUser, hash_of, write_per_user
from blin.tensors import written_by

SETTINGS: dict[str, Any] = {"loss": "softmax", "num_negatives": 8, "kl_weight": 0.5, "dim": 4}
SETTINGS |= {"seed": 0, "patience": 3}

PROTOCOL = {
    "dataset": "shop",
    "fingerprint": "sha256:0",
    "split": "test",
    "targets": "first",
    "repeats": "candidate",
    "ranking": "full",
}


def make_run(
    path: Path,
    ranks: Sequence[int] | None,
    *,
    model: str = "blin",
    epochs: int = 3,
    epochs_wanted: int | None = None,
    **changes: Any,
) -> Path:
    """Writes a run of a model whose test ranks, one a user, are given, if it was tested."""
    (path / "eval").mkdir(parents=True)
    settings = SETTINGS | changes
    if epochs_wanted is not None:
        settings["epochs"] = epochs_wanted
    config = written_by() | {"model": model, "dataset": "shop", "dataset_path": str(path / "data")}
    config |= {"fingerprint": "sha256:0", "threads": 1, "settings": settings}
    (path / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    environment = {"torch": "2.8", "device": "cpu", "command": ["blin", "train", "--seed", "0"]}
    (path / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    history = [
        {
            "epoch": epoch,
            "losses": {"sequence": 5.0 / epoch, "HR@10 copy 1": 0.1},
            "valid": {"HR@10": 0.1 * epoch, "NDCG@10": 0.3 - 0.1 * (epoch - 2) ** 2},
            "seconds": 1.5 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in history)
    (path / "history.jsonl").write_text(lines, encoding="utf-8")
    if ranks is not None:
        evaluate_run(path, ranks)
    return path


def evaluate_run(
    path: Path,
    ranks: Sequence[int],
    *,
    name: str = "test",
    suffix: str = "",
    users: Sequence[str] | None = None,
    protocol: Mapping[str, object] | None = None,
) -> None:
    """Writes an evaluation as blin keeps it."""
    full = {**PROTOCOL, "users": len(ranks), "ranked": len(ranks), **(protocol or {})}
    found = PerUser(
        full,
        pa.array(users or [f"u{place}" for place in range(len(ranks))]),
        pa.array([f"i{place}" for place in range(len(ranks))]),
        np.array(ranks, dtype=np.int32),
        np.full(len(ranks), 3, dtype=np.int32),
        np.ones(len(ranks), dtype=np.int64),
    )
    file = path / "eval" / f"{name}{SUFFIX}"
    write_per_user(file, found)
    metrics = {k + suffix: v for k, v in metrics_of(np.array(ranks), [10]).items()}
    group = {"users": len(ranks), "targets": len(ranks), "metrics": metrics}
    record = {
        "protocol": full,
        "metrics": metrics,
        "intervals": {metric: [value - 0.01, value + 0.01] for metric, value in metrics.items()},
        "groups": {"history": {"1-4": group, "5-9": group}, "repeats": {"new": group}},
        "per_user": {"file": file.name, "sha256": hash_of(file)},
    }
    (path / "eval" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
