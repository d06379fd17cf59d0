"""Makes the frozen scores of all models: ``PYTHONPATH=tests python tests/golden/models.py``.

A number that changes means that models on users' disks score differently. The numbers of a model
are made anew only where that is meant, and CHANGELOG.md says so; those of a new model are added.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from blin.batch import Batch
from blin.config import build
from blin.data.loader import history_batch
from blin.models import MODELS, Learned
from learned import LEARNED, small_settings

FILE = Path(__file__).with_suffix(".json")

NUM_ITEMS = 12
HISTORIES = [[3, 1, 4, 1, 5, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [7], [8, 8]]

CATALOGUE = 12_101
"""Items of Beauty, for which parameters are counted."""


def weights(name: str, shape: torch.Size) -> torch.Tensor:
    """w_k = ½ sin(0.37 (k + 1)² + the CRC-32 of the name, modulo 1000), row by row."""
    k = np.arange(1, shape.numel() + 1, dtype=np.float64)
    values = 0.5 * np.sin(0.37 * k * k + zlib.crc32(name.encode()) % 1000)
    return torch.from_numpy(values).view(shape)


def model(name: str) -> Learned:
    """A model in float64 with weights that nothing drew."""
    known = MODELS[name]
    module = known.module(NUM_ITEMS, build(known.config, small_settings(name))).double().eval()
    assert isinstance(module, Learned)
    with torch.no_grad():
        for part, parameter in module.named_parameters():
            parameter.copy_(weights(part, parameter.shape))
        for part in module.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight += 1
            if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0
    return module


def histories(module: Learned) -> Batch:
    """``HISTORIES``, as the model wants to score them."""
    ends = np.cumsum([len(row) for row in HISTORIES])
    starts = ends - [len(row) for row in HISTORIES]
    flat = np.concatenate(HISTORIES).astype(np.uint32)
    return history_batch(flat, starts, ends, module.batch_spec)


def scores(name: str) -> list[list[float]]:
    """The scores of all items after each history."""
    module = model(name)
    with torch.no_grad():
        return module.score(histories(module))[:, 1:].tolist()


def parameters(name: str) -> int:
    """How many numbers the model learns with its default settings."""
    model = MODELS[name]
    with torch.device("meta"):
        module = model.module(CATALOGUE, build(model.config, model.defaults))
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    rows = []
    for name in LEARNED:
        rounded = [[float(f"{score:.12g}") for score in row] for row in scores(name)]
        row = json.dumps({"parameters": parameters(name), "scores": rounded})
        rows.append(f"{json.dumps(name)}: {row}")
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
