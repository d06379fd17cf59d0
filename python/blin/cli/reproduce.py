"""``blin reproduce``: the paper's tables on one dataset, in one go."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.ablate import compared
from blin.cli.comparison_table import rank_rows, show_rows
from blin.cli.config_file import ConfigFile, built_in_configs
from blin.cli.lookup import open_dataset
from blin.cli.output import Output, duration_of
from blin.cli.trainings import Trainings, exit_if_failed, many_trainings

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.experiments.reproduction import Plan, PointForecast
    from blin.experiments.results import Results, Row

_METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")

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
@options.resampling
@many_trainings
def reproduce(
    dataset: str,
    quick: bool,
    dry_run: bool,
    seeds: tuple[int, ...],
    confidence: float,
    resamples: int,
    data_dir: Path,
    trainings: Trainings,
) -> None:
    """Train and compare all that the paper compares on a dataset.

    First a forecast of the time. Then the models of its Table 2 that there are, with the baselines,
    under full ranking and among 500 uniform negatives (fewer of a small catalogue); Table 3, the
    ablation; the weights of Figure 5; and the paper's figures beside ours, with a check whether
    they can be.

    A model has the built-in settings DATASET-MODEL, Blin and its ablations those of DATASET, as far
    as there are any; another model takes from DATASET what its budget is: epochs, batches, length
    and learning rate. The same command goes on where it was stopped, and no finished run is
    repeated.
    """
    from blin.experiments.reproduction import forecast_points, plan

    output = trainings.output
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
    _show_forecast(opened.name, forecasts, trainings.jobs, output)
    for setting, value in planned.restored.items():
        output.note(
            f"The ablation has {setting} = {value}, Blin's default: the settings of {opened.name} "
            "lack already what one of its rows takes away."
        )
    if dry_run:
        total = {end: sum(getattr(each, end) for each in forecasts) for end in ("fewest", "most")}
        output.result(
            {
                "points": [
                    {**asdict(each), "config": config_for(opened.name, each.model)}
                    for each in forecasts
                ],
                "left_out": refused,
                "restored": dict(planned.restored),
                "seconds": {end: seconds / trainings.jobs for end, seconds in total.items()},
            }
        )
        return
    planned = planned.without(refused)
    results = trainings.train_points(planned.points, opened, name=name)
    told = _show(
        planned, results, opened, trainings, confidence=confidence, resamples=resamples, name=name
    )
    from blin.files import replacing

    with replacing(trainings.directory(opened, name) / "tables.json") as temporary:
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
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
    dataset: str, forecasts: Sequence[PointForecast], jobs: int, output: Output
) -> None:
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
    fewest, most = (
        duration_of(sum(getattr(each, end) for each in forecasts) / jobs)
        for end in ("fewest", "most")
    )
    output.note(
        f"In all {fewest} to {most}, {jobs} at a time, as measured alone and without what else the "
        "machine does. The baselines and the rankings at the end are not in it."
    )


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
    trainings.show(ablated, dataset, title="ablation (Table 3)", name=name)
    comparisons = compared(ablated, dataset, trainings, confidence=confidence, resamples=resamples)
    trainings.show(swept, dataset, title="weight of the agreement (Figure 5)", name=name)
    beside = _beside_the_paper(dataset, table.rows, negatives, device, output)
    for trial, reason in results.failures.items():
        output.warn(f"{trial} failed: {reason}")
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "protocols": protocols,
        "ablation": {**ablated.as_json(), "comparisons": [asdict(each) for each in comparisons]},
        "sweep": swept.as_json(),
        "paper": beside,
        "failed": results.as_json()["failed"],
    }


def _beside_the_paper(
    dataset: Dataset, rows: Sequence[Row], negatives: int, device: str, output: Output
) -> list[dict[str, object]]:
    """Prints the paper's figures beside those of our rows, and returns them."""
    from blin.experiments.comparison import rank
    from blin.experiments.published import METRICS, PUBLISHED, TABLE_2, Figures

    ranked = (
        rank(rows, data_dir=dataset.path.parent, negatives=negatives, device=device)
        if negatives
        else []
    )
    ours = {
        each.name: {metric: each.interval(metric, 0.95).mean for metric in METRICS}
        for each in ranked
    }
    published = PUBLISHED.get(dataset.name, {})
    told: list[dict[str, object]] = []
    cells: list[list[str]] = []
    for model in TABLE_2:
        figures = published.get(model, Figures())
        verdict = figures.verdict()
        told.append(
            {
                "model": model,
                "paper": dict(figures.values),
                "check": verdict,
                "ours": ours.get(model, {}),
            }
        )
        pairs = ((figures.values.get(m), ours.get(model, {}).get(m)) for m in METRICS)
        texts = ("" if value is None else f"{value:.4f}" for pair in pairs for value in pair)
        cells.append([model, *texts, verdict])
    heads = (f"{metric} {whose}" for metric in METRICS for whose in ("paper", "ours"))
    output.table(
        ("model", *heads, "the paper's"),
        cells,
        title=f"{dataset.name}: the paper's Table 2 beside ours, {negatives} uniform negatives",
    )
    if dataset.name in PUBLISHED:
        output.note("Empty: printed in the paper, but not known here; or not trained.")
    else:
        output.note("The paper has no such dataset.")
    return told
