"""What the baselines take to count and to rank, and what they reach.

    python benches/baselines.py DATASET... [--data-dir data] [--large] [--json results.json]

First each baseline, counted on the first 100 users of a dataset, must score their histories as the
slow twin of the tests. Then it is counted and ranked on the whole, once; times are CPU time in one
thread. ``--large`` also counts 5 million interactions of up to 1 million items, 10 a user, half of
them Pareto-distributed over the items.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blin.batch import Interactions
from blin.config import default_data_dir
from blin.data.dataset import Dataset, load_dataset
from blin.data.loader import history_batch, training_interactions
from blin.evaluation.evaluator import evaluate
from blin.models import BASELINES, MODELS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from reference import counting as reference

USERS = 100


def module_of(name: str, num_items: int) -> Any:
    return MODELS[name].module(num_items, MODELS[name].config())


def names_for(interactions: Interactions) -> list[str]:
    timeless = interactions.times is None
    return [name for name in BASELINES if not (timeless and name == "recent-popularity")]


def check(dataset: Dataset) -> None:
    """Stops unless the fast counts of a few users are those of the slow twin."""
    told = training_interactions(dataset)
    few = told.users < USERS
    items, users = told.items[few], told.users[few]
    codes, items = items.unique(return_inverse=True)
    times = None if told.times is None else told.times[few]
    few_told = Interactions(items + 1, users, times)
    num_items = len(codes)
    sequences = [few_told.items[users == user].tolist() for user in range(USERS)]
    for name in names_for(few_told):
        module = module_of(name, num_items)
        module.count(few_told)
        settings: dict[str, Any] = asdict(module.config)
        for history in sequences[:20]:
            if name == "recent-popularity" and times is not None:
                moments = [times[users == user].tolist() for user in range(USERS)]
                expected = reference.recent_popularity(sequences, moments, num_items, **settings)
            elif name == "popularity":
                expected = reference.popularity(sequences, num_items)
            elif name == "markov":
                expected = reference.markov(sequences, num_items, history)
            else:
                expected = reference.item_knn(sequences, num_items, history, **settings)
            bounds = np.array([0, len(history)], dtype=np.int64)
            row = np.array(history, dtype=np.uint32)
            found = module.score(history_batch(row, bounds[:1], bounds[1:], module.batch_spec))[0]
            if not np.allclose(found.numpy(), expected, rtol=1e-5, atol=0):
                raise SystemExit(f"{dataset.name}: {name} is not what the slow twin gives")


def measure(dataset: Dataset) -> list[dict[str, Any]]:
    told = training_interactions(dataset)
    rows = []
    for name in names_for(told):
        module = module_of(name, dataset.num_items)
        begin = time.process_time()
        module.count(told)
        counted = time.process_time()
        metrics = evaluate(module, dataset, k=(10, 20)).metrics
        ranked = time.process_time()
        row = {"dataset": dataset.name, "model": name, **metrics}
        rows.append({**row, "count": counted - begin, "rank": ranked - counted})
    return rows


def measure_large() -> list[dict[str, Any]]:
    num_items, count = 1_000_000, 5_000_000
    draw = np.random.default_rng(0)
    popular = np.minimum((draw.pareto(0.7, count) * 20).astype(np.int64) + 1, num_items)
    any_item = draw.integers(1, num_items + 1, count)
    items = np.where(draw.random(count) < 0.5, popular, any_item)
    steps = torch.arange(count)
    told = Interactions(torch.from_numpy(items), steps // 10, steps)
    rows = []
    for name in BASELINES:
        module = module_of(name, num_items)
        begin = time.process_time()
        module.count(told)
        seconds = time.process_time() - begin
        size = sum(tensor.nbytes for tensor in module.state_dict().values())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row = {"dataset": "large", "model": name, "count": seconds}
        rows.append({**row, "model_mb": size / 1e6, "peak_mb": peak})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="*")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.datasets:
        dataset = load_dataset(name, data_dir=arguments.data_dir)
        check(dataset)
        rows += measure(dataset)
    if arguments.large:
        rows += measure_large()
    for row in rows:
        figures = (
            f"{key} {value:.4f}" if key[0].isupper() else f"{key} {value:.2f}"
            for key, value in row.items()
            if isinstance(value, float)
        )
        print(f"{row['dataset']:<8} {row['model']:<18} {'  '.join(figures)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
