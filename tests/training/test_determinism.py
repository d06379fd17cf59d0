"""The same batches for any number of threads; the same bits in another process: test_kills.py."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from blin.batch import Batch
from blin.data.dataset import Dataset
from blin.data.loader import TrainingLoader
from blin.training.trainer import train
from small import SMALL

SETTINGS: dict[str, Any] = {
    **SMALL,
    "epochs": 1,
    "padding": "random-repeat",
    "crop": 0.5,
    "negatives_per": "position",
}


def test_threads_do_not_change_the_batches(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: list[str] = []
    make = TrainingLoader.batch

    def noted(self: TrainingLoader, *place: Any) -> Batch:
        batch = make(self, *place)
        digest = hashlib.sha256()
        views = [getattr(view, name) for view in batch.views for name in ("items", "targets")]
        for tensor in (batch.users, batch.negatives, batch.log_q, *views):
            digest.update(tensor.contiguous().numpy().tobytes())
        digests.append(digest.hexdigest())
        return batch

    monkeypatch.setattr(TrainingLoader, "batch", noted)
    found = []
    for threads in (1, 2):
        digests.clear()
        try:
            train(
                small_dataset,
                settings=SETTINGS,
                runs_dir=tmp_path,
                device="cpu",
                threads=threads,
            )
        finally:
            torch.set_num_threads(1)
        found.append(list(digests))
    assert found[0] == found[1] and len(set(found[0])) == 4


def test_threads_train_one_after_the_other_and_give_theirs_back(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    settings = {**SMALL, "epochs": 2}

    def trained(place: str) -> str:
        run = train(
            small_dataset,
            model="blin",
            settings=settings,
            runs_dir=tmp_path / place,
            device="cpu",
            threads=1,
        ).run
        return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()

    torch.set_num_threads(2)
    try:
        alone = trained("alone")
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(trained, ("one", "other"))) == [alone, alone]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
