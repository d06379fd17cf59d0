"""All runs of a dataset in one table for each protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from blin.cli.output import Output

if TYPE_CHECKING:
    from blin.experiments.comparison import Ranked
    from blin.experiments.results import Row


def compare_all(
    dataset: str,
    *,
    best: bool,
    negatives: int | None,
    last: int | None,
    metrics: Sequence[str],
    confidence: float,
    resamples: int,
    seed: int,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    markdown: bool,
    output: Output,
) -> dict[str, object]:
    """Prints a table of all finished runs of a dataset, and returns it as JSON has it.

    The arguments are the options of ``blin compare``.
    """
    from blin.experiments.comparison import best_of_each_model, finished_rows

    rows, left_out = finished_rows(runs_dir, dataset)
    if left_out:
        output.warn(
            f"{left_out} runs were trained on other sequences or times of that name: left out"
        )
    if best:
        rows = best_of_each_model(rows)
    protocols: list[dict[str, int]] = [{}]
    if negatives is not None:
        protocols.append({"negatives": negatives})
    if last is not None:
        protocols.append({"last": last})
    # Nothing is shown before all of it is there.
    ranked = [
        rank_rows(rows, **each, device=device, data_dir=data_dir, output=output)
        for each in protocols
    ]
    return {
        "dataset": dataset,
        "protocols": [
            show_rows(
                each,
                metrics=metrics,
                confidence=confidence,
                resamples=resamples,
                seed=seed,
                show_markdown=markdown,
                output=output,
            )
            for each in ranked
        ],
    }


def rank_rows(
    rows: Sequence[Row],
    *,
    negatives: int | None = None,
    last: int | None = None,
    device: str,
    data_dir: Path | None,
    output: Output,
) -> list[Ranked]:
    """Returns the rows with their ranks by one protocol; see `blin.experiments.comparison`."""
    from blin.experiments.comparison import rank

    with output.bar("rank the test items") as advance:
        return rank(
            rows,
            data_dir=data_dir,
            negatives=negatives,
            last=last,
            device=device,
            on_progress=advance,
        )


def show_rows(
    ranked: Sequence[Ranked],
    *,
    metrics: Sequence[str],
    confidence: float,
    resamples: int,
    seed: int,
    show_markdown: bool,
    output: Output,
) -> dict[str, object]:
    """Prints the table of one protocol, and returns it as JSON has it."""
    from blin.evaluation.protocol import protocol_title
    from blin.experiments.comparison import best_of
    from blin.experiments.seeds import interval_note

    protocol, suffix = ranked[0].evaluations[0].protocol, ranked[0].suffix
    level = 1 - confidence
    marked = {
        metric: best_of(ranked, metric, level=level, resamples=resamples, seed=seed)
        for metric in metrics
    }
    show = output.markdown if show_markdown else output.table
    show(
        ("row", "seeds", *(metric + suffix for metric in metrics)),
        [
            (
                each.name,
                str(len(each.evaluations)),
                *(_cell(each, metric, confidence, marked[metric]) for metric in metrics),
            )
            for each in ranked
        ],
        title=protocol_title(protocol),
    )
    output.note(
        f"{interval_note(confidence)}; * better than every other row, p (Holm) at most {level:.2g}"
    )
    return {
        "protocol": protocol,
        "rows": [
            {
                "row": each.name,
                "model": each.row.point.model,
                "settings": dict(each.row.point.settings),
                "runs": [str(outcome.run) for outcome in each.row.outcomes.values()],
                "metrics": {m + suffix: asdict(each.interval(m, confidence)) for m in metrics},
            }
            for each in ranked
        ],
        "best": {metric + suffix: name for metric, name in marked.items()},
    }


def _cell(each: Ranked, metric: str, confidence: float, best: str | None) -> str:
    return f"{each.interval(metric, confidence)}{' *' if each.name == best else ''}"
