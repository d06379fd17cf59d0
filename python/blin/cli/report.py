"""``blin report``: runs as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output

if TYPE_CHECKING:
    from blin.experiments.report import DatasetReport


@click.command(short_help="Show runs on one page: tables, curves, costs, passports.")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--dataset", metavar="NAME", help="All finished runs of this dataset in --runs-dir.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE.html",
    help="The page to write.",
)
@click.option(
    "--resamples",
    type=click.IntRange(min=99),
    default=9999,
    show_default=True,
    help="Of each permutation test.",
)
@options.moved_data_dir
@options.runs_dir
@options.output
def report(
    runs: tuple[str, ...],
    dataset: str | None,
    out: Path,
    resamples: int,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Write a page about runs: one file that needs no network and runs no scripts.

    It has the metrics with their intervals, learning curves, the curve of λ where runs differ in
    it, what the trainings cost, the metrics of groups, the health of the data, and the passports:
    protocols, versions, commands and settings.

    Metrics stand in one table only where they were measured by the same protocol. The best of a
    column is marked only if it is better than each of the others by more than chance.
    """
    if bool(runs) == (dataset is not None):
        raise click.UsageError("give either runs or --dataset NAME")
    from blin import markup

    markup.check(out)
    from blin.checkpoint import find_run
    from blin.experiments.outcomes import finished_runs
    from blin.experiments.report import gather
    from blin.experiments.report_page import page

    if dataset is not None:
        places = [run.path.resolve() for run, _ in finished_runs(runs_dir, dataset)]
    else:
        places = [find_run(runs_dir, run) for run in runs]
    for number, run in enumerate(places):
        if run in places[:number]:
            raise click.UsageError(f"{run}: given twice")
    with output.bar("compare the runs") as advance:
        reports = gather(places, data_dir=data_dir, resamples=resamples, on_progress=advance)
    markup.write(page(reports), out)
    output.result({"report": str(out), "datasets": [_told(each) for each in reports]})
    tables = sum(len(each.tables) for each in reports)
    output.facts({"report": out, "runs": len(places), "tables of metrics": tables})


def _told(report: DatasetReport) -> dict[str, object]:
    return {
        "dataset": report.name,
        "fingerprint": report.fingerprint,
        "runs": {run.letter: str(run.path) for run in report.runs},
        "tables": [
            {
                "evaluation": table.name,
                "protocol": table.protocol,
                "metrics": {run.letter: found.metrics for run, found in table.rows},
                "best": table.best,
                "untested": table.untested,
            }
            for table in report.tables
        ],
        "missing": report.missing,
    }
