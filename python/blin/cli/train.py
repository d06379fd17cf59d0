"""``blin train``: from a prepared dataset to a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blin.cli import options
from blin.cli.config_file import ConfigFile
from blin.cli.dry_run import forecast_training
from blin.cli.lookup import open_dataset
from blin.cli.output import Output, duration_of
from blin.cli.settings import check_options, merged_settings, warn_of_no_effect
from blin.cli.training_display import METRIC, TrainingLines, training_display
from blin.config import default_data_dir
from blin.errors import CheckpointError

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.training.trainer import RunResult


@click.command()
@partial(options.dataset, default="that of the --config file")
@click.option(
    "--model",
    metavar="NAME",
    help="What to train; blin models lists them.  [default: that of the --config file, or blin]",
)
@click.option("--resume", metavar="RUN|latest", help="Continue a run that was interrupted.")
@options.one_training
@partial(options.threads, default="all cores, or as a run had that --resume or --config names")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the dataset is.  [default: $BLIN_DATA_DIR or ./data, or where the run had it]",
)
@options.runs_dir
@options.output
def train(
    dataset: str | None,
    model: str | None,
    config: str | None,
    assignments: tuple[str, ...],
    resume: str | None,
    tensorboard: bool,
    dry_run: bool,
    device: str,
    threads: int | None,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
    **named: Any,
) -> None:
    """Train a model on a dataset.

    A dataset of the catalogue (see `blin datasets`) is downloaded and prepared first. The model
    that does best on the validation items is kept, tested once at the end, and compared with the
    baselines.
    """
    if dataset is not None and resume is not None:
        raise click.UsageError("give either --dataset NAME or --resume RUN")
    if resume is not None and model is not None:
        raise click.UsageError("a resumed run keeps its model: leave out --model")
    if resume is not None and dry_run:
        raise click.UsageError("--dry-run is for a new run: leave out --resume")
    if resume is not None and config is not None:
        raise click.UsageError("a resumed run keeps its settings: leave out --config")
    file = None if config is None else ConfigFile.read(config)
    if dataset is None and (file is None or file.dataset is None) and resume is None:
        raise click.UsageError("give either --dataset NAME or --resume RUN")
    if file is not None:
        file.check(model)
        model, threads = model or file.model, threads or file.threads
    settings = merged_settings({} if file is None else file.settings, named, assignments)
    if resume is None:
        check_options(model or "blin", named, assignments)
        warn_of_no_effect(model or "blin", settings, file, named, assignments, output)
    if file is not None and file.model != model:
        warn_of_other_model(file, model or "blin", settings, output)
    opened = None
    if dataset is not None:
        opened = open_dataset(
            dataset,
            data_dir=data_dir or default_data_dir(),
            output=output,
            may_fetch=not dry_run,
        )
    elif file is not None:
        opened = open_dataset_of(file, data_dir=data_dir, output=output, may_fetch=not dry_run)
    if dry_run and opened is not None:
        forecast_training(
            opened,
            output,
            model=model or "blin",
            settings=settings,
            device=device,
            threads=threads,
            tensorboard=tensorboard,
        )
        return
    from blin.checkpoint import find_run, open_run_dataset, read_run_config
    from blin.training import trainer

    with training_display(output) as display, saying_how_to_resume(display):
        if opened is None:
            result = trainer.resume(
                find_run(runs_dir, None if resume == "latest" else resume, unsaved=True),
                data_dir=data_dir,
                settings=settings,
                device=device,
                threads=threads,
                tensorboard=tensorboard,
                on_event=display.show,
            )
        else:
            result = trainer.train(
                opened,
                model=model or "blin",
                settings=settings,
                runs_dir=runs_dir,
                device=device,
                threads=threads,
                tensorboard=tensorboard,
                on_event=display.show,
            )
    if opened is None:
        opened = open_run_dataset(result.run, read_run_config(result.run), data_dir=data_dir)
    conclude(result, opened, output, device=device, threads=threads, runs_dir=runs_dir)


def conclude(
    result: RunResult,
    dataset: Dataset,
    output: Output,
    *,
    device: str,
    threads: int | None,
    runs_dir: Path,
) -> None:
    """Prints what a training came to, beside the baselines, and what can be done with it."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    show_result(result, output)
    baselines = compared_baselines(result, dataset, output, device=device)
    output.result(
        {
            "run": str(result.run),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "metrics": result.metrics,
            "valid_metrics": result.valid_metrics,
            "protocol": result.protocol,
            "baselines": baselines,
        }
    )
    elsewhere = options.runs_dir_flag(runs_dir)
    output.next_commands(
        {
            f"blin evaluate --k 10 20{elsewhere}": "the metrics of this run",
            f"blin recommend --user ID{elsewhere}": "what a user may want next",
            f"blin recommend --all --out recs.parquet{elsewhere}": "the same for all users",
        }
    )


def warn_of_other_model(
    file: ConfigFile, model: str, settings: Mapping[str, object], output: Output
) -> None:
    """Says where a configuration written for any model takes from one what makes it that model."""
    from blin.models import MODELS

    for name, own in MODELS[model].defaults.items():
        found = settings.get(name, own)
        if found != own and found == file.settings.get(name):
            output.warn(
                f"{file.source} sets {name} = {found}, where {model} has {own}; "
                f"--set {name}={own} keeps it"
            )


@contextmanager
def saying_how_to_resume(display: TrainingLines) -> Iterator[None]:
    """Adds to an interruption how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if display.run is None:
            raise
        what = str(stop) or "stopped, and saved"
        raise type(stop)(f"{what}: go on with blin train --resume {display.run}") from None


def show_result(result: RunResult, output: Output) -> None:
    """Prints the test metrics of a finished run."""
    how = f"counted and ranked in {duration_of(result.seconds)}"
    if result.epochs > 0:
        how = (
            f"{result.epochs} epochs in {duration_of(result.seconds)}, "
            f"best after epoch {result.best_epoch}"
        )
    output.note(f"{result.run}: {how}")
    output.table(("metric", "test"), list(result.metrics.items()))


def compared_baselines(
    result: RunResult, dataset: Dataset, output: Output, *, device: str
) -> dict[str, dict[str, float]]:
    """Says whether a finished run beats the baselines, and returns their test metrics.

    Of a run that is a baseline itself nothing is said, and nothing returned.
    """
    if result.epochs == 0:
        return {}
    from blin.training.baselines import measure_baselines

    with output.bar("rank for the baselines") as advance:
        found = measure_baselines(
            dataset,
            protocol=result.protocol,
            directory=result.run.parent,
            device=device,
            on_progress=advance,
        )
    own = result.metrics[METRIC]
    ranked = sorted(((metrics[METRIC], name) for name, metrics in found.items()), reverse=True)
    beaten = ", ".join(f"{name} {value:.4f}" for value, name in ranked if value < own)
    others = ", ".join(f"{name} {value:.4f}" for value, name in ranked if value >= own)
    if not others:
        output.note(f"test {METRIC} {own:.4f} beats {beaten}")
    else:
        but = f"; it beats {beaten}" if beaten else ""
        output.warn(f"test {METRIC} {own:.4f} does not beat {others}{but}")
    return found


def open_dataset_of(
    file: ConfigFile, *, data_dir: Path | None, output: Output, may_fetch: bool
) -> Dataset:
    """Opens the dataset that a configuration names: in ``data_dir``, or where the run had it."""
    from blin.checkpoint import check_times

    name, path = file.dataset or "", file.dataset_path
    if data_dir is None and path is not None and (Path(path) / "dataset.json").exists():
        name = path
    place = data_dir or default_data_dir()
    dataset = open_dataset(name, data_dir=place, output=output, may_fetch=may_fetch)
    if file.fingerprint not in (None, dataset.fingerprint):
        raise CheckpointError(
            f"{file.source}: expected the dataset it was written for, found other sequences in "
            f"{dataset.path}; to train on them all the same, add --dataset {file.dataset}"
        )
    check_times(file.source, file.times, dataset)
    output.note(f"{file.source}: the dataset is {dataset.path}")
    return dataset
