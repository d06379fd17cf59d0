"""``blin compare``: whether one run is better than another, or only luckier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output
from blin.errors import CheckpointError

if TYPE_CHECKING:
    from blin.evaluation.significance import Comparison


@click.command(short_help="Tell whether runs differ by more than chance.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--evaluation",
    default="test",
    show_default=True,
    metavar="NAME",
    help="Which of the runs' evaluations: test, valid, test-uniform-500-s0, ...",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=("HR@10", "NDCG@10"),
    metavar="NAME",
    help="What to compare by; may be given several times.  [default: HR@10, NDCG@10]",
)
@click.option("--all-pairs", is_flag=True, help="Compare each with each, not all with the first.")
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals.",
)
@click.option(
    "--resamples",
    type=click.IntRange(min=99),
    default=9999,
    show_default=True,
    help="Of each bootstrap and of each permutation test.",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@options.seed
@options.runs_dir
@options.output
def compare(
    runs: tuple[str, ...],
    evaluation: str,
    metrics: tuple[str, ...],
    all_pairs: bool,
    confidence: float,
    resamples: int,
    markdown: bool,
    seed: int,
    runs_dir: Path,
    output: Output,
) -> None:
    """Compare runs with the first of them, user by user.

    For each metric: the mean difference with its bootstrap interval, the p-value of a paired
    permutation test, corrected by Holm for the number of comparisons made, the size of the effect,
    and for how many users the run does better (wins), worse (losses) and equally well (ties).

    Runs evaluated by different protocols, or on other users or items, are refused.
    """
    if markdown and output.json:
        raise click.UsageError("give either --markdown or --json")
    from blin.checkpoint import find_run
    from blin.evaluation.per_user import read_per_user
    from blin.evaluation.protocol import metric_suffix
    from blin.evaluation.significance import compare as compare_evaluations
    from blin.evaluation.significance import values_of
    from blin.experiments.report import letter_of

    places = [find_run(runs_dir, run) for run in runs]
    if len(places) < 2:
        raise click.UsageError("give two runs or more")
    for number, run in enumerate(places):
        if run in places[:number]:
            raise click.UsageError(f"{run}: given twice")
    evaluations = {str(run): read_per_user(_evaluation_file(run, evaluation)) for run in places}
    found = compare_evaluations(
        evaluations,
        metrics=metrics,
        all_pairs=all_pairs,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    protocol = next(iter(evaluations.values())).protocol
    suffix = metric_suffix(protocol)
    comparisons = [replace(each, metric=each.metric + suffix) for each in found]
    means = {
        run: {metric + suffix: float(values_of(ranks, metric).mean()) for metric in metrics}
        for run, ranks in evaluations.items()
    }
    output.result(
        {
            "protocol": protocol,
            "runs": [{"run": run, "metrics": values} for run, values in means.items()],
            "comparisons": [asdict(comparison) for comparison in comparisons],
        }
    )
    letters = {run: letter_of(place) for place, run in enumerate(means)}
    title = f"{protocol['dataset']}, {protocol['split']} items, {protocol['ranking']} ranking"
    show = output.markdown if markdown else output.table
    show(
        ("", "run", *(metric + suffix for metric in metrics)),
        [(letters[run], run, *values.values()) for run, values in means.items()],
        title=title,
    )
    interval = f"{confidence:.0%} interval".replace("%", " %")
    show(
        (
            *("runs", "metric", "difference", interval, "relative"),
            *("p", "p (Holm)", "effect", "wins", "losses", "ties"),
        ),
        [_row(comparison, means, letters) for comparison in comparisons],
    )


def _evaluation_file(run: Path, evaluation: str) -> Path:
    """Returns the file of an evaluation's ranks, or says how to make it."""
    from blin.evaluation.per_user import SUFFIX

    file = run / "eval" / f"{evaluation}{SUFFIX}"
    if not file.exists():
        known = sorted(path.name.removesuffix(SUFFIX) for path in file.parent.glob(f"*{SUFFIX}"))
        there = f"; there are {', '.join(known)}" if known else ""
        raise CheckpointError(
            f'{run}: it has no evaluation "{evaluation}"{there}: '
            f"make one with blin evaluate --run {run}"
        )
    return file


def _row(
    comparison: Comparison, means: Mapping[str, Mapping[str, float]], letters: Mapping[str, str]
) -> tuple[object, ...]:
    before = means[comparison.first][comparison.metric]
    relative = f"{comparison.difference / before:+.1%}".replace("%", " %") if before > 0 else ""
    return (
        f"{letters[comparison.second]} - {letters[comparison.first]}",
        comparison.metric,
        f"{comparison.difference:+.4f}",
        f"{comparison.low:+.4f} to {comparison.high:+.4f}",
        relative,
        comparison.p,
        comparison.p_holm,
        "" if comparison.effect is None else f"{comparison.effect:+.3f}",
        comparison.wins,
        comparison.losses,
        comparison.ties,
    )
