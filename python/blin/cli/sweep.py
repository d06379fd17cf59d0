"""``blin sweep``: many trainings, side by side, and which settings do best."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.lookup import open_dataset
from blin.cli.settings import several_values, warn_of_idle_axes
from blin.cli.trainings import Trainings, base_of, exit_if_failed, many_trainings

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.experiments.points import Range
    from blin.experiments.results import Results


@click.command(cls=options.Command, short_help="Train with many settings; say which do best.")
@partial(options.dataset, default="that of the --grid file")
@partial(
    options.models,
    help="What to train, one or several; blin models lists them.",
    told="that of the --config file, or blin",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=A,B,...",
    multiple=True,
    help="The values of a setting; may be given several times. With --optuna also KEY=LOW..HIGH "
    "and KEY=LOW..HIGH:log.",
)
@click.option(
    "--one-at-a-time",
    is_flag=True,
    help="Change one setting at a time; otherwise all combinations are trained.",
)
@click.option(
    "--grid",
    "grid_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file of named runs, in place of --models, --config and --set.",
)
@click.option(
    "--optuna",
    "num_points",
    type=click.IntRange(min=1),
    metavar="N",
    help="Let Optuna choose N points, each by what those before came to.",
)
@options.config
@options.count("--epochs", help="The most epochs of each training.")
@click.option(
    "--name",
    help="Of the directory of the results.  [default: made from what is swept]",
)
@options.picture
@many_trainings
def sweep(
    dataset: str | None,
    models: tuple[str, ...],
    assignments: tuple[str, ...],
    one_at_a_time: bool,
    grid_file: Path | None,
    num_points: int | None,
    config: str | None,
    epochs: int | None,
    name: str | None,
    out: Path | None,
    dry_run: bool,
    seeds: tuple[int, ...],
    data_dir: Path,
    trainings: Trainings,
) -> None:
    """Train with many settings, and compare what they come to.

    \b
      blin sweep --dataset beauty --set lambda=0.1,0.5,1,2,3
      blin sweep --dataset beauty --set dim=64,128 --set dropout=0.2,0.5 --seeds 0,1,2 --jobs 2
      blin sweep --dataset beauty --optuna 40 --set learning_rate=0.0001..0.01:log

    The trainings are ordinary runs. The same command goes on where it was stopped, and a finished
    run of the same settings, sequences and seed is never repeated, whichever command trained it.
    The validation items choose; the test metrics stand beside them. With --out, what the values of
    one setting come to is drawn, too.
    """
    axes = several_values(assignments)
    if name is not None and not re.fullmatch(r"[\w=,-][\w=.,-]*", name):
        raise click.UsageError(f'--name: expected letters, digits and any of _=.,-, found "{name}"')
    if num_points is not None and (one_at_a_time or grid_file or dry_run or len(models) > 1):
        raise click.UsageError(
            "--optuna chooses the settings of one model: leave out --one-at-a-time, --grid, "
            "--dry-run and other models"
        )
    if grid_file is not None and (models or axes or config or one_at_a_time):
        raise click.UsageError(
            "--grid names models and settings: leave out --models, --set, --config and "
            "--one-at-a-time"
        )
    if grid_file is None and dataset is None:
        raise click.UsageError("give --dataset NAME")
    if out is not None and num_points is not None:
        raise click.UsageError("--out draws listed values: leave out --optuna")
    ranges = [key for key, values in axes.items() if not isinstance(values, list)]
    if num_points is None and ranges:
        raise click.UsageError(f"--set: a range needs --optuna N; give {ranges[0]}=A,B,... instead")
    from blin.experiments.points import check, check_space, grid, read_grid

    if grid_file is not None:
        override = {} if epochs is None else {"epochs": epochs}
        read = read_grid(grid_file, override=override, seeds=seeds or None)
        # A file may be called what no directory should be, such as "...toml".
        points, name = read.points, name or re.sub(r"[^\w=,.-]|^[.-]", "_", grid_file.stem)
        dataset = dataset or read.dataset
        if dataset is None:
            raise click.UsageError(f"give --dataset NAME: {grid_file} names none")
    else:
        models, base = base_of(config, models, {"epochs": epochs})
        seeds = seeds or (0,)
        lists = {key: _values_of(values) for key, values in axes.items()}
        about = [models, base, repr(axes), one_at_a_time, seeds if num_points else None]
        varied = [key for key, values in axes.items() if key in ranges or len(lists[key]) > 1]
        name = name or _name_for(varied or models, about)
        points = grid(models, base, lists, seeds=seeds, one_at_a_time=one_at_a_time)
        if num_points is None:
            check(points)
        else:
            check_space(models, base, lists, seeds=seeds)
    setting = None
    if out is not None:
        from blin.experiments.pictures import check_picture
        from blin.experiments.sweep_picture import draw_sweep, swept_setting

        check_picture(out)
        setting = swept_setting(points)
    output = trainings.output
    if num_points is None:
        warn_of_idle_axes(points, output)
    opened = open_dataset(dataset or "", data_dir=data_dir, output=output, may_fetch=not dry_run)
    if dry_run:
        trainings.show_plan(points, opened)
        return
    if num_points is None:
        results = trainings.train_points(points, opened, name=name)
    else:
        results = _search(trainings, opened, models[0], base, axes, seeds, num_points, name)
    if out is not None and setting is not None and results.rows:
        draw_sweep(results.rows, setting, out)
    output.result({"directory": str(trainings.directory(opened, name)), **results.as_json()})
    trainings.show(results, opened, title=name, name=name)
    exit_if_failed(results)


def _search(
    trainings: Trainings,
    dataset: Dataset,
    model: str,
    base: Mapping[str, object],
    space: Mapping[str, list[object] | Range],
    seeds: tuple[int, ...],
    num_points: int,
    name: str,
) -> Results:
    from blin.experiments.results import Results
    from blin.experiments.search import Search

    results = Results()
    with Search(
        trainings.directory(dataset, name),
        dataset,
        model=model,
        base=base,
        space=space,
        seeds=seeds,
        points=num_points,
        results=results,
    ) as schedule:
        trainings.train(schedule, results, dataset, total=num_points * len(seeds), name=name)
    return results


def _values_of(values: list[object] | Range) -> list[object]:
    """Returns all values, of a range both ends: whole numbers where they are."""
    if isinstance(values, list):
        return values
    return [int(end) if end == int(end) else end for end in (values.low, values.high)]


def _name_for(what: list[str] | tuple[str, ...], about: object) -> str:
    """Returns a name that says what is swept, and another one for each other sweep."""
    text = json.dumps(about, sort_keys=True, default=str)
    return f"{'-'.join(what)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
