"""How long SASRec trains until it ranks as well as it should: blin against RecBole and RecTools.

    python benches/train.py --dataset beauty --recbole-python ~/recbole/bin/python \\
        --rectools-python ~/rectools/bin/python

RecBole 1.2.1 needs an environment of its own: Python 3.11, and ``pip install recbole==1.2.1 torch
'numpy<2' 'pandas<2.3' 'scipy<1.14' 'setuptools<70'``. RecTools 0.19 too: ``pip install
'rectools[torch]==0.19.0'``.

All train a SASRec of the same size (64 channels, two blocks, two heads, 50 positions, full
cross-entropy, dropout 0.5, Adam at 0.001) on the same training sequences until its validation
NDCG@10 reaches ``--target``, epoch by epoch in turn. Before a time counts, the number of targets of
an epoch and of the parameters must be about the same: RecBole makes a row of every prefix, also of
those that end before the newest 50 steps of a long sequence, and RecTools' feed-forward network is
as wide as its input. The validation is not in the seconds; all are validated by the same rule. With
one thread times are CPU times, so that other work counts little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from blin.data.dataset import Dataset, load_dataset
from blin.evaluation.evaluator import evaluate
from blin.training.trainer import new_trainer

SIZES = {
    "dim": 64,
    "hidden_dim": 256,
    "num_blocks": 2,
    "num_heads": 2,
    "max_len": 50,
    "dropout": 0.5,
}
METRIC = "NDCG@10"

NEAR = 0.1
"""How far the numbers of targets and parameters may be apart."""

Clock = Callable[[], float]


class Contestant(Protocol):
    """Something that trains: what it has, and an epoch's seconds and NDCG@10 after it."""

    facts: dict[str, Any]

    def epoch(self) -> tuple[float, float]: ...

    def close(self) -> None: ...


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    with tempfile.TemporaryDirectory(prefix="blin-bench-") as scratch:
        directory = Path(scratch)
        _write_log(dataset, directory)
        contestants: dict[str, Contestant] = {"blin": Ours(dataset, arguments)}
        for name in ("recbole", "rectools"):
            python = getattr(arguments, f"{name}_python")
            if python is not None:
                script = Path(__file__).with_name(f"{name}_train_peer.py")
                contestants[name] = Peer(script, python, directory, arguments)
        _check_alike(contestants)
        results = _race(contestants, arguments)
        for contestant in contestants.values():
            contestant.close()
    _print_table(results, arguments.target)
    if arguments.json:
        facts = {
            "target": arguments.target,
            "threads": arguments.threads,
            "contestants": {name: one.facts for name, one in contestants.items()},
            "results": results,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", required=True, help="a prepared dataset")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--recbole-python", help="an interpreter that has RecBole")
    parser.add_argument("--rectools-python", help="an interpreter that has RecTools")
    parser.add_argument("--target", type=float, default=0.05, help=f"validation {METRIC} to reach")
    parser.add_argument("--epochs", type=int, default=60, help="give up after so many")
    parser.add_argument("--users", type=int, default=64, help="of blin and RecTools in a step")
    parser.add_argument("--rows", type=int, default=256, help="of RecBole in a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    return parser.parse_args()


def _write_log(dataset: Dataset, directory: Path) -> None:
    """Writes what the peers read: a log, and what is validated.

    Times are places in the sequence, and tell the same order. The item of the test is in the log,
    since the peers take the last item of each user away themselves.
    """
    (directory / "log").mkdir()
    lengths = np.diff(dataset.offsets)
    users = np.repeat(np.arange(dataset.num_users), lengths)
    times = np.arange(lengths.sum()) - np.repeat(dataset.offsets[:-1], lengths)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [
        f"{user}\t{item}\t{when}"
        for user, item, when in zip(users, dataset.items, times, strict=True)
    ]
    (directory / "log" / "log.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train_ends = np.repeat(dataset.splits[:, 0], lengths)
    training = times < train_ends
    np.savez(
        directory / "training.npz",
        users=users[training],
        items=dataset.items[training],
        times=times[training],
    )
    owners, places = dataset.held_out("valid")
    starts = dataset.offsets[owners]
    histories = np.zeros((len(owners), int((places - starts).max())), dtype=np.int64)
    for row, (start, place) in enumerate(zip(starts, places, strict=True)):
        histories[row, : place - start] = dataset.items[start:place]
    np.save(directory / "histories.npy", histories)
    np.save(directory / "targets.npy", dataset.items[places].astype(np.int64))
    (directory / "sizes.json").write_text(json.dumps(SIZES), encoding="utf-8")


class Ours:
    """blin, in this process."""

    def __init__(self, dataset: Dataset, arguments: argparse.Namespace) -> None:
        settings = {
            **SIZES,
            "activation": "gelu",
            "loss": "softmax",
            "num_negatives": 0,
            "negatives_per": "batch",
            "exclude_history": False,
            "batch_size": arguments.users,
            "learning_rate": 0.001,
        }
        self.trainer = new_trainer(
            dataset, model="sasrec", settings=settings, device="cpu", threads=arguments.threads
        )
        self.clock = _clock(arguments.threads)
        starts, ends = dataset.training_ranges()
        self.facts = {
            "torch": torch.__version__,
            "targets": int((ends - starts - 1).clip(0, SIZES["max_len"]).sum()),
            "steps": self.trainer.loader.steps_per_epoch,
            "parameters": sum(p.numel() for p in self.trainer.module.parameters()),
        }

    def epoch(self) -> tuple[float, float]:
        trainer, progress = self.trainer, self.trainer.progress
        trainer.module.train()
        begin = self.clock()
        for batch in trainer.loader.epoch(progress.epoch):
            trainer.step(batch)
        seconds = self.clock() - begin
        progress.epoch, progress.step = progress.epoch + 1, 0
        found = evaluate(trainer.trained, trainer.dataset, k=(10,), split="valid")
        return seconds, found.metrics[METRIC]

    def close(self) -> None:
        pass


class Peer:
    """A tool in a process of its own interpreter."""

    def __init__(
        self, script: Path, python: str, directory: Path, arguments: argparse.Namespace
    ) -> None:
        size = arguments.rows if script.name.startswith("recbole") else arguments.users
        self.script = script
        self.process = subprocess.Popen(
            [python, script, directory, str(arguments.threads), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._answer()

    def epoch(self) -> tuple[float, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["ndcg"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"{self.script.name} ended with code {self.process.wait()}")


def _clock(threads: int) -> Clock:
    return time.process_time if threads == 1 else time.perf_counter


def _check_alike(contestants: dict[str, Contestant]) -> None:
    expected = contestants["blin"].facts
    for name, contestant in contestants.items():
        for fact in ("targets", "parameters"):
            found = contestant.facts[fact]
            if not abs(found - expected[fact]) <= NEAR * expected[fact]:
                sys.exit(f"{name}: expected about {expected[fact]:,} {fact}, found {found:,}")


def _race(contestants: dict[str, Contestant], arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets each train an epoch in turn until all have come to the target, or given up."""
    results: dict[str, Any] = {
        name: {"seconds": [], "ndcg": [], "reached": False} for name in contestants
    }
    for _ in range(arguments.epochs):
        for name, contestant in contestants.items():
            result = results[name]
            if result["reached"]:
                continue
            seconds, ndcg = contestant.epoch()
            result["seconds"].append(seconds)
            result["ndcg"].append(ndcg)
            result["reached"] = ndcg >= arguments.target
            number = len(result["seconds"])
            print(f"{name}: epoch {number}, {seconds:.1f} s, {METRIC} {ndcg:.4f}", flush=True)
        if all(result["reached"] for result in results.values()):
            break
    return results


def _print_table(results: dict[str, Any], target: float) -> None:
    ours = sum(results["blin"]["seconds"])
    print(f"\nto a validation {METRIC} of {target}")
    print(f"{'':12}{'epochs':>8}{'an epoch s':>14}{'seconds':>10}{'to blin':>10}")
    for name, result in results.items():
        epochs, seconds = len(result["seconds"]), sum(result["seconds"])
        more = "" if result["reached"] else f"  not reached: {max(result['ndcg']):.4f}"
        pace, ratio = seconds / epochs, seconds / ours
        print(f"{name:12}{epochs:>8}{pace:>14.1f}{seconds:>10.1f}{ratio:>9.1f}x{more}")


if __name__ == "__main__":
    main()
