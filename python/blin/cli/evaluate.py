"""``blin evaluate``: the metrics of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output, duration_of

if TYPE_CHECKING:
    from blin.evaluation.evaluator import Evaluation


@click.command(cls=options.Command, short_help="Rank the held-out items with a run.")
@options.run
@click.option(
    "--k",
    cls=options.Several,
    type=click.IntRange(min=1),
    default=(10, 20),
    metavar="NUMBER...",
    help="How long the lists are: --k 10 20, --k 10,20 or --k 10 --k 20.  [default: 10 20]",
)
@click.option(
    "--split",
    type=click.Choice(["test", "valid"]),
    default="test",
    show_default=True,
    help="Which held-out items to rank.",
)
@click.option(
    "--targets",
    type=click.Choice(["first", "last", "all"]),
    default="first",
    show_default=True,
    help="Which items of a user to rank where a temporal split holds out several.",
)
@click.option(
    "--repeats",
    type=click.Choice(["candidate", "miss", "skip"]),
    default="candidate",
    show_default=True,
    help="Whether a held-out item that the user has had before is ranked as any other, counts as "
    "a miss or is left out.",
)
@options.count(
    "--negatives",
    help="Rank among this many drawn items only, under metric names of their own.",
)
@click.option(
    "--sampling",
    type=click.Choice(["uniform", "popularity"]),
    default="uniform",
    show_default=True,
    help="How the negatives are drawn.",
)
@click.option(
    "--groups",
    is_flag=True,
    help="Also show the metrics by history, by popularity of the item, of new items and repeats.",
)
@click.option(
    "--beyond-accuracy",
    is_flag=True,
    help="Also measure the lists: coverage, novelty, share of popular items, Gini.",
)
@options.seed
@options.device
@options.moved_data_dir
@options.runs_dir
@options.output
def evaluate(
    run: str | None,
    k: tuple[int, ...],
    split: str,
    targets: str,
    repeats: str,
    negatives: int | None,
    sampling: str,
    groups: bool,
    beyond_accuracy: bool,
    seed: int,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Rank the held-out items with a trained model.

    Every item of the catalogue is ranked, except those the user has had already, unless
    --negatives asks for the sampled protocol of many papers. The metrics and the rank of each item
    are kept in the run.
    """
    if negatives is not None and beyond_accuracy:
        raise click.UsageError("--beyond-accuracy is of full ranking: leave out --negatives")
    from blin.checkpoint import find_run, load_run
    from blin.evaluation.evaluator import evaluate as rank

    found = load_run(find_run(runs_dir, run), device=device)
    dataset = found.dataset(data_dir=data_dir)
    with output.bar("rank users") as advance:
        evaluation = rank(
            found.model,
            dataset,
            k=k,
            split=split,
            targets=targets,
            repeats=repeats,
            negatives=negatives,
            sampling=sampling,
            seed=seed,
            beyond_accuracy=beyond_accuracy,
            on_progress=advance,
        )
    evaluation.save(found.path / "eval")
    told: dict[str, object] = {
        "run": str(found.path),
        "metrics": evaluation.metrics,
        "intervals": evaluation.intervals,
        "protocol": evaluation.protocol,
    }
    if groups:
        told["groups"] = evaluation.groups
    if beyond_accuracy:
        told["beyond_accuracy"] = evaluation.beyond_accuracy
    output.result(told)
    show(evaluation, output, title=str(found.path), groups=groups)


def show(evaluation: Evaluation, output: Output, *, title: str, groups: bool) -> None:
    """Prints the metrics with their intervals, and what else was asked for."""
    split = str(evaluation.protocol["split"])
    ends = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in evaluation.intervals.items()}
    rows = [(name, value, ends.get(name, "")) for name, value in evaluation.metrics.items()]
    output.table(("metric", split, "95% interval"), rows, title=title)
    for kind, members in evaluation.groups.items() if groups else ():
        columns = [kind, "users", "targets", *evaluation.metrics]
        cells = [
            (name, group["users"], group["targets"], *group["metrics"].values())
            for name, group in members.items()
        ]
        output.table(columns, cells)
    if evaluation.beyond_accuracy is not None:
        output.table(("of the lists", split), list(evaluation.beyond_accuracy.items()))
    output.note(f"{evaluation.users:,} users in {duration_of(evaluation.seconds)}")
