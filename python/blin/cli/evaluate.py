"""``blin evaluate``: the metrics of a run."""

from __future__ import annotations

from collections.abc import Sequence
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
    help="How the negatives are drawn.  [default: uniform]",
)
@click.option(
    "--last",
    cls=options.Several,
    type=click.IntRange(min=1),
    metavar="NUMBER...",
    help="Show the model only so many items of each history, the newest, as if all users were new: "
    "--last 1 2 3. Nothing else changes: all users are ranked, among the same items, without those "
    "of their whole history. Each has metric names of its own.",
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
@options.threads
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
    sampling: str | None,
    last: tuple[int, ...],
    groups: bool,
    beyond_accuracy: bool,
    seed: int,
    threads: int | None,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Rank the held-out items with a trained model.

    Every item of the catalogue is ranked, except those the user has had already, unless
    --negatives asks for the sampled protocol of many papers. The metrics and the rank of each item
    are kept in the run.

    --last tells how a model does on short histories. Items that nobody had in training are not what
    it is about: no model of blin can know them.
    """
    if negatives is not None and beyond_accuracy:
        raise click.UsageError("--beyond-accuracy is of full ranking: leave out --negatives")
    if negatives is None and sampling is not None:
        raise click.UsageError("--sampling is of drawn items: give --negatives NUMBER")
    from blin.checkpoint import find_run, load_run
    from blin.evaluation.evaluator import evaluate as rank
    from blin.experiments.keeping import keep_evaluation, weights_of

    path = find_run(runs_dir, run)
    weights = weights_of(path)
    found = load_run(path, device=device, threads=threads)
    dataset = found.dataset(data_dir=data_dir)
    evaluations = []
    for shown in dict.fromkeys(last) or (None,):
        with output.bar(f"rank users by their last {shown}" if shown else "rank users") as advance:
            evaluation = rank(
                found.model,
                dataset,
                k=k,
                split=split,
                targets=targets,
                repeats=repeats,
                negatives=negatives,
                sampling=sampling or "uniform",
                seed=seed,
                last=shown,
                beyond_accuracy=beyond_accuracy,
                on_progress=advance,
            )
        keep_evaluation(evaluation, path, weights=weights)
        evaluations.append(evaluation)
    told = [_told(each, groups=groups) for each in evaluations]
    output.result({"run": str(path), **({"evaluations": told} if last else told[0])})
    show(evaluations, output, title=str(path), groups=groups)


def _told(evaluation: Evaluation, *, groups: bool) -> dict[str, object]:
    """Returns an evaluation as JSON has it."""
    told: dict[str, object] = {
        "metrics": evaluation.metrics,
        "intervals": evaluation.intervals,
        "protocol": evaluation.protocol,
    }
    if groups:
        told["groups"] = evaluation.groups
    if evaluation.beyond_accuracy is not None:
        told["beyond_accuracy"] = evaluation.beyond_accuracy
    return told


def show(evaluations: Sequence[Evaluation], output: Output, *, title: str, groups: bool) -> None:
    """Prints the metrics with their intervals, and what else was asked for."""
    split = str(evaluations[0].protocol["split"])
    rows = []
    for each in evaluations:
        ends = {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in each.intervals.items()}
        rows += [(name, value, ends.get(name, "")) for name, value in each.metrics.items()]
    output.table(("metric", split, "95% interval"), rows, title=title)
    for each in evaluations:
        for kind, members in each.groups.items() if groups else ():
            columns = [kind, "users", "targets", *each.metrics]
            cells = [
                (name, group["users"], group["targets"], *group["metrics"].values())
                for name, group in members.items()
            ]
            output.table(columns, cells)
        if each.beyond_accuracy is not None:
            output.table(("of the lists", split), list(each.beyond_accuracy.items()))
    seconds = sum(each.seconds for each in evaluations)
    output.note(f"{evaluations[0].users:,} users in {duration_of(seconds)}")
