"""A log and settings small enough to train in a second."""

from __future__ import annotations

import random
from pathlib import Path

SMALL = {
    "dim": 16,
    "max_len": 8,
    "num_negatives": 20,
    "batch_size": 32,
    "epochs": 3,
    "dropout": 0.1,
}
"""Settings that train in a second."""


def write_small_log(path: Path, *, users: int = 120, items: int = 40, seed: int = 1) -> Path:
    """A log in which item i is mostly followed by item i + 1: there is something to learn."""
    draw = random.Random(seed)
    rows = ["user,item,timestamp"]
    for user in range(users):
        item = draw.randrange(items)
        for step in range(draw.randint(5, 14)):
            rows.append(f"u{user},i{item},{1_700_000_000 + step}")
            item = (item + 1) % items if draw.random() < 0.8 else draw.randrange(items)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
