"""``blin ablate``: what each part of Blin is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.compare import show_comparisons
from blin.cli.lookup import open_dataset
from blin.cli.settings import merged_settings
from blin.cli.trainings import Trainings, base_of, exit_if_failed, many_trainings

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.evaluation.significance import Comparison
    from blin.experiments.results import Results

NAME = "ablation"
METRICS = ("HR@10", "NDCG@10")


@click.command(cls=options.Command, short_help="Train Blin without each of its parts, and compare.")
@options.dataset
@options.config
@options.assignments
@options.count("--epochs", help="The most epochs of each training.")
@options.resampling
@many_trainings
def ablate(
    dataset: str,
    config: str | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    dry_run: bool,
    seeds: tuple[int, ...],
    confidence: float,
    resamples: int,
    data_dir: Path,
    trainings: Trainings,
) -> None:
    """Train Blin whole and without each of its parts, and compare.

    \b
      A  blin      all of it
      B  blin-zc   zero padding and item cropping
      C  blin-d    softmax attention in place of the linear one
      D  blin-dwc  no convolution
      E  blin-bkl  no agreement of two views

    All have the same settings but for what is taken away; settings that lack it already are
    refused. Each is compared with A on the test
    items, user by user, the mean over the seeds standing for a user. As with blin sweep, the same
    command goes on, and no finished run is repeated.
    """
    from blin.experiments.ablation import ablation, check_ablation
    from blin.experiments.points import check

    _, base = base_of(config, ("blin",), {"epochs": epochs})
    base = merged_settings(base, {}, assignments)
    points = ablation(base, seeds or (0,))
    check(points)
    check_ablation(base)
    output = trainings.output
    opened = open_dataset(dataset, data_dir=data_dir, output=output, may_fetch=not dry_run)
    if dry_run:
        trainings.show_plan(points, opened)
        return
    results = trainings.train_points(points, opened, name=NAME)
    trainings.show(results, opened, title=NAME, name=NAME, confidence=confidence)
    comparisons = compared(results, opened, trainings, confidence=confidence, resamples=resamples)
    output.result(
        {
            "directory": str(trainings.directory(opened, NAME)),
            **results.as_json(confidence),
            "comparisons": [asdict(each) for each in comparisons],
        }
    )
    exit_if_failed(results)


def compared(
    results: Results,
    dataset: Dataset,
    trainings: Trainings,
    *,
    confidence: float,
    resamples: int,
) -> list[Comparison]:
    """Compares all rows with the first one, prints the table and returns it."""
    from blin.experiments.ablation import ABLATIONS
    from blin.experiments.comparison import compare_with_first, rank
    from blin.experiments.report import letter_of

    rows = results.rows
    if len(rows) < 2 or rows[0].point.model != next(iter(ABLATIONS)):
        return []
    output = trainings.output
    with output.bar("rank the test items") as advance:
        ranked = rank(
            rows, data_dir=dataset.path.parent, device=trainings.device, on_progress=advance
        )
    comparisons = compare_with_first(ranked, METRICS, confidence=confidence, resamples=resamples)
    means = {
        each.name: {m + each.suffix: each.interval(m, confidence).mean for m in METRICS}
        for each in ranked
    }
    of_models = {model: letter_of(place) for place, model in enumerate(ABLATIONS)}
    letters = {point.name: of_models[point.model] for point in results.points}
    output.note()
    output.note(", ".join(f"{letter}: {name}" for name, letter in letters.items()))
    show_comparisons(comparisons, means, letters, confidence=confidence, show=output.table)
    return comparisons
