"""``blin distill``: from a finished run, the teacher, to a run of another model, its student."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blin.cli import options
from blin.cli.config_file import ConfigFile
from blin.cli.dry_run import forecast_training
from blin.cli.lookup import open_dataset
from blin.cli.output import Output
from blin.cli.settings import check_options, merged_settings, warn_of_no_effect
from blin.cli.train import (
    conclude,
    open_dataset_of,
    saying_how_to_resume,
    warn_of_other_model,
)
from blin.cli.training_display import training_display
from blin.config import default_data_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blin.data.dataset import Dataset
    from blin.training.distillation import Distillation

STUDENT = "spnn"

COLD_SHARE = 0.5
"""Of the sequences that a student is given in pieces, if they can be cut and nothing is said."""


@click.command()
@click.option(
    "--teacher",
    metavar="RUN",
    help="The run to learn from, a directory or its name.  [default: that of the --config file]",
)
@click.option(
    "--model",
    metavar="NAME",
    help=f"The student; blin models lists what can be one.  [default: that of the --config file, "
    f"or {STUDENT}]",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="A prepared dataset.  [default: that of the --config file, or of the teacher]",
)
@click.option(
    "--distill-weight",
    type=options.FiniteRange(min=0),
    help="Weight of the distance to what the teacher knows.  [default: 1.0]",
)
@options.count(
    "--knowledge-dim", help="Width of the space in which the two are compared.  [default: 32]"
)
@options.one_training
@partial(options.threads, default="all cores, or as a run had that --config names")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the dataset is.  [default: $BLIN_DATA_DIR or ./data, or where the teacher had it]",
)
@options.runs_dir
@options.output
def distill(
    teacher: str | None,
    model: str | None,
    dataset: str | None,
    distill_weight: float | None,
    knowledge_dim: int | None,
    config: str | None,
    assignments: tuple[str, ...],
    tensorboard: bool,
    dry_run: bool,
    device: str,
    threads: int | None,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
    **named: Any,
) -> None:
    """Train a model that also learns from a finished run.

    The run is the teacher, of any model that learns by a loss; what its layers make of the training
    sequences is computed once. The student comes to be an ordinary run; `blin train --resume` goes
    on with one that was stopped.
    """
    from blin.models import MODELS

    file = None if config is None else ConfigFile.read(config)
    if teacher is None and (file is None or file.distillation is None):
        raise click.UsageError("give --teacher RUN")
    if file is not None:
        file.check(model or file.model or STUDENT, student=True)
        model, threads = model or file.model, threads or file.threads
    model = model or STUDENT
    settings = merged_settings({} if file is None else file.settings, named, assignments)
    check_options(model, named, assignments)
    if model in MODELS and _cuts(model, settings):
        settings.setdefault("cold_share", COLD_SHARE)
    warn_of_no_effect(model, settings, file, named, assignments, output)
    if file is not None and file.model != model:
        warn_of_other_model(file, model, settings, output)
    own = {
        "distill_weight": distill_weight,
        "knowledge_dim": knowledge_dim,
    }
    given = {name: value for name, value in own.items() if value is not None}
    run = teacher_of(teacher, file, runs_dir)
    opened = dataset_of(dataset, file, run, data_dir=data_dir, output=output)
    distillation = distillation_of(run, file, opened, given, named_teacher=teacher is not None)
    from blin.training import trainer

    if dry_run:
        forecast_training(
            opened,
            output,
            model=model,
            settings=settings,
            device=device,
            threads=threads,
            tensorboard=tensorboard,
            distillation=distillation,
        )
        return
    output.note(f"learns from {distillation.teacher}, {distillation.model}")
    with training_display(output) as display, saying_how_to_resume(display):
        result = trainer.train(
            opened,
            model=model,
            settings=settings,
            runs_dir=runs_dir,
            device=device,
            threads=threads,
            tensorboard=tensorboard,
            distillation=distillation,
            on_event=display.show,
        )
    conclude(result, opened, output, device=device, threads=threads, runs_dir=runs_dir)


def _cuts(model: str, settings: Mapping[str, object]) -> bool:
    """Returns whether the sequences of a model can be cut: rows hold no prefixes, copies hide."""
    from blin.models import MODELS
    from blin.training.trainer import all_settings

    if MODELS[model].counted:
        return False
    found = all_settings(model, {**MODELS[model].defaults, **settings})
    seen = found["copies"] == "attend" and found["padding"] != "zero"
    return found.get("loss_positions") != "last" and not seen


def teacher_of(teacher: str | None, file: ConfigFile | None, runs_dir: Path) -> Path:
    """Returns the directory of the teacher: the named one, or that of a configuration."""
    from blin.checkpoint import find_run

    if teacher is None and file is not None and file.distillation is not None:
        teacher = str(file.distillation.get("teacher", ""))
    return find_run(runs_dir, teacher)


def dataset_of(
    name: str | None,
    file: ConfigFile | None,
    teacher: Path,
    *,
    data_dir: Path | None,
    output: Output,
) -> Dataset:
    """Opens the dataset that is named, by the user or a configuration, or that of the teacher."""
    from blin.checkpoint import open_run_dataset, read_run_config

    if name is not None:
        place = data_dir or default_data_dir()
        return open_dataset(name, data_dir=place, output=output, may_fetch=False)
    if file is not None and file.dataset is not None:
        return open_dataset_of(file, data_dir=data_dir, output=output, may_fetch=False)
    return open_run_dataset(teacher, read_run_config(teacher), data_dir=data_dir)


def distillation_of(
    teacher: Path,
    file: ConfigFile | None,
    dataset: Dataset,
    given: dict[str, Any],
    *,
    named_teacher: bool,
) -> Distillation:
    """Returns how the student learns: as a configuration says, with what is given changed.

    Raises:
        CheckpointError: The teacher is not the one of the configuration, and was not named.
    """
    from blin.config import build
    from blin.errors import CheckpointError
    from blin.models.distillation import DistillationConfig
    from blin.training.distillation import Distillation

    table = None if file is None else file.distillation
    if file is None or table is None:
        return Distillation.of(teacher, dataset, build(DistillationConfig, given))
    before = Distillation.of_table(Path(file.source), table)
    found = Distillation.of(teacher, dataset, build(DistillationConfig, {**table, **given}))
    if found.weights != before.weights and not named_teacher:
        raise CheckpointError(
            f"{file.source}: expected the teacher it was written for, found other weights in "
            f"{teacher}; to learn from them all the same, add --teacher {teacher}"
        )
    return found
