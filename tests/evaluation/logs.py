"""A log that a temporal split cuts into uneven parts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from blin.data.dataset import Dataset
from blin.data.prepare import preprocess


def temporal_dataset(folder: Path, *, seed: int = 0, **options: Any) -> Dataset:
    """Users come and go, take things again, and new items appear until the end."""
    draw = random.Random(seed)
    rows = ["user,item,timestamp"]
    for user in range(60):
        begin = draw.randrange(100)
        for moment in range(begin, begin + draw.randint(1, 30), draw.randint(1, 3)):
            rows.append(f"u{user},i{draw.randrange(1 + moment // 4)},{1_700_000_000 + moment}")
    log = folder / "temporal.csv"
    log.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return prepared(log, split="temporal", valid_from=0.5, test_from=0.7, **options)


def prepared(log: Path, **options: Any) -> Dataset:
    """Prepares a log with all that is in it."""
    return Dataset(preprocess(log, data_dir=log.parent, min_interactions=1, **options).path)
