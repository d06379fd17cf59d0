"""``blin reproduce``: the paper's tables on one dataset, in one go."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.ablate import compared
from blin.cli.bench import measure_costs, show_costs
from blin.cli.comparison_table import rank_rows, show_rows
from blin.cli.config_file import ConfigFile, built_in_configs
from blin.cli.lookup import open_dataset
from blin.cli.output import Output, duration_of
from blin.cli.paper_tables import show_beside, show_counts
from blin.cli.trainings import Trainings, exit_if_failed, many_trainings

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.experiments.bench import Work
    from blin.experiments.reproduction import Plan, PointForecast
    from blin.experiments.results import Results

_ENDS = ("fewest", "most")
_METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")

TABLES, REPORT, CURVE = "tables.json", "report.html", "lambda.svg"
COSTS, COST_PICTURE = "bench.json", "attention-cost.svg"
"""What is kept beside the results of the trainings."""

BUDGET = (
    *("epochs", "patience", "batch_size", "max_len"),
    *("learning_rate", "warmup_epochs", "schedule"),
)
"""The settings that all models of a dataset share."""


@click.command(cls=options.Command, short_help="Train and compare all that the paper compares.")
@options.dataset
@click.option(
    "--quick",
    is_flag=True,
    help="Two epochs of everything: to see it work; its numbers say nothing.",
)
@click.option("--no-bench", is_flag=True, help="Leave out Figure 6, what attention costs.")
@options.resampling
@many_trainings
def reproduce(
    dataset: str,
    quick: bool,
    no_bench: bool,
    dry_run: bool,
    seeds: tuple[int, ...],
    confidence: float,
    resamples: int,
    data_dir: Path,
    trainings: Trainings,
) -> None:
    """Train and compare all that the paper compares on a dataset.

    First a forecast of the time. Then the counts of its Table 1; the models of its Table 2 that
    there are, with the baselines, under full ranking and among 500 uniform negatives (fewer of a
    small catalogue); Table 3, the ablation; the weights of Figure 5; the paper's figures beside
    ours, with a check whether they can be; what attention costs, Figure 6; and a report of all
    runs.

    A model has the built-in settings DATASET-MODEL, Blin and its ablations those of DATASET, as far
    as there are any; another model takes from DATASET what its budget is: epochs, batches, length
    and learning rate. The same command goes on where it was stopped, and no finished run is
    repeated.
    """
    from blin.experiments.bench import cases_left
    from blin.experiments.kept_costs import read_costs
    from blin.experiments.reproduction import attention_costs, forecast_points, plan
    from blin.markup import require_matplotlib

    output = trainings.output
    require_matplotlib()
    opened = open_dataset(dataset, data_dir=data_dir, output=output, may_fetch=not dry_run)
    name = "reproduce-quick" if quick else "reproduce"
    planned = plan(lambda model: settings_for(opened.name, model), seeds=seeds or (0,), quick=quick)
    with output.bar("measure a few batches") as advance:
        forecasts, refused = forecast_points(
            planned.points,
            opened,
            trainings.runs_dir,
            device=trainings.device,
            threads=trainings.threads_of_each,
            on_progress=advance,
        )
    for point, reason in refused.items():
        output.warn(f"{point} is left out: {reason}")
    directory = trainings.directory(opened, name)
    lengths, work = attention_costs(quick=quick, device=trainings.device, threads=trainings.threads)
    cases = 0 if no_bench else cases_left(lengths, read_costs(directory / COSTS, work))
    seconds = _show_forecast(opened.name, forecasts, trainings.jobs, cases * work.limit, output)
    for setting, value in planned.restored.items():
        output.note(
            f"The ablation has {setting} = {value}, Blin's default: the settings of {opened.name} "
            "lack already what one of its rows takes away."
        )
    if dry_run:
        output.result(
            {
                "points": [
                    {**asdict(each), "config": config_for(opened.name, each.model)}
                    for each in forecasts
                ],
                "left_out": refused,
                "restored": dict(planned.restored),
                "cases": cases,
                "seconds": seconds,
            }
        )
        return
    planned = planned.without(refused)
    results = trainings.train_points(planned.points, opened, name=name)
    told = _show(
        planned, results, opened, trainings, confidence=confidence, resamples=resamples, name=name
    )
    told["pages"] = _draw(
        results, results.part(planned.sweep), opened, directory, resamples, output=output
    )
    _write(told, directory)
    if not no_bench:
        told["bench"] = _bench(lengths, work, directory, output)
        _write(told, directory)
    output.note(f"Tables, pictures and the report are in {directory}")
    output.result(told)
    exit_if_failed(results)


def settings_for(dataset: str, model: str) -> Mapping[str, object]:
    """Returns the built-in settings of a model for a dataset; none where there are none.

    A model that has none of its own has the budget of those for Blin, so that all are trained as
    long and as fast.
    """
    from blin.experiments.ablation import ABLATIONS

    name = config_for(dataset, model)
    if name is None:
        return {}
    file = ConfigFile.read(name)
    if name == dataset and model not in ABLATIONS:
        return {key: value for key, value in file.settings.items() if key in BUDGET}
    file.check(model)
    return file.settings


def config_for(dataset: str, model: str) -> str | None:
    """Returns the name of the built-in settings that a model takes its own from, if any."""
    from blin.models import MODELS

    known, own = built_in_configs(), f"{dataset}-{model}"
    if own in known:
        return own
    return dataset if dataset in known and not MODELS[model].counted else None


def _show_forecast(
    dataset: str,
    forecasts: Sequence[PointForecast],
    jobs: int,
    bench_seconds: float,
    output: Output,
) -> dict[str, float]:
    """Prints the forecast, and returns the fewest and the most seconds."""
    output.table(
        ("point", "settings of", "epochs", "finished", "left", "at least", "at most"),
        [
            (
                each.point,
                config_for(dataset, each.model) or "",
                "" if each.epochs is None else each.epochs,
                each.finished,
                each.left,
                duration_of(each.fewest) if each.most else "",
                duration_of(each.most) if each.most else "",
            )
            for each in forecasts
        ],
        title="What is to be trained",
    )
    fewest, most = (sum(getattr(each, end) for each in forecasts) / jobs for end in _ENDS)
    seconds = dict(zip(_ENDS, (fewest, most + bench_seconds), strict=True))
    attention = (
        f" Of these, what attention costs takes {duration_of(bench_seconds)} at most."
        if bench_seconds
        else ""
    )
    output.note(
        f"In all {' to '.join(map(duration_of, seconds.values()))}, {jobs} trainings at a time, as "
        f"measured alone and without what else the machine does.{attention} The baselines, the "
        "rankings and the report at the end are not in it."
    )
    return seconds


def _show(
    planned: Plan,
    results: Results,
    dataset: Dataset,
    trainings: Trainings,
    *,
    confidence: float,
    resamples: int,
    name: str,
) -> dict[str, object]:
    """Prints all tables and returns them."""
    from blin.experiments.published import NEGATIVES
    from blin.experiments.reproduction import most_negatives

    output, device = trainings.output, trainings.device
    counts = show_counts(dataset, output)
    table, ablated, swept = (
        results.part(points) for points in (planned.table, planned.ablation, planned.sweep)
    )
    negatives = min(NEGATIVES, most_negatives(dataset))
    if negatives == 0:
        output.warn("somebody has had every item: there are no negatives to rank among")
    protocols = [
        show_rows(
            rank_rows(
                table.rows,
                negatives=each,
                device=device,
                data_dir=dataset.path.parent,
                output=output,
            ),
            metrics=_METRICS,
            confidence=confidence,
            resamples=resamples,
            seed=0,
            show_markdown=False,
            output=output,
        )
        for each in ((None, negatives) if negatives else (None,))
        if table.rows
    ]
    show = partial(trainings.show, dataset=dataset, name=name, confidence=confidence)
    show(ablated, title="ablation (Table 3)")
    comparisons = compared(ablated, dataset, trainings, confidence=confidence, resamples=resamples)
    show(swept, title="weight of the agreement (Figure 5)")
    beside = show_beside(dataset, table.rows, negatives, device, output)
    for trial, reason in results.failures.items():
        output.warn(f"{trial} failed: {reason}")
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "counts": counts,
        "protocols": protocols,
        "ablation": {
            **ablated.as_json(confidence),
            "comparisons": [asdict(each) for each in comparisons],
        },
        "sweep": swept.as_json(confidence),
        "paper": beside,
        "failed": results.as_json()["failed"],
    }


def _draw(
    results: Results,
    swept: Results,
    dataset: Dataset,
    directory: Path,
    resamples: int,
    *,
    output: Output,
) -> dict[str, str]:
    """Draws the curve of λ and writes the report, as far as there are runs, and returns where."""
    from blin import markup
    from blin.experiments.report import AGREEMENT, gather
    from blin.experiments.report_page import page
    from blin.experiments.sweep_picture import draw_sweep

    written: dict[str, str] = {}
    if swept.rows:
        draw_sweep(swept.rows, AGREEMENT, directory / CURVE)
        written["weights"] = str(directory / CURVE)
    found = (each.run.resolve() for row in results.rows for each in row.outcomes.values())
    if runs := list(dict.fromkeys(found)):
        with output.bar("compare the runs") as advance:
            reports = gather(
                runs, data_dir=dataset.path.parent, resamples=resamples, on_progress=advance
            )
        written["report"] = str(markup.write(page(reports), directory / REPORT))
    return written


def _bench(
    lengths: Sequence[int], work: Work, directory: Path, output: Output
) -> dict[str, object]:
    """Measures what attention costs, as far as it is not known yet, draws it and returns it."""
    from blin.experiments.bench import COMPARED, draw
    from blin.experiments.kept_costs import costs_as_json

    outcomes = measure_costs(COMPARED, lengths, work, output, kept_in=directory / COSTS)
    draw(outcomes, directory / COST_PICTURE, work=work)
    show_costs(outcomes, work, output)
    return {**costs_as_json(outcomes, work), "picture": str(directory / COST_PICTURE)}


def _write(told: Mapping[str, object], directory: Path) -> None:
    from blin.files import replacing

    with replacing(directory / TABLES) as temporary:
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
