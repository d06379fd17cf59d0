"""``blin compare``: whether one run is better than another, or only luckier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output
from blin.errors import CheckpointError

if TYPE_CHECKING:
    from blin.evaluation.per_user import PerUser
    from blin.evaluation.significance import Comparison


@click.command(short_help="Tell whether runs differ by more than chance.")
@click.argument("runs", nargs=-1, metavar="[RUN RUN]...")
@click.option(
    "--dataset",
    metavar="NAME",
    help="All finished runs of this dataset in --runs-dir; those that differ in their seed alone "
    "are one row.",
)
@click.option(
    "--best",
    is_flag=True,
    help="With --dataset: of each model only the row that does best on the validation items.",
)
@options.count(
    "--negatives",
    help="With --dataset: also rank among this many uniform negatives; what has not been evaluated "
    "so yet is evaluated now.",
)
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Compare how the runs do on cut histories, of which they are shown so many items, the "
    "newest (with --dataset: also); what has not been evaluated so yet is evaluated now.",
)
@click.option(
    "--evaluation",
    metavar="NAME",
    help="Which of the runs' evaluations: test, valid, test-uniform-500-s0, ...  [default: test]",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    callback=options.separated,
    default=("HR@10", "NDCG@10"),
    metavar="NAME,...",
    help="What to compare by: --metric NDCG@10,MRR, or several times.  [default: HR@10,NDCG@10]",
)
@click.option("--all-pairs", is_flag=True, help="Compare each with each, not all with the first.")
@options.resampling
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@options.seed
@options.device
@options.moved_data_dir
@options.runs_dir
@options.output
def compare(
    runs: tuple[str, ...],
    dataset: str | None,
    best: bool,
    negatives: int | None,
    last: int | None,
    evaluation: str | None,
    metrics: tuple[str, ...],
    all_pairs: bool,
    confidence: float,
    resamples: int,
    markdown: bool,
    seed: int,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Compare runs with the first of them, or all runs of a dataset, user by user.

    For each metric of two runs: the mean difference with its bootstrap interval, the p-value of a
    paired permutation test, corrected by Holm for the number of comparisons made, the size of the
    effect, and for how many users the run does better (wins), worse (losses) and equally well
    (ties).

    With --dataset: a row for each model with its settings, the mean over its seeds and the interval
    of that mean. The best of a column is marked only where the paired tests, corrected by Holm, say
    that it is better than each of the others by more than chance.

    Runs evaluated by different protocols, or on other users or items, are refused.
    """
    if markdown and output.json:
        raise click.UsageError("give either --markdown or --json")
    if (dataset is None) == (not runs):
        raise click.UsageError("give either two runs or more, or --dataset NAME")
    if dataset is None and (best or negatives is not None):
        raise click.UsageError("--best and --negatives need --dataset NAME")
    if dataset is not None and (all_pairs or evaluation is not None):
        raise click.UsageError("--all-pairs and --evaluation are for named runs")
    if last is not None and evaluation is not None:
        raise click.UsageError("give either --last or --evaluation")
    evaluation = evaluation or "test"
    metrics = tuple(dict.fromkeys(metrics))
    if dataset is not None:
        from blin.cli.comparison_table import compare_all

        told = compare_all(
            dataset,
            best=best,
            negatives=negatives,
            last=last,
            metrics=metrics,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
            device=device,
            data_dir=data_dir,
            runs_dir=runs_dir,
            markdown=markdown,
            output=output,
        )
        output.result(told)
        return
    from blin.checkpoint import find_run
    from blin.evaluation.per_user import read_per_user
    from blin.evaluation.protocol import metric_suffix, protocol_title
    from blin.evaluation.significance import compare as compare_evaluations
    from blin.evaluation.significance import values_of
    from blin.experiments.comparison import measured_ranks
    from blin.experiments.report import letter_of

    places = [find_run(runs_dir, run) for run in runs]
    if len(places) < 2:
        raise click.UsageError("give two runs or more")
    for number, run in enumerate(places):
        if run in places[:number]:
            raise click.UsageError(f"{run}: given twice")
    evaluations: dict[str, PerUser] = {}
    with output.bar("rank the test items") as advance:
        for done, run in enumerate(places):
            evaluations[str(run)] = (
                read_per_user(_evaluation_file(run, evaluation))
                if last is None
                else measured_ranks(run, data_dir=data_dir, last=last, device=device)
            )
            advance(done + 1, len(places))
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
    show = output.markdown if markdown else output.table
    show(
        ("", "run", *(metric + suffix for metric in metrics)),
        [(letters[run], run, *values.values()) for run, values in means.items()],
        title=protocol_title(protocol),
    )
    show_comparisons(comparisons, means, letters, confidence=confidence, show=show)


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


def show_comparisons(
    comparisons: Sequence[Comparison],
    means: Mapping[str, Mapping[str, float]],
    letters: Mapping[str, str],
    *,
    confidence: float,
    show: Callable[[Sequence[str], Sequence[Sequence[object]]], None],
) -> None:
    """Prints pairs of what was compared.

    Args:
        comparisons: the pairs.
        means: of each of their sides, by name, each metric.
        letters: what each side is called in the table, by name.
        confidence: of the intervals.
        show: prints columns and rows.
    """
    interval = f"{100 * confidence:g} % interval"
    columns = ("metric", "difference", interval, "relative", "p", "p (Holm)", "effect")
    show(
        ("runs", *columns, "wins", "losses", "ties"),
        [_row(comparison, means, letters) for comparison in comparisons],
    )


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
