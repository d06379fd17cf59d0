"""Where the time of a training goes: batch, forward, loss, backward, optimiser, validation.

    python benches/step.py --dataset beauty --data-dir data [--model sasrec] [--set dim=128]
    python benches/step.py --dataset beauty --set precision=bf16 --compile

The parts are timed one after the other over the same batches, the median of them is taken, and an
epoch is their sum times the number of steps. With one thread on a CPU the time is that which the
process computed for, whatever else the machine does; otherwise it is that of the clock. Forward and
loss are one part where a model does not part them.
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
from blin.cli.settings import merged_settings
from blin.config import build
from blin.data.dataset import load_dataset
from blin.data.loader import Rows, TrainingLoader, training_interactions
from blin.evaluation.evaluator import evaluate
from blin.models import MODELS, Informed
from blin.models.encoder import Encoder
from blin.training.config import TrainingConfig
from blin.training.trainer import fitting_max_len


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """Returns what tells the seconds: of the process, or of the clock where several compute."""
    return time.process_time if device.type == "cpu" and threads == 1 else time.perf_counter


def timed(
    device: torch.device, clock: Callable[[], float], call: Callable[..., Any], *given: Any
) -> tuple[float, Any]:
    """Returns the seconds a call took, and what it returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = clock()
    value = call(*given)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begin, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="beauty")
    known = [name for name, model in MODELS.items() if not model.counted]
    parser.add_argument("--model", default="blin", choices=known)
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
    model = MODELS[options.model]
    settings = {"max_len": fitting_max_len(dataset), **model.defaults}
    settings |= merged_settings({}, {}, options.assignments)
    config = build(TrainingConfig, settings)
    torch.manual_seed(config.seed)
    module: Any = model.module(dataset.num_items, build(model.config, settings))
    module.to(device)
    if isinstance(module, Informed) and module.needs_interactions:
        module.inform(training_interactions(dataset))
    parted = isinstance(module, Encoder) and module.learns_from_states
    if options.compile and not parted:
        parser.error(f"--compile: the loss of {options.model} is no function of its states alone")
    encode = torch.compile(module.encode) if options.compile else module.encode
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate, fused=True)
    loader = TrainingLoader(
        dataset,
        module.batch_spec,
        build(Rows, settings),
        batch_size=config.batch_size,
        seed=config.seed,
    )

    def batch_at(step: int) -> Batch:
        return loader.batch(loader.users, 0, step).to(device)

    def encode_all(batch: Batch) -> list[torch.Tensor]:
        return [encode(view) for view in batch.views]

    clock = clock_of(device, options.threads)
    both = ("forward", "loss") if parted else ("forward and loss",)
    seconds: dict[str, list[float]] = {
        part: [] for part in ("batch", *both, "backward", "optimiser")
    }
    warm_up = 3
    for step in range(min(options.steps + warm_up, loader.steps_per_epoch)):
        took = {}
        took["batch"], batch = timed(device, clock, batch_at, step)
        with torch.autocast(
            device.type, precision[config.precision], enabled=config.precision != "fp32"
        ):
            if parted:
                took["forward"], states = timed(device, clock, encode_all, batch)
                took["loss"], losses = timed(device, clock, module.losses, batch, states)
            else:
                took["forward and loss"], losses = timed(device, clock, module, batch)
        optimizer.zero_grad(set_to_none=True)
        took["backward"], _ = timed(device, clock, losses.total.backward)
        took["optimiser"], _ = timed(device, clock, optimizer.step)
        if step >= warm_up:
            for part, value in took.items():
                seconds[part].append(value)
    trained = TrainedModel(options.model, module, dataset.item_ids)
    validation, _ = timed(device, clock, lambda: evaluate(trained, dataset, split="valid"))

    medians = {part: statistics.median(values) for part, values in seconds.items()}
    step_seconds = sum(medians.values())
    epoch = step_seconds * loader.steps_per_epoch
    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    print(f"{options.model}, {dataset.name}, {loader.steps_per_epoch} steps an epoch, {threads}")
    print("| part | ms a step | share |\n|---|---|---|")
    for part, value in medians.items():
        print(f"| {part} | {1000 * value:.2f} | {value / step_seconds:.1%} |")
    of = "of the process" if clock is time.process_time else "of the clock"
    print(f"\nan epoch {epoch:.1f} s, validation {validation:.1f} s {of}")
    if options.json:
        result = {"parts": medians, "epoch": epoch, "validation": validation}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
