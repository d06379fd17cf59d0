"""``blin evaluate``: the metrics of a run."""

from __future__ import annotations

from pathlib import Path

import click

from blin.cli import options
from blin.cli.output import Output, duration_of


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
    "--negatives",
    type=click.IntRange(min=1),
    help="Rank among this many drawn items only, under metric names of their own.",
)
@click.option(
    "--sampling",
    type=click.Choice(["uniform", "popularity"]),
    default="uniform",
    show_default=True,
    help="How the negatives are drawn.",
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
    negatives: int | None,
    sampling: str,
    seed: int,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Rank the held-out items with a trained model.

    Every item of the catalogue is ranked, except those the user has had already, unless
    --negatives asks for the sampled protocol of many papers.
    """
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
            negatives=negatives,
            sampling=sampling,
            seed=seed,
            on_progress=advance,
        )
    evaluation.save(found.path / "eval")
    output.result(
        {"run": str(found.path), "metrics": evaluation.metrics, "protocol": evaluation.protocol}
    )
    output.table(("metric", split), list(evaluation.metrics.items()), title=str(found.path))
    output.note(f"{evaluation.users:,} users in {duration_of(evaluation.seconds)}")
