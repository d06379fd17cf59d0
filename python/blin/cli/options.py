"""Options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from blin.cli.config_file import built_in_configs
from blin.cli.failures import TRACEBACKS
from blin.cli.output import Output
from blin.config import default_data_dir, default_runs_dir

Function = TypeVar("Function", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A number within bounds; Click compares alone, and lets through what is no number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number, or fails as Click does."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class Several(click.Option):
    """An option of one or more values: ``--k 10 20``, ``--k 10,20`` or ``--k 10 --k 20``."""

    def __init__(self, declarations: Sequence[str] | None = None, **attributes: Any) -> None:
        """Takes what `click.Option` takes."""
        super().__init__(declarations, **{**attributes, "multiple": True})


class Command(click.Command):
    """A command whose `Several` options take their values in every usual spelling.

    Values may follow each other, so such a command has no positional arguments.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats the option's name before each of its values, then parses as Click does."""
        several = [option for option in self.params if isinstance(option, Several)]
        names = {name for option in several for name in option.opts}
        return super().parse_args(ctx, repeat_names(args, names))


def repeat_names(args: list[str], names: set[str]) -> list[str]:
    """Returns ``args`` with ``--k 10,20 30`` spelled as ``--k 10 --k 20 --k 30``."""
    spelled: list[str] = []
    current = None
    first = False
    for position, argument in enumerate(args):
        if argument == "--":
            return spelled + args[position:]
        name, equals, value = argument.partition("=")
        if name in names:
            current, first = name, True
            if not equals:
                continue
            argument = value
        elif argument.startswith("-") and not first:
            current = None
        if current is None:
            spelled.append(argument)
            continue
        first = False
        for value in argument.split(","):
            spelled += [current, value.strip()]
    return [*spelled, current] if current is not None and first else spelled


def separated(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Returns the values of a repeatable option, each of which may be several: ``HR@10,MRR``.

    It is the callback of an option that `Several` cannot be, beside positional arguments.
    """
    return tuple(part.strip() for value in values for part in value.split(","))


def log_layout(command: Function) -> Function:
    """Adds what says how a log is read where recognising it goes wrong."""
    layout = (
        click.option("--delimiter", help="What separates the fields, e.g. , or :: or \\t."),
        click.option(
            "--header/--no-header", default=None, help="Whether the first row names the columns."
        ),
        click.option(
            "--user-column", metavar="NAME|NUMBER", help="The column of users (first: 1)."
        ),
        click.option("--item-column", metavar="NAME|NUMBER", help="The column of items."),
        click.option(
            "--time-column",
            metavar="NAME|NUMBER",
            help="The column of times; A,B: two columns, B orders what has the same A.",
        ),
        click.option("--rating-column", metavar="NAME|NUMBER", help="The column of ratings."),
        click.option(
            "--format",
            "log_format",
            type=click.Choice(["table", "sequences", "jsonl"]),
            help="A row is one interaction, one user (user item item ...) or one JSON object.",
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(layout), command)


def count(name: str, *, help: str, default: int | None = None) -> Callable[[Function], Function]:
    """Returns what adds an option of a number of at least 1, and tells its default if there is one.

    Args:
        name: such as ``--epochs``.
        help: what it counts.
        default: None for none.
    """
    least = click.IntRange(min=1)
    return click.option(name, type=least, default=default, show_default=True, help=help)


def dataset(command: Function, *, default: str | None = None) -> Function:
    """Adds ``--dataset``, to be given unless something else names it by default."""
    return click.option(
        "--dataset",
        required=default is None,
        metavar="NAME",
        help="A prepared dataset or one of the catalogue."
        + ("" if default is None else f"  [default: {default}]"),
    )(command)


def config(command: Function) -> Function:
    """Adds ``--config``."""
    return click.option(
        "--config",
        metavar="NAME|FILE",
        help=f"Built-in settings ({', '.join(built_in_configs())}), or a TOML file such as a run's "
        "config.toml.",
    )(command)


def assignments(command: Function) -> Function:
    """Adds ``--set`` for settings of one value, given on as ``assignments``."""
    return click.option(
        "--set",
        "assignments",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any other setting; may be given several times.",
    )(command)


def models(
    command: Function, *, help: str, told: str, default: tuple[str, ...] | None = None
) -> Function:
    """Adds ``--models``, or ``--model``, of one name or several.

    Args:
        command: what it is added to.
        help: what is done with them.
        told: the default, as the help text has it.
        default: None for none.
    """
    return click.option(
        "--models",
        "--model",
        "models",
        cls=Several,
        default=default,
        metavar="NAME...",
        help=f"{help}  [default: {told}]",
    )(command)


def data_dir(command: Function, *, may_be_broken: bool = False) -> Function:
    """Adds ``--data-dir``; what is no directory is refused, unless it is to be told of."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=may_be_broken, path_type=Path),
        default=default_data_dir,
        help="Where the prepared datasets are.  [default: $BLIN_DATA_DIR or ./data]",
    )(command)


def data_dir_flag(path: Path) -> str:
    """Returns what a suggested command must add to look in ``path``."""
    return "" if path == default_data_dir() else f" --data-dir {path}"


def runs_dir_flag(path: Path) -> str:
    """Returns what a suggested command must add to look in ``path``."""
    return "" if path == default_runs_dir() else f" --runs-dir {path}"


def moved_data_dir(command: Function) -> Function:
    """Adds ``--data-dir`` to a command that knows from the run where its dataset was."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="BLIN_DATA_DIR",
        help="Where the run's dataset is, if it has moved.  [default: $BLIN_DATA_DIR]",
    )(command)


def runs_dir(command: Function, *, may_be_broken: bool = False) -> Function:
    """Adds ``--runs-dir``; what is no directory is refused, unless it is to be told of."""
    return click.option(
        "--runs-dir",
        type=click.Path(file_okay=may_be_broken, path_type=Path),
        default=default_runs_dir,
        help="Where the runs are.  [default: $BLIN_RUNS_DIR or ./runs]",
    )(command)


def run(command: Function) -> Function:
    """Adds ``--run``."""
    return click.option(
        "--run",
        metavar="DIRECTORY",
        help="The run to use, a directory or its name.  [default: the latest]",
    )(command)


def device(command: Function) -> Function:
    """Adds ``--device``."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to compute.",
    )(command)


def seed(command: Function) -> Function:
    """Adds ``--seed``."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of all that is drawn by chance.",
    )(command)


def threads(command: Function, *, default: str = "all cores") -> Function:
    """Adds ``--threads``; the help text names the default."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1, max=512),
        help=f"How many CPU threads to use.  [default: {default}]",
    )(command)


def one_training(command: Function) -> Function:
    """Adds what says how one model is trained: its settings, by name, and where and whether."""
    settings = (
        click.option(
            "--lambda",
            "kl_weight",
            type=FiniteRange(min=0),
            help="Weight of the agreement between the two views (setting kl_weight).",
        ),
        click.option(
            "--ted",
            "ted_weight",
            type=FiniteRange(min=0),
            is_flag=False,
            flag_value=0.1,
            metavar="[WEIGHT]",
            help="Teach the item embeddings what follows what (setting ted_weight).  [without "
            "WEIGHT: 0.1]",
        ),
        click.option(
            "--cold-share",
            type=FiniteRange(0, 1),
            help="Share of the sequences that are learned from in pieces as short as the histories "
            "of new users.  [default: 0, or 0.5 for a student]",
        ),
        count("--cold-items", help="The most items in such a piece.  [default: 5]"),
        config,
        assignments,
        count("--epochs", help="The most epochs to train for."),
        count("--batch-size", help="Users per step."),
        count("--max-len", help="Positions the model sees."),
        count("--dim", help="Width of the model."),
        click.option(
            "--padding",
            type=click.Choice(["random-repeat", "repeat", "zero"]),
            help="How short sequences fill their row.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16", "fp16"]),
            help="Of the matrix products; bf16 and fp16 are meant for GPUs.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            help="Seed of all that is drawn by chance.  [default: 0]",
        ),
        click.option(
            "--tensorboard", is_flag=True, help="Write curves for TensorBoard, to tb in the run."
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Say what the training will take, by a few of its batches; write nothing.",
        ),
        device,
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(settings), command)


def resampling(command: Function) -> Function:
    """Adds ``--confidence`` and ``--resamples`` to commands that compare."""
    both = (
        click.option(
            "--confidence",
            type=FiniteRange(0, 1, min_open=True, max_open=True),
            default=0.95,
            show_default=True,
            help="Of the intervals.",
        ),
        click.option(
            "--resamples",
            type=click.IntRange(min=99),
            default=9999,
            show_default=True,
            help="Of each bootstrap and of each permutation test.",
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(both), command)


def picture(command: Function) -> Function:
    """Adds ``--out`` to a command whose results can be drawn."""
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Also draw a picture: .svg, .png or .pdf.",
    )(command)


def output(command: Function) -> Function:
    """Adds ``--json``, ``--quiet``, ``--verbose`` and ``--no-progress``, given on as ``output``."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
    @click.option(
        "-v", "--verbose", count=True, help="Show settings; twice: tracebacks of errors too."
    )
    @click.option("--no-progress", is_flag=True, help="Show no progress bar.")
    @functools.wraps(command)
    def with_output(
        *args: Any, as_json: bool, quiet: bool, verbose: int, no_progress: bool, **options: Any
    ) -> Any:
        click.get_current_context().meta[TRACEBACKS] = verbose > 1
        shown = Output(json=as_json, quiet=quiet, verbose=verbose > 0, progress=not no_progress)
        return command(*args, output=shown, **options)

    return with_output  # type: ignore[return-value]
