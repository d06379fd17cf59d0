"""Dual RandomPad batches: blin against vectorised NumPy and against one sample at a time.

    python benches/batches.py [--repeats 20] [--json results.json]

All three fill the same two views of a batch: inputs, targets, segments and positions of rows in
which each sequence stands a random number of times. Before anything is timed, all three must give
the same arrays, as must the slow twin of the tests. Times are medians of alternating repeats in one
process; what counts is their ratio. The last column is the share of a training step of the default
model that making its batch takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from blin._core import Batcher
from blin.batch import Batch, View
from blin.models.blin import BlinConfig, BlinModel
from reference import batch as reference

SHAPES = ((256, 100), (1024, 200))
NUM_ITEMS = 10_000
SEED, EPOCH = 3, 1
OPTIONS = {
    "padding": "random-repeat",
    "fit": "whole",
    "copies": "reset",
    "positions": "absolute",
    "seed": SEED,
}

Arrays = list[NDArray[np.int64]]


class Corpus:
    """Sequences as short and as uneven as those of a shop."""

    def __init__(self, users: int) -> None:
        draw = np.random.default_rng(0)
        lengths = np.minimum(3 + draw.geometric(0.12, users), 300)
        self.ends = np.cumsum(lengths).astype(np.int64)
        self.starts = self.ends - lengths
        self.items = draw.integers(1, NUM_ITEMS + 1, self.ends[-1]).astype(np.uint32)


def buffers(users: int, n: int) -> list[list[NDArray[Any]]]:
    """Arrays for two views, as blin takes them: allocated once, filled again and again."""
    types = (np.int64, np.int64, np.int64, np.int64, np.bool_)
    return [[np.zeros((users, n), dtype=kind) for kind in types] for _ in range(2)]


def with_blin(
    batcher: Batcher, users: NDArray[np.uint32], into: list[list[NDArray[Any]]]
) -> list[list[NDArray[Any]]]:
    rows = [batcher.fill(users, EPOCH, view, *into[view]) for view in (0, 1)]
    return [[array[:count] for array in arrays] for arrays, count in zip(into, rows, strict=True)]


def with_numpy(
    corpus: Corpus, users: NDArray[np.uint32], n: int, copies: list[NDArray[np.int64]] | None
) -> list[Arrays]:
    ends = corpus.ends[users]
    m = np.minimum(ends - corpus.starts[users] - 1, n)
    most = np.maximum((n + 1) // (m + 1), 1)
    draw = np.random.default_rng(SEED)
    views = []
    for view in (0, 1):
        times = draw.integers(1, most + 1) if copies is None else copies[view]
        from_right = np.arange(n - 1, -1, -1)[None, :]
        period = (m + 1)[:, None]
        copy, offset = np.divmod(from_right, period)
        real = (copy < times[:, None]) & (offset < period - 1)
        place = np.where(real, ends[:, None] - 2 - offset, 0)
        items = np.where(real, corpus.items[place], 0).astype(np.int64)
        targets = np.where(real, corpus.items[place + 1], 0).astype(np.int64)
        segments = np.where(real, copy + 1, 0)
        positions = np.where(real, np.arange(n)[None, :], 0)
        views.append([items, targets, segments, positions])
    return views


class OneByOne(Dataset[list[list[list[int]]]]):
    """What most published code does: a Python list a sample, tensors at the end."""

    def __init__(
        self, corpus: Corpus, users: NDArray[np.uint32], n: int, copies: list[Any] | None
    ) -> None:
        self.sequences = [
            corpus.items[corpus.starts[user] : corpus.ends[user]].tolist() for user in users
        ]
        self.n = n
        self.copies = copies
        self.draw = np.random.default_rng(SEED)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> list[list[list[int]]]:
        sequence = self.sequences[index][-(self.n + 1) :]
        inputs, answers = sequence[:-1], sequence[1:]
        most = max((self.n + 1) // (len(inputs) + 1), 1)
        views = []
        for view in (0, 1):
            times = (
                int(self.draw.integers(1, most + 1))
                if self.copies is None
                else int(self.copies[view][index])
            )
            items, targets, segments = list(inputs), list(answers), [1] * len(inputs)
            for copy in range(2, times + 1):
                items = [*inputs, 0, *items]
                targets = [*answers, 0, *targets]
                segments = [copy] * len(inputs) + [0, *segments]
            free = [0] * (self.n - len(items))
            items, targets, segments = free + items, free + targets, free + segments
            positions = [place if item else 0 for place, item in enumerate(items)]
            views.append([items, targets, segments, positions])
        return views


def collate(samples: list[Any]) -> list[list[torch.Tensor]]:
    return [
        [torch.tensor([sample[view][array] for sample in samples]) for array in range(4)]
        for view in (0, 1)
    ]


def one_by_one(dataset: OneByOne) -> list[list[torch.Tensor]]:
    return next(iter(DataLoader(dataset, batch_size=len(dataset), collate_fn=collate)))


def check(corpus: Corpus, users: NDArray[np.uint32], n: int, batcher: Batcher) -> None:
    """Stops unless all of them give the arrays of the slow twin."""
    sequences = [
        corpus.items[start:end].tolist()
        for start, end in zip(corpus.starts, corpus.ends, strict=True)
    ]
    ours = with_blin(batcher, users, buffers(len(users), n))
    copies = [view[2].max(axis=1) for view in ours]
    for number, view in enumerate(ours):
        rows = reference.view(
            sequences, users.tolist(), n, pack=False, epoch=EPOCH, number=number, **OPTIONS
        )
        twin = [
            np.array([[getattr(step, name) for step in row] for row in rows])
            for name in ("item", "target", "segment", "position")
        ]
        others = {
            "the twin": twin,
            "NumPy": with_numpy(corpus, users, n, copies)[number],
            "one by one": one_by_one(OneByOne(corpus, users, n, copies))[number],
        }
        for name, arrays in others.items():
            for mine, theirs in zip(view[:4], arrays, strict=True):
                if not np.array_equal(mine, np.asarray(theirs)):
                    raise SystemExit(f"{name} and blin differ at {len(users)} × {n}")


def step_seconds(batcher: Batcher, users: NDArray[np.uint32], n: int) -> float:
    """Seconds of one training step of the default model on such a batch, packed."""
    torch.manual_seed(0)
    model = BlinModel(NUM_ITEMS, BlinConfig(max_len=n))
    views = [
        View(*(torch.from_numpy(array) for array in arrays))
        for arrays in with_blin(batcher, users, buffers(len(users), n))
    ]
    negatives = torch.randint(1, NUM_ITEMS + 1, (1024,))
    batch = Batch(torch.from_numpy(users.astype(np.int64)), tuple(views), negatives, torch.empty(0))

    def step() -> None:
        model.zero_grad()
        model(batch).total.backward()

    return median_seconds({"step": step}, 3)["step"]


def median_seconds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each job, the median of repeats that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for name in jobs:
        jobs[name]()
    for _ in range(repeats):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    corpus = Corpus(20_000)
    results = []
    print(
        f"{'users × positions':>18} {'blin':>10} {'NumPy':>16} {'one by one':>18} {'of a step':>10}"
    )
    for size, n in SHAPES:
        users = np.random.default_rng(1).permutation(20_000)[:size].astype(np.uint32)
        rows = {"max_len": n, **OPTIONS}
        batcher = Batcher(corpus.items, corpus.starts, corpus.ends, pack=False, **rows)
        check(corpus, users, n, batcher)
        samples = OneByOne(corpus, users, n, None)
        into = buffers(size, n)
        jobs: dict[str, Callable[[], object]] = {
            "blin": lambda b=batcher, u=users, into=into: with_blin(b, u, into),
            "NumPy": lambda u=users, n=n: with_numpy(corpus, u, n, None),
            "one by one": lambda s=samples: one_by_one(s),
        }
        seconds = median_seconds(jobs, arguments.repeats)
        packed = Batcher(
            corpus.items, corpus.starts, corpus.ends, pack=True, **{**rows, "padding": "zero"}
        )
        making = median_seconds(
            {"blin": lambda b=packed, u=users, into=into: with_blin(b, u, into)},
            arguments.repeats,
        )["blin"]
        share = making / step_seconds(packed, users, n)
        blin = seconds["blin"]
        print(
            f"{size:>12} × {n:>3} {blin * 1e3:>7.2f} ms"
            f" {seconds['NumPy'] * 1e3:>7.2f} ms {seconds['NumPy'] / blin:>4.0f}×"
            f" {seconds['one by one'] * 1e3:>8.1f} ms {seconds['one by one'] / blin:>5.0f}×"
            f" {share:>9.3%}"
        )
        results.append({"users": size, "max_len": n, "seconds": seconds, "share_of_step": share})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
