"""Dual RandomPad batches: blin against vectorised NumPy and against one sample at a time.

    python benches/batches.py [--repeats 50] [--json results.json]

All three fill the same two views of a batch: inputs, targets, segments, positions, numbers of the
copies and of the steps, for rows in which each sequence stands a random number of times. Before
anything is timed, all three must give the same arrays, as must the slow twin of the tests. blin and
NumPy are timed with arrays that are filled again and again, and with fresh ones for every batch.

"memset" and "memcpy" are the limits of the machine: as many bytes as the two views have, written
once or copied once by one thread. Times are the best of repeats that take turns in one process,
each after a run that is not timed, since the machine may have other work; what counts is their
ratio.

Then the default model is trained for some steps on sequences like these, by the loader that
training uses. It tells how long a step took, and how long training waited for its batches.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
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
from blin.data.dataset import Dataset as Prepared
from blin.data.loader import Rows, TrainingLoader
from blin.data.prepare import preprocess
from blin.models.blin import BlinConfig, BlinModel
from reference import batch as reference

SHAPES = ((256, 100), (1024, 200))
NUM_ITEMS = 10_000
NUM_USERS = 20_000
SEED, EPOCH = 3, 1
OPTIONS = {
    "padding": "random-repeat",
    "fit": "whole",
    "copies": "reset",
    "positions": "absolute",
    "seed": SEED,
}
NAMES = ("item", "target", "segment", "position", "copy", "step")
TYPES = (np.int64, np.int64, np.int32, np.int32, np.int32, np.int64)
AIMS = {"NumPy": 10, "one by one": 100}

Arrays = list[NDArray[Any]]


class Corpus:
    """Sequences as short and as uneven as those of a shop."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        lengths = np.minimum(3 + draw.geometric(0.12, NUM_USERS), 300)
        self.ends = np.cumsum(lengths).astype(np.int64)
        self.starts = self.ends - lengths
        self.items = draw.integers(1, NUM_ITEMS + 1, self.ends[-1]).astype(np.uint32)

    def sequences(self) -> list[list[int]]:
        bounds = zip(self.starts, self.ends, strict=True)
        return [self.items[start:end].tolist() for start, end in bounds]


class WithBlin:
    """The core, called as the loader calls it."""

    def __init__(self, corpus: Corpus, users: NDArray[np.uint32], n: int) -> None:
        self.batcher = Batcher(
            corpus.items, corpus.starts, corpus.ends, max_len=n, pack=False, **OPTIONS
        )
        self.users = users
        self.n = n
        self.kept = self.buffers()

    def buffers(self) -> tuple[list[Arrays], NDArray[np.int64]]:
        shape = (len(self.users), self.n)
        views = [[np.empty(shape, dtype=kind) for kind in TYPES] for _ in range(2)]
        return views, np.empty(len(self.users) * self.n, dtype=np.int64)

    def fill(self, buffers: tuple[list[Arrays], NDArray[np.int64]]) -> list[Arrays]:
        views, step_users = buffers
        arrays = [(*view, None) for view in views]
        self.batcher.fill(self.users, EPOCH, arrays, step_users)
        return views

    def again(self) -> list[Arrays]:
        return self.fill(self.kept)

    def fresh(self) -> list[Arrays]:
        return self.fill(self.buffers())


class WithNumPy:
    """Whole arrays at a time: which copy and which place in it each slot is, then one gather."""

    def __init__(
        self,
        corpus: Corpus,
        users: NDArray[np.uint32],
        n: int,
        copies: list[NDArray[np.int64]] | None = None,
    ) -> None:
        self.corpus, self.users, self.n, self.copies = corpus, users, n, copies
        self.draw = np.random.default_rng(SEED)
        shape = (len(users), n)
        self.kept = [[np.empty(shape, dtype=kind) for kind in TYPES] for _ in range(2)]
        self.scratch = [np.empty(shape, dtype=np.int32) for _ in range(2)]
        self.scratch += [np.empty(shape, dtype=np.uint32), np.empty(shape, dtype=np.int64)]
        self.real = [np.empty(shape, dtype=np.bool_) for _ in range(2)]

    def again(self) -> list[Arrays]:
        """With ``out`` wherever NumPy has one: no array of a batch's size is allocated."""
        corpus, n = self.corpus, self.n
        ends = corpus.ends[self.users]
        m = np.minimum(ends - corpus.starts[self.users] - 1, n)
        most = np.maximum((n + 1) // (m + 1), 1)
        first = (np.cumsum(m) - m)[:, None]
        from_right = np.arange(n - 1, -1, -1, dtype=np.int32)[None, :]
        period = (m + 1).astype(np.int32)[:, None]
        copy, offset, gathered, place = self.scratch
        real, inside = self.real
        for view, (items, targets, segments, positions, numbers, steps) in enumerate(self.kept):
            times = self.draw.integers(1, most + 1) if self.copies is None else self.copies[view]
            np.divmod(from_right, period, out=(copy, offset))
            np.less(copy, times[:, None], out=real)
            np.less(offset, period - 1, out=inside)
            np.logical_and(real, inside, out=real)
            np.subtract((ends - 2)[:, None], offset, out=place)
            np.multiply(place, real, out=place)
            np.take(corpus.items, place, out=gathered, mode="clip")
            np.multiply(gathered, real, out=items)
            np.add(place, 1, out=place)
            np.take(corpus.items, place, out=gathered, mode="clip")
            np.multiply(gathered, real, out=targets)
            np.add(copy, 1, out=copy)
            np.multiply(copy, real, out=segments)
            np.copyto(numbers, segments)
            np.multiply(np.arange(n, dtype=np.int32)[None, :], real, out=positions)
            np.subtract(first + m[:, None], offset, out=steps)
            np.multiply(steps, real, out=steps)
            np.subtract(steps, 1, out=steps)
        return self.kept

    def fresh(self) -> list[Arrays]:
        corpus, n = self.corpus, self.n
        ends = corpus.ends[self.users]
        m = np.minimum(ends - corpus.starts[self.users] - 1, n)
        most = np.maximum((n + 1) // (m + 1), 1)
        first = (np.cumsum(m) - m)[:, None]
        from_right = np.arange(n - 1, -1, -1, dtype=np.int32)[None, :]
        period = (m + 1).astype(np.int32)[:, None]
        views = []
        for view in (0, 1):
            times = self.draw.integers(1, most + 1) if self.copies is None else self.copies[view]
            copy, offset = np.divmod(from_right, period)
            real = (copy < times[:, None]) & (offset < period - 1)
            place = np.where(real, ends[:, None] - 2 - offset, 0)
            items = np.where(real, corpus.items[place], 0).astype(np.int64)
            targets = np.where(real, corpus.items[place + 1], 0).astype(np.int64)
            segments = np.where(real, copy + 1, np.int32(0))
            positions = np.where(real, np.arange(n, dtype=np.int32)[None, :], np.int32(0))
            steps = np.where(real, first + m[:, None] - 1 - offset, -1)
            views.append([items, targets, segments, positions, segments.copy(), steps])
        return views


class OneByOne(Dataset[list[list[list[int]]]]):
    """What most published code does: a Python list a sample, tensors at the end."""

    def __init__(
        self,
        corpus: Corpus,
        users: NDArray[np.uint32],
        n: int,
        copies: list[NDArray[np.int64]] | None = None,
    ) -> None:
        self.sequences = [
            corpus.items[corpus.starts[user] : corpus.ends[user]].tolist() for user in users
        ]
        lengths = [min(len(sequence) - 1, n) for sequence in self.sequences]
        self.first = (np.cumsum(lengths) - lengths).tolist()
        self.n = n
        self.copies = copies
        self.draw = np.random.default_rng(SEED)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> list[list[list[int]]]:
        sequence = self.sequences[index][-(self.n + 1) :]
        inputs, answers = sequence[:-1], sequence[1:]
        own = list(range(self.first[index], self.first[index] + len(inputs)))
        most = max((self.n + 1) // (len(inputs) + 1), 1)
        views = []
        for view in (0, 1):
            times = (
                int(self.draw.integers(1, most + 1))
                if self.copies is None
                else int(self.copies[view][index])
            )
            items, targets, steps = list(inputs), list(answers), list(own)
            segments = [1] * len(inputs)
            for copy in range(2, times + 1):
                items = [*inputs, 0, *items]
                targets = [*answers, 0, *targets]
                steps = [*own, -1, *steps]
                segments = [copy] * len(inputs) + [0, *segments]
            free = [0] * (self.n - len(items))
            items, targets, segments = free + items, free + targets, free + segments
            steps = [-1] * len(free) + steps
            positions = [place if item else 0 for place, item in enumerate(items)]
            views.append([items, targets, segments, positions, list(segments), steps])
        return views

    def batch(self) -> list[list[torch.Tensor]]:
        whole: list[list[torch.Tensor]] = next(
            iter(DataLoader(self, batch_size=len(self), collate_fn=collate))
        )
        return whole


def collate(samples: list[Any]) -> list[list[torch.Tensor]]:
    return [
        [
            torch.tensor([sample[view][array] for sample in samples], dtype=kind)
            for array, kind in enumerate(torch.from_numpy(np.empty(0, t)).dtype for t in TYPES)
        ]
        for view in (0, 1)
    ]


def check(corpus: Corpus, users: NDArray[np.uint32], n: int) -> None:
    """Stops unless all of them give the arrays of the slow twin, types included."""
    ours = WithBlin(corpus, users, n).fresh()
    copies = [view[4].max(axis=1).astype(np.int64) for view in ours]
    expected = reference.views(
        corpus.sequences(), users.tolist(), n, pack=False, epoch=EPOCH, **OPTIONS
    )
    twin = [
        [
            np.array([[getattr(slot, name) for slot in row] for row in rows], dtype=kind)
            for name, kind in zip(NAMES, TYPES, strict=True)
        ]
        for rows in expected.views
    ]
    others: dict[str, list[Any]] = {
        "the twin": twin,
        "NumPy": WithNumPy(corpus, users, n, copies).fresh(),
        "NumPy with arrays of its own": WithNumPy(corpus, users, n, copies).again(),
        "one by one": OneByOne(corpus, users, n, copies).batch(),
    }
    for name, views in others.items():
        for mine, theirs in zip(ours, views, strict=True):
            for one, other in zip(mine, map(np.asarray, theirs), strict=True):
                if one.dtype != other.dtype or not np.array_equal(one, other):
                    raise SystemExit(f"{name} and blin differ at {len(users)} × {n}")


def limits(size: int, n: int) -> dict[str, Callable[[], object]]:
    """Jobs that write as many bytes as two views have, and copy as many."""
    count = 2 * size * n * sum(np.dtype(kind).itemsize for kind in TYPES)
    source, target = np.ones(count, dtype=np.uint8), np.empty(count, dtype=np.uint8)
    return {"memset": lambda: target.fill(0), "memcpy": lambda: np.copyto(target, source)}


def best_seconds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each job, the best of repeats that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            job()
            begin = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - begin)
    return {name: min(values) for name, values in seconds.items()}


def race(corpus: Corpus, size: int, n: int, repeats: int) -> dict[str, Any]:
    users = np.random.default_rng(1).permutation(NUM_USERS)[:size].astype(np.uint32)
    check(corpus, users, n)
    blin, numpy = WithBlin(corpus, users, n), WithNumPy(corpus, users, n)
    jobs: dict[str, Callable[[], object]] = {
        "blin": blin.again,
        "NumPy": numpy.again,
        "blin, fresh arrays": blin.fresh,
        "NumPy, fresh arrays": numpy.fresh,
        **limits(size, n),
    }
    seconds = best_seconds(jobs, repeats)
    samples = OneByOne(corpus, users, n)
    seconds |= best_seconds({"one by one": samples.batch}, max(3, repeats // 10))
    return {"users": size, "max_len": n, "seconds": seconds}


def prepared(corpus: Corpus, folder: Path) -> Prepared:
    """The sequences as a prepared dataset, with two more items a user to hold out."""
    log = folder / "shop.csv"
    draw = np.random.default_rng(2)
    with log.open("w") as file:
        file.write("user,item,timestamp\n")
        for user, sequence in enumerate(corpus.sequences()):
            later = draw.integers(1, NUM_ITEMS + 1, 2).tolist()
            for step, item in enumerate([*sequence, *later]):
                file.write(f"{user},{item},{1_700_000_000 + step}\n")
    return Prepared(preprocess(log, data_dir=folder / "data", min_interactions=1).path)


def train(dataset: Prepared, size: int, n: int, *, steps: int) -> dict[str, Any]:
    """Trains the default model and returns what a step took, and what of it was waiting."""
    torch.manual_seed(0)
    model = BlinModel(dataset.num_items, BlinConfig(max_len=n))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    rows = Rows(padding="zero", fit="whole", copies="reset", pack=True)
    loader = TrainingLoader(dataset, model.batch_spec, rows, batch_size=size, seed=SEED)
    done, first_wait = 0, 0.0
    begin = time.perf_counter()
    for batch in loader.epoch(0):
        first_wait = first_wait or loader.waited
        optimizer.zero_grad(set_to_none=True)
        model(batch).total.backward()
        optimizer.step()
        done += 1
        if done == steps:
            break
    seconds = time.perf_counter() - begin
    order = loader.users.copy()
    making = best_seconds({"batch": lambda: loader.batch(order, 0, 0)}, 20)["batch"]
    return {
        "steps": done,
        "step_seconds": seconds / done,
        "batch_seconds": making,
        "first_wait_seconds": first_wait,
        "later_wait_seconds": loader.waited - first_wait,
        "waited_share": loader.waited / seconds,
    }


def show(result: dict[str, Any]) -> None:
    seconds = result["seconds"]
    print(f"\n{result['users']:,} users × {result['max_len']} positions, two views")
    for name, value in seconds.items():
        against = seconds["blin, fresh arrays" if "fresh" in name else "blin"]
        print(f"  {name:<20} {value * 1e3:>9.3f} ms {value / against:>8.2f} × blin")
    for name, aim in AIMS.items():
        ratio = seconds[name] / seconds["blin"]
        if ratio < aim:
            limit = seconds[name] / seconds["memset"]
            print(f"  {name}: {ratio:.1f} × missed the aim of {aim} ×; memset is at {limit:.1f} ×")
    run = result["training"]
    print(
        f"  training: a step {run['step_seconds'] * 1e3:.0f} ms, its batch"
        f" {run['batch_seconds'] * 1e3:.2f} ms ({run['batch_seconds'] / run['step_seconds']:.3%});"
        f" waited {run['first_wait_seconds'] * 1e3:.2f} ms for the first of {run['steps']} batches"
        f" and {run['later_wait_seconds'] * 1e3:.2f} ms for the others"
        f" ({run['waited_share']:.3%} of the time)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10, help="of training, for each shape")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in training")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    corpus = Corpus()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepared(corpus, Path(folder))
        for size, n in SHAPES:
            result = race(corpus, size, n, arguments.repeats)
            result["training"] = train(dataset, size, n, steps=arguments.steps)
            show(result)
            results.append(result)
    if arguments.json:
        facts = {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "threads": torch.get_num_threads(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        text = json.dumps({"machine": facts, "results": results}, indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
