"""``blin bench``: what softmax and linear attention cost, by the length of the histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output, duration_of, size_of
from blin.cli.settings import merged_settings

if TYPE_CHECKING:
    from blin.experiments.bench import Cost, Outcome, Work


@click.command(cls=options.Command, short_help="Measure what attention costs, by length.")
@partial(
    options.models,
    help="Models with softmax or linear attention.",
    told="sasrec bert4rec blin",
    default=("sasrec", "bert4rec", "blin"),
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
    type=options.FiniteRange(min=0, min_open=True),
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
    from blin.experiments.bench import Work, draw
    from blin.experiments.kept_costs import costs_as_json

    work = Work(users, items, batch_size, steps, device, threads, seed, limit, settings)
    outcomes = measure_costs(models, lengths, work, output)
    if out is not None:
        draw(outcomes, out, work=work)
    told = costs_as_json(outcomes, work)
    output.result({**told, "picture": None if out is None else str(out)})
    show_costs(outcomes, work, output)


def measure_costs(
    models: Sequence[str],
    lengths: Sequence[int],
    work: Work,
    output: Output,
    *,
    kept_in: Path | None = None,
) -> list[Outcome]:
    """Measures all cases, and says how it goes.

    Args:
        models: as for :func:`blin.experiments.bench.measure`.
        lengths: likewise.
        work: likewise.
        output: where it is said.
        kept_in: a file whose cases are not measured again, and which keeps each one that is.
    """
    from blin.experiments.bench import measure
    from blin.experiments.kept_costs import read_costs, write_costs

    known = read_costs(kept_in, work) if kept_in is not None else []
    measured: list[Outcome] = []
    with output.bar("measure") as advance:

        def tell(outcome: Outcome, done: int, total: int) -> None:
            advance(done, total)
            if outcome in known:
                return
            measured.append(outcome)
            if kept_in is not None:
                write_costs(kept_in, [*known, *measured], work)
            if not output.live:
                output.note(_line(outcome))

        return measure(models, lengths, work=work, known=known, on_outcome=tell)


def show_costs(outcomes: Sequence[Outcome], work: Work, output: Output) -> None:
    """Prints both attentions of each model side by side."""
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
