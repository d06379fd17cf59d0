"""The ``blin`` command: one thin file per subcommand.

``blin --help`` must answer at once, so no module here imports torch, numpy, pyarrow or rich at its
top: each command imports what it needs when it runs.
"""

from __future__ import annotations

import os

import click

from blin.cli.ablate import ablate
from blin.cli.bench import bench
from blin.cli.compare import compare
from blin.cli.datasets import datasets
from blin.cli.demo import demo
from blin.cli.distill import distill
from blin.cli.doctor import doctor
from blin.cli.evaluate import evaluate
from blin.cli.failures import ReportingGroup
from blin.cli.inspect import inspect
from blin.cli.models import models
from blin.cli.preprocess import preprocess
from blin.cli.recommend import recommend
from blin.cli.report import report
from blin.cli.reproduce import reproduce
from blin.cli.sweep import sweep
from blin.cli.train import train


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"blin {version('blin-rec')}")
        context.exit()


@click.group(
    cls=ReportingGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Next-item recommendation from interaction logs.

    \b
    From a raw log to recommendations:
      blin preprocess raw.csv
      blin train --dataset raw
      blin evaluate --k 10 20
      blin recommend --user ID

    `blin demo` shows all four on a built-in sample log.
    """
    # torch's threads spin long before they sleep. With two other jobs on two cores a training step
    # took 1.6 times as long for it; spinning shortly costs nothing on an idle machine, where never
    # spinning would double the time. OpenMP reads this once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    preprocess,
    inspect,
    train,
    distill,
    evaluate,
    compare,
    sweep,
    ablate,
    reproduce,
    report,
    bench,
    recommend,
    datasets,
    models,
    demo,
    doctor,
):
    main.add_command(command)
