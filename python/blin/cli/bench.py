"""``blin bench``: what softmax and linear attention cost, by the length of the histories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output, duration_of, size_of
from blin.cli.settings import merged_settings

if TYPE_CHECKING:
    from blin.experiments.bench import Cost, Outcome, Work


@click.command(cls=options.Command, short_help="Measure what attention costs, by length.")
@click.option(
    "--models",
    cls=options.Several,
    default=("sasrec", "bert4rec", "blin"),
    metavar="NAME...",
    help="Models with softmax or linear attention.  [default: sasrec bert4rec blin]",
)
@click.option(
    "--lengths",
    cls=options.Several,
    type=click.IntRange(min=1),
    default=(50, 100, 200, 500, 1000, 2000),
    metavar="NUMBER...",
    help="Positions of a row.  [default: 50 100 200 500 1000 2000]",
)
@options.count("--users", default=1024, help="Histories in an epoch.")
@options.count("--items", default=1000, help="Items that the histories are drawn from.")
@options.count("--batch-size", default=32, help="Histories in a step.")
@options.count("--steps", default=3, help="Steps that are timed.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds that a case may take, its start included.",
)
@options.assignments
@options.picture
@options.seed
@options.device
@options.threads
@options.output
def bench(
    models: tuple[str, ...],
    lengths: tuple[int, ...],
    users: int,
    items: int,
    batch_size: int,
    steps: int,
    limit: float,
    assignments: tuple[str, ...],
    out: Path | None,
    seed: int,
    device: str,
    threads: int | None,
    output: Output,
) -> None:
    """Measure time and memory of softmax and of linear attention, by the length of the histories.

    Each case is a process of its own that makes a few training steps on drawn histories that fill
    their rows. The seconds of ten epochs are those steps, scaled. Memory is the most that is taken
    at once: of a GPU by tensors, of a CPU's by the process, with Python and its libraries.

    The attention is exchanged within each model, the rest stays: parameters and shapes are checked
    to be the same.
    """
    if out is not None:
        from blin.experiments.pictures import check_picture

        check_picture(out)
    settings = merged_settings({}, {}, assignments)
    from blin.experiments.bench import Work, draw, epoch_seconds, measure

    work = Work(users, items, batch_size, steps, device, threads, seed, limit, settings)
    with output.bar("measure") as advance:

        def tell(outcome: Outcome, done: int, total: int) -> None:
            advance(done, total)
            if not output.live:
                output.note(_line(outcome))

        outcomes = measure(models, lengths, work=work, on_outcome=tell)
    if out is not None:
        draw(outcomes, out, work=work)
    output.result(
        {
            "work": asdict(work),
            "picture": None if out is None else str(out),
            "cases": [
                {
                    **asdict(each.case),
                    "cost": None if each.cost is None else asdict(each.cost),
                    "seconds_per_step": each.cost and each.cost.step,
                    "seconds_per_epoch": each.cost and epoch_seconds(each.cost, work),
                    "reason": each.reason or None,
                }
                for each in outcomes
            ],
        }
    )
    _show(outcomes, work, output)


def _show(outcomes: list[Outcome], work: Work, output: Output) -> None:
    from blin.experiments.bench import EPOCHS, epoch_seconds

    def seconds(cost: Cost) -> float:
        return epoch_seconds(cost, work) * EPOCHS

    pairs = sorted(
        zip(outcomes[::2], outcomes[1::2], strict=True), key=lambda pair: pair[0].case.model
    )
    rows = [
        (
            softmax.case.model,
            softmax.case.length,
            *(_cell(each, lambda cost: duration_of(seconds(cost))) for each in (softmax, linear)),
            _ratio(softmax, linear, seconds),
            *(_cell(each, lambda cost: size_of(cost.memory)) for each in (softmax, linear)),
            _ratio(softmax, linear, lambda cost: cost.taken),
        )
        for softmax, linear in pairs
    ]
    cost = next((each.cost for each in outcomes if each.cost is not None), None)
    where = "" if cost is None else f" on {cost.device}, {cost.threads} threads"
    output.table(
        (
            *("model", "length", f"{EPOCHS} epochs: softmax", "linear", "ratio"),
            *("memory: softmax", "linear", "ratio"),
        ),
        rows,
        title=f"{EPOCHS} epochs of {work.users:,} histories, {work.batch_size} a step{where}",
    )
    if cost is None:
        return
    output.note(
        f"seconds are scaled from the median of {work.steps} steps; memory is the peak, and its "
        f"ratio that of what came on top of the {size_of(cost.before)} before the model"
    )


def _cell(outcome: Outcome, shown: Callable[[Cost], str]) -> str:
    return outcome.reason if outcome.cost is None else shown(outcome.cost)


def _ratio(softmax: Outcome, linear: Outcome, value: Callable[[Cost], float]) -> str:
    """Returns how many times the value of the second the first has, if both have one."""
    if softmax.cost is None or linear.cost is None or value(linear.cost) <= 0:
        return ""
    return f"{value(softmax.cost) / value(linear.cost):.2f}"


def _line(outcome: Outcome) -> str:
    case, cost = outcome.case, outcome.cost
    found = outcome.reason
    if cost is not None:
        found = f"{cost.step * 1000:,.0f} ms a step, {size_of(cost.memory)}"
    return f"{case.model}, {case.attention}, length {case.length}: {found}"
