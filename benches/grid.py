"""Trains a grid of settings, one factor at a time, and prints what each is worth.

    python benches/grid.py benches/grids/beauty.toml --jobs 2
    python benches/grid.py benches/grids/beauty.toml --jobs 24 --device cuda   # one large GPU

A grid is a TOML file: the dataset, the settings that all runs share, the seeds, and a table of
runs that names what each changes. Runs go side by side, each a ``blin train`` in a process and a
directory of its own. A finished run is never repeated, a stopped one goes on: the same command
may be given again and again. Validation metrics choose; test metrics are shown beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import tomli_w

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

METRICS = ("HR@10", "NDCG@10")


@dataclass(frozen=True)
class Trial:
    """One training of the grid."""

    name: str
    model: str
    dataset: str
    settings: dict[str, Any]
    seed: int
    home: Path

    @property
    def result(self) -> dict[str, Any] | None:
        file = self.home / "result.json"
        return json.loads(file.read_text()) if file.exists() else None


def read_grid(file: Path, out: Path) -> list[Trial]:
    """Returns the trials of a grid file, each with a directory named after it."""
    grid = tomllib.loads(file.read_text(encoding="utf-8"))
    base = grid.get("base", {})
    trials = []
    for name, change in grid["runs"].items():
        settings = {**base, **change}
        model = settings.pop("model", grid.get("model", "blin"))
        seeds = settings.pop("seeds", grid.get("seeds", [0]))
        for seed in seeds:
            folder = "".join(c if c.isalnum() or c in ".=-" else "_" for c in name)
            home = out / grid["dataset"] / f"{folder}-s{seed}"
            trials.append(Trial(name, model, grid["dataset"], settings, seed, home))
    return trials


def run(trial: Trial, options: argparse.Namespace) -> None:
    """Trains a trial to its end, from where it was left."""
    if trial.result is not None:
        return
    runs = trial.home / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    settings = trial.home / "settings.toml"
    content = tomli_w.dumps({"model": trial.model, "settings": trial.settings})
    if settings.exists() and settings.read_text(encoding="utf-8") != content:
        sys.exit(f"{trial.home}: holds a run with other settings: remove it, or rename this one")
    settings.write_text(content, encoding="utf-8")
    command = [sys.executable, "-c", "from blin.cli import main; main()", "train"]
    if (runs / "latest").exists():
        command += ["--resume", "latest"]
    else:
        command += ["--dataset", trial.dataset, "--model", trial.model]
        command += ["--config", str(settings), "--seed", str(trial.seed)]
    command += ["--threads", str(options.threads), "--device", options.device]
    command += ["--data-dir", str(options.data_dir), "--runs-dir", str(runs), "--json"]
    with (trial.home / "log.txt").open("a", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, check=False
        )
    if done.returncode != 0:
        print(f"{trial.name}, seed {trial.seed}: failed, see {trial.home / 'log.txt'}", flush=True)
        return
    result = json.loads(done.stdout)
    lines = (Path(result["run"]) / "history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    result["valid"] = history[result["best_epoch"] - 1]["valid"]
    temporary = trial.home / "result.json.new"
    temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    temporary.replace(trial.home / "result.json")
    print(row(trial.name, [result]), flush=True)


def row(name: str, results: list[dict[str, Any]]) -> str:
    """Returns a line of the table: means over the seeds."""

    def pair(key: str) -> str:
        return " / ".join(f"{mean(r[key][m] for r in results):.4f}"[1:] for m in METRICS)

    epochs = mean(r["epochs"] for r in results)
    pace = mean(r["seconds"] / max(1, r["epochs"]) for r in results)
    best = mean(r["best_epoch"] for r in results)
    cells = [name, str(len(results)), pair("valid"), pair("metrics")]
    cells += [f"{best:.0f} of {epochs:.0f}", f"{pace:.1f} s"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="a TOML file")
    parser.add_argument("--out", type=Path, default=Path("runs/grid"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    # So that a setting of PyTorch's libraries cannot make a run depend on the others.
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    trials = read_grid(options.grid, options.out)
    if not options.table:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda trial: run(trial, options), trials))
    print("\n| change | seeds | validation HR@10 / NDCG@10 | test | best epoch of | an epoch |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(trial.name for trial in trials):
        results = [trial.result for trial in trials if trial.name == name]
        finished = [result for result in results if result is not None]
        if finished:
            print(row(name, finished))


if __name__ == "__main__":
    main()
