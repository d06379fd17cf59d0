"""Makes the frozen run of a format version, once: ``python tests/golden/make_run.py run-v1``.

A run that is there stays as it is: it stands for all that users have on their disks. A new format
version gets a new one beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from blin.checkpoint import load_run
from blin.data.dataset import Dataset
from blin.data.prepare import preprocess
from blin.evaluation.evaluator import evaluate
from blin.inference.recommend import recommend_histories
from blin.training.trainer import resume, train
from small import write_small_log

SETTINGS = {
    "dim": 8,
    "num_blocks": 1,
    "max_len": 8,
    "num_negatives": 5,
    "dropout": 0.1,
    "batch_size": 16,
    "epochs": 3,
    "learning_rate": 0.02,
    "padding": "random-repeat",
}
HISTORY = ["i3", "i4", "i5"]


def main(name: str) -> None:
    place = Path(__file__).parent / name
    place.mkdir()
    log = write_small_log(place / "tiny.csv", users=40, items=20)
    dataset = Dataset(preprocess(log, data_dir=place / "data").path)
    log.unlink()
    options = {"device": "cpu", "threads": 1}
    run = train(dataset, settings=SETTINGS, runs_dir=place / "runs", **options).run
    run = run.rename(place / "run")
    shutil.rmtree(place / "runs")
    (run / "checkpoints" / "lock").unlink()
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(place.resolve()), "/nowhere"))
    model = load_run(run).model
    recommended = recommend_histories(model, [HISTORY], k=5).table
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(run, Path(scratch) / "run"))
        resume(copy, data_dir=place / "data", settings={"epochs": 4}, **options)
        shutil.copyfile(copy / "model" / "model.safetensors", place / "resumed.safetensors")
        history = (copy / "history.jsonl").read_text().splitlines()
    expected = {
        "ranks": evaluate(model, dataset, split="test").ranks.tolist(),
        "recommended": recommended.column("item_id").to_pylist(),
        "scores": recommended.column("score").to_pylist(),
        "next": json.loads(history[-1]),
    }
    (place / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
