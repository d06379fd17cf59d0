"""Where the time of a training goes: batch, forward, loss, backward, optimiser, validation.

    python benches/step.py --dataset beauty --data-dir data [--set dim=128] [--threads 1]
    python benches/step.py --dataset beauty --set precision=bf16 --compile

The parts are timed one after the other over the same batches, the median of them is taken, and an
epoch is their sum times the number of steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from blin.batch import Batch
from blin.checkpoint import TrainedModel
from blin.cli.train import merged_settings
from blin.config import build
from blin.data.dataset import load_dataset
from blin.data.loader import Rows, TrainingLoader
from blin.evaluation.evaluator import evaluate
from blin.models import MODELS
from blin.models.objective import next_item_loss
from blin.training.config import TrainingConfig
from blin.training.trainer import fitting_max_len


def timed(device: torch.device, call: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """Returns the seconds a call took, and what it returned."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    value = call(*given)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="beauty")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="by torch.compile, the encoder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    dataset = load_dataset(options.dataset, data_dir=options.data_dir)
    settings = {"max_len": fitting_max_len(dataset)}
    settings |= merged_settings({}, {}, options.assignments)
    config = build(TrainingConfig, settings)
    torch.manual_seed(config.seed)
    module: Any = MODELS["blin"].module(dataset.num_items, build(MODELS["blin"].config, settings))
    module.to(device)
    encode = torch.compile(module.encode) if options.compile else module.encode
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate, fused=True)
    rows = Rows(config.padding, config.fit, config.copies, config.pack)
    loader = TrainingLoader(
        dataset, module.batch_spec, rows, batch_size=config.batch_size, seed=config.seed
    )

    table = module.item_embedding.weight

    def batch_at(step: int) -> Batch:
        return loader.batch(loader.users, 0, step).to(device)

    def encode_all(batch: Batch) -> list[torch.Tensor]:
        return [encode(view) for view in batch.views]

    seconds: dict[str, list[float]] = {
        part: [] for part in ("batch", "forward", "loss", "backward", "optimiser")
    }
    warm_up = 3
    for step in range(min(options.steps + warm_up, loader.steps_per_epoch)):
        took = {}
        took["batch"], batch = timed(device, batch_at, step)
        with torch.autocast(
            device.type, precision[config.precision], enabled=config.precision != "fp32"
        ):
            took["forward"], states = timed(device, encode_all, batch)
            took["loss"], losses = timed(
                device, next_item_loss, states, table, batch, module.config
            )
        optimizer.zero_grad(set_to_none=True)
        took["backward"], _ = timed(device, losses.total.backward)
        took["optimiser"], _ = timed(device, optimizer.step)
        if step >= warm_up:
            for part, value in took.items():
                seconds[part].append(value)
    trained = TrainedModel("blin", module, dataset.item_ids)
    validation, _ = timed(device, lambda: evaluate(trained, dataset, split="valid"))

    medians = {part: statistics.median(values) for part, values in seconds.items()}
    step_seconds = sum(medians.values())
    epoch = step_seconds * loader.steps_per_epoch
    print(f"{dataset.name}, {loader.steps_per_epoch} steps an epoch, {options.threads} threads")
    print("| part | ms a step | share |\n|---|---|---|")
    for part, value in medians.items():
        print(f"| {part} | {1000 * value:.2f} | {value / step_seconds:.1%} |")
    print(f"\nan epoch {epoch:.1f} s, validation {validation:.1f} s")
    if options.json:
        result = {"parts": medians, "epoch": epoch, "validation": validation}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
