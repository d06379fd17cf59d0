"""Full ranking of all users: blin against sorting, and against RecBole's evaluation.

    python benches/evaluate.py                                  # as large as Amazon Beauty
    python benches/evaluate.py --dataset beauty --run runs/beauty/20260101-120000-blin-s0
    python benches/evaluate.py --recbole-python ~/recbole/bin/python

RecBole 1.2.1 needs an environment of its own: Python 3.11, and ``pip install recbole==1.2.1 torch
'numpy<2' 'pandas<2.3' 'scipy<1.14' 'setuptools<70'``. Without ``--recbole-python`` it is left out.

All rank the test item of every user among the whole catalogue, by the scores of one model: blin by
counting what scores above it, the plain implementations by sorting all scores, RecBole by its
collector and evaluator (``benches/recbole_peer.py``) in batches of its default size and in smaller
ones. Before a time counts, the metrics must be equal. They take turns, and the median of a round's
ratios is told. With one thread times are CPU times, so that other work counts little.

"ranking" leaves out the scoring: the model's part of blin's time is subtracted, the others get
scores that are there already, with the histories masked (which blin does in its time). "whole" has
it: of blin the evaluation as the command runs it, of RecBole a SASRec of the same size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from blin import Blin
from blin.batch import Batch, BatchSpec
from blin.checkpoint import load_run
from blin.data.dataset import Dataset, load_dataset
from blin.data.loader import flat_histories, history_batch
from blin.evaluation.evaluator import evaluate
from blin.evaluation.metrics import metrics_of
from blin.models import Scorer

K = (10, 20)
NAMES = tuple(f"{metric}@{k}" for k in K for metric in ("HR", "NDCG"))
BATCH = 256
RECBOLE_BATCHES = (4096, 256)
TOLERANCE = 1e-6

Clock = Callable[[], float]

#: Seconds for ranking, seconds with the scoring where there is one, and metrics.
Result = tuple[float, float | None, dict[str, float]]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="blin-bench-") as scratch:
        directory = Path(scratch)
        if arguments.dataset is None:
            dataset = _like_beauty(directory / "data")
        else:
            dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir)
        if arguments.run is None:
            model: Scorer = _briefly_trained(dataset, arguments.threads)
        else:
            model = load_run(arguments.run, device="cpu").model
        _write_scores(model, dataset, directory)
        contestants = {
            "blin": lambda: _blin(model, dataset, clock),
            "sort, torch": lambda: _sorted_by(_torch_places, directory, clock),
            "sort, NumPy": lambda: _sorted_by(_numpy_places, directory, clock),
        }
        peers = []
        if arguments.recbole_python is not None:
            for size in RECBOLE_BATCHES:
                peer = RecBole(arguments, directory, size)
                contestants[f"RecBole, {size:,} users at once"] = peer.evaluate
                peers.append(peer)
        results = _race(contestants, arguments.repeats)
        versions = peers[0].versions if peers else None
        for peer in peers:
            peer.close()
    _print_table(dataset, results)
    if arguments.json:
        facts = {
            "dataset": {"users": dataset.num_users, "items": dataset.num_items},
            "machine": _machine(),
            "threads": arguments.threads,
            "torch": torch.__version__,
            "peer": versions,
            "results": results,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", help="a prepared dataset  [default: made up]")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--run", type=Path, help="whose model to use  [default: one epoch's]")
    parser.add_argument("--recbole-python", type=Path, help="an interpreter that has RecBole")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    return parser.parse_args()


def _like_beauty(data_dir: Path) -> Dataset:
    """Prepares sequences as many and as short as Beauty's, in which many items follow one."""
    draw = np.random.default_rng(0)
    num_users, num_items = 22_363, 12_101
    lengths = np.minimum(5 + draw.geometric(0.25, num_users), 200)
    users = np.repeat(np.arange(num_users), lengths)
    weights = 1 / np.arange(1, num_items + 1) ** 0.8
    popular = draw.choice(num_items, lengths.sum(), p=weights / weights.sum())
    near = (np.roll(popular, 1) + draw.integers(1, 200, lengths.sum())) % num_items
    items = np.where(draw.random(lengths.sum()) < 0.5, popular, near)
    log = pa.table({"user": users, "item": items, "time": np.arange(len(users))})
    return load_dataset(log, data_dir=data_dir, name="like-beauty", min_interactions=1)


def _briefly_trained(dataset: Dataset, threads: int) -> Scorer:
    """Returns a model that has seen the data once, so that some targets are near the top."""
    settings: dict[str, Any] = {"epochs": 1, "kl_weight": 0.0, "max_len": 50, "seed": 0}
    return Blin(device="cpu", threads=threads, **settings).fit(dataset).trained


def _write_scores(model: Scorer, dataset: Dataset, directory: Path) -> None:
    """Writes every user's scores, the history masked, and what a model needs to make its own."""
    users, places = dataset.held_out("test")
    starts = dataset.offsets[users]
    targets = dataset.items[places].astype(np.int64)
    shape = (len(users), dataset.num_items + 1)
    scores = np.lib.format.open_memmap(
        directory / "scores.npy", mode="w+", dtype=np.float32, shape=shape
    )
    width = model.batch_spec.max_len
    histories = np.zeros((len(users), width), dtype=np.int64)
    lengths = np.minimum(places - starts, width)
    for row, (end, length) in enumerate(zip(places, lengths, strict=True)):
        histories[row, :length] = dataset.items[end - length : end]
    for begin in range(0, len(users), BATCH):
        part = slice(begin, begin + BATCH)
        batch = history_batch(dataset.items, starts[part], places[part], model.batch_spec)
        found = model.score(batch)
        own = found.gather(1, torch.from_numpy(targets[part]).unsqueeze(1))
        rows, items = flat_histories(dataset.items, starts[part], places[part])
        found[:, 0] = -torch.inf
        found[rows, items] = -torch.inf
        found.scatter_(1, torch.from_numpy(targets[part]).unsqueeze(1), own)
        scores[part] = found.numpy()
    scores.flush()
    np.save(directory / "targets.npy", targets)
    np.save(directory / "histories.npy", histories)
    np.save(directory / "lengths.npy", lengths)


class Timed:
    """A model that knows how long it has scored."""

    def __init__(self, model: Scorer, clock: Clock) -> None:
        self.model = model
        self.clock = clock
        self.seconds = 0.0

    @property
    def num_items(self) -> int:
        return self.model.num_items

    @property
    def batch_spec(self) -> BatchSpec:
        return self.model.batch_spec

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        begin = self.clock()
        scores = self.model.score(batch, candidates)
        self.seconds += self.clock() - begin
        return scores


def _blin(model: Scorer, dataset: Dataset, clock: Clock) -> Result:
    timed = Timed(model, clock)
    begin = clock()
    found = evaluate(timed, dataset, k=K)
    seconds = clock() - begin
    return seconds - timed.seconds, seconds, found.metrics


def _sorted_by(
    places_of: Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.int64]],
    directory: Path,
    clock: Clock,
) -> Result:
    """Ranks by the place of the target in all scores, sorted."""
    scores = np.load(directory / "scores.npy", mmap_mode="r")
    targets = np.load(directory / "targets.npy")
    ranks = np.empty(len(targets), dtype=np.int64)
    seconds = 0.0
    for begin in range(0, len(targets), BATCH):
        part = slice(begin, begin + BATCH)
        given = np.array(scores[part])
        start = clock()
        ranks[part] = 1 + places_of(given, targets[part])
        seconds += clock() - start
    start = clock()
    metrics = metrics_of(ranks, K)
    return seconds + clock() - start, None, metrics


def _torch_places(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    order = torch.from_numpy(scores).argsort(dim=1, descending=True)
    places = (order == torch.from_numpy(targets).unsqueeze(1)).to(torch.int8).argmax(dim=1)
    return places.numpy()


def _numpy_places(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(-scores, axis=1)
    return np.argmax(order == targets[:, None], axis=1)


class RecBole:
    """RecBole's evaluation in a process of its own interpreter."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, batch_size: int) -> None:
        script = Path(__file__).with_name("recbole_peer.py")
        self.process = subprocess.Popen(
            [arguments.recbole_python, script, directory, str(arguments.threads), str(batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def evaluate(self) -> Result:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        metrics = {
            name.replace("hit", "HR").replace("ndcg", "NDCG"): value
            for name, value in answer["metrics"].items()
        }
        return answer["ranking"], answer["whole"], metrics

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"RecBole ended with code {self.process.wait()}")
        return json.loads(line)


def _race(contestants: dict[str, Callable[[], Result]], repeats: int) -> dict[str, dict[str, Any]]:
    """Lets all take turns, several times round; stops where metrics are not blin's."""
    runs: dict[str, list[Result]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, evaluate_once in contestants.items():
            runs[name].append(evaluate_once())
    expected = runs["blin"][0][2]
    for name, results in runs.items():
        for metric in NAMES:
            off = abs(results[0][2][metric] - expected[metric])
            if off > TOLERANCE:
                sys.exit(f"{name}: {metric} is off blin's by {off:.1e}, so its time means nothing")
    return {
        name: {
            "metrics": {metric: results[0][2][metric] for metric in NAMES},
            "ranking": _figures(runs, name, 0),
            "whole": None if results[0][1] is None else _figures(runs, name, 1),
        }
        for name, results in runs.items()
    }


def _figures(runs: dict[str, list[Result]], name: str, part: int) -> dict[str, Any]:
    ours, seconds = ([result[part] for result in runs[who]] for who in ("blin", name))
    return {
        "seconds": statistics.median(seconds),
        "every_run": seconds,
        "ratio": statistics.median(b / a for a, b in zip(ours, seconds, strict=True)),
    }


def _print_table(dataset: Dataset, results: dict[str, dict[str, Any]]) -> None:
    metrics = ", ".join(f"{name} {results['blin']['metrics'][name]:.4f}" for name in NAMES)
    print(f"{dataset.num_users:,} users, {dataset.num_items:,} items; all agree on {metrics}")
    print(f"{'':28}{'ranking s':>12}{'to blin':>10}{'whole s':>12}{'to blin':>10}")
    for name, result in results.items():
        line = f"{name:28}"
        for part in (result["ranking"], result["whole"]):
            if part is not None:
                line += f"{part['seconds']:>12.2f}{part['ratio']:>9.1f}x"
        print(line)


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
