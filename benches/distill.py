"""What distilling costs beside a plain training of the student, and what the student saves.

    python benches/distill.py --teacher RUN --data-dir data [--model spnn] [--set dim=32]

First, without weight and without cut sequences the student's gradients must be those of a plain
training, to the bit. Then the two are trained side by side, a step of each in turn, each with the
making of its batch. CPU seconds of this process are counted, so that other work on the machine
matters little; the teacher's reading of the training sequences is timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blin.checkpoint import TrainedModel, load_run, open_run_dataset, read_run_config
from blin.cli.distill import COLD_SHARE
from blin.cli.settings import merged_settings
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.models.distillation import DistillationConfig
from blin.training.distillation import Distillation
from blin.training.trainer import Trainer, new_trainer

SCORED = 256


def trainer_of(
    dataset: Dataset,
    options: argparse.Namespace,
    teacher: Distillation | None,
    *,
    cold_share: float = 0.0,
) -> Trainer:
    """Returns what trains the student, with the teacher's knowledge if there is one."""
    settings = merged_settings({}, {"cold_share": cold_share}, options.assignments)
    trainer = new_trainer(
        dataset,
        model=options.model,
        settings=settings,
        device="cpu",
        threads=options.threads,
        distillation=teacher,
    )
    trainer.take_knowledge()
    return trainer


def check_gradients(plain: Trainer, distilled: Trainer) -> None:
    """Raises SystemExit unless a step gives the students of both the same gradients."""
    for trainer in (plain, distilled):
        torch.manual_seed(0)
        trainer.step(trainer.loader.batch(trainer.loader.users, 0, 0))
    others = dict(distilled.trained.module.named_parameters())
    for name, parameter in plain.trained.module.named_parameters():
        one, other = parameter.grad, others[name].grad
        if one is None or other is None or not torch.equal(one, other):
            raise SystemExit(f"{name}: the gradients differ")


def step_seconds(trainer: Trainer, epoch: int, step: int) -> float:
    """Returns the CPU seconds of making a batch and learning from it."""
    begin = time.process_time()
    trainer.step(trainer.loader.batch(trainer.loader.users, epoch, step))
    trainer.progress.step = 0
    return time.process_time() - begin


def scoring_seconds(trained: TrainedModel, dataset: Dataset) -> float:
    """Returns the CPU seconds of scoring the catalogue for one history, of many at a time."""
    users, ends = dataset.held_out("test")[:2]
    starts = dataset.offsets[users[:SCORED]]
    spec = trained.batch_spec
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        batch = history_batch(
            dataset.items, starts, np.asarray(ends[:SCORED]), spec, timestamps=dataset.timestamps
        )
        trained.score(batch)
        seconds.append((time.process_time() - begin) / len(starts))
    return statistics.median(seconds)


def size_of(trained: TrainedModel) -> tuple[int, int]:
    """Returns the numbers that a model learned, and its bytes."""
    parameters = sum(parameter.numel() for parameter in trained.module.parameters())
    weights = trained.module.state_dict().values()
    return parameters, sum(weight.numel() * weight.element_size() for weight in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--model", default="spnn")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = open_run_dataset(
        options.teacher, read_run_config(options.teacher), data_dir=options.data_dir
    )

    idle = DistillationConfig(distill_weight=0.0)
    check_gradients(
        trainer_of(dataset, options, None),
        trainer_of(dataset, options, Distillation.of(options.teacher, dataset, idle)),
    )
    print("without weight and without pieces the gradients are those of a plain training")

    plain = trainer_of(dataset, options, None)
    teacher = Distillation.of(options.teacher, dataset, DistillationConfig())
    begin = time.process_time()
    distilled = trainer_of(dataset, options, teacher, cold_share=COLD_SHARE)
    reading = time.process_time() - begin
    steps = plain.loader.steps_per_epoch
    seconds: dict[str, list[float]] = {"plain": [], "distilled": []}
    for number in range(options.steps + 3):
        epoch, step = divmod(number, max(1, steps - 1))
        for name, trainer in (("plain", plain), ("distilled", distilled)):
            took = step_seconds(trainer, epoch, step)
            if number >= 3:
                seconds[name].append(took)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["distilled"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"{dataset.name}, {options.model}, {steps} steps an epoch, {options.threads} threads")
    for name, value in medians.items():
        print(f"{name}: {1000 * value:.1f} ms a step, {value * steps:.1f} s an epoch")
    print(f"a distilled step takes {ratio:.2f} times a plain one")
    print(f"the teacher reads the training sequences in {reading:.1f} s, once")

    told: dict[str, Any] = {}
    print("| | parameters | bytes | ms a history |\n|---|---|---|---|")
    whose = {"teacher": load_run(options.teacher, device="cpu").model, "student": plain.trained}
    for name, trained in whose.items():
        (parameters, size), scoring = size_of(trained), scoring_seconds(trained, dataset)
        told[name] = {"parameters": parameters, "bytes": size, "seconds": scoring}
        print(f"| {name} {trained.name} | {parameters:,} | {size:,} | {1000 * scoring:.3f} |")
    if options.json:
        result = {"step": medians, "ratio": ratio, "reading": reading, **told}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
