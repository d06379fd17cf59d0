"""What a sweep came to: for each point the means over its seeds, as a table and in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from blin.data.dataset import Dataset
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Point
from blin.experiments.seeds import CONFIDENCE, Interval, interval_note
from blin.experiments.side_by_side import Change
from blin.files import replacing
from blin.markup import markdown_row
from blin.training.trainer import METRIC

METRICS = ("HR@10", METRIC)
"""What the table shows; the files have all."""

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Row:
    """What the finished trainings of a point came to.

    Attributes:
        point: the point.
        outcomes: by seed; that of a model that learns by counting has the seed None.
    """

    point: Point
    outcomes: Mapping[int | None, Outcome]

    def interval(self, split: str, metric: str, confidence: float = CONFIDENCE) -> Interval:
        """Returns a metric of the ``valid`` or ``test`` items over the seeds."""
        values = [getattr(each, split)[metric] for each in self.outcomes.values()]
        return Interval.of(values, confidence)

    @property
    def value(self) -> float:
        """What points are chosen by: the mean of the validation metric."""
        return self.interval("valid", METRIC).mean


class Results:
    """What is known so far of the points of a sweep.

    Args:
        points: in their order; a search adds to them.
    """

    def __init__(self, points: Sequence[Point] = ()) -> None:
        self.points = list(points)
        self.failures: dict[str, str] = {}
        self._outcomes: dict[str, dict[int | None, Outcome]] = {}

    def take(self, change: Change) -> bool:
        """Takes in what happened; returns whether there is a new result or failure."""
        trial = change.trial
        if change.outcome is not None:
            self._outcomes.setdefault(trial.point, {})[trial.seed] = change.outcome
            self.failures.pop(trial.name, None)
            return True
        if change.state == "failed":
            self.failures[trial.name] = change.reason
            return True
        return False

    @property
    def rows(self) -> list[Row]:
        """The points of which at least one training is finished, in their order."""
        found = ((point, self._outcomes.get(point.name, {})) for point in self.points)
        return [
            Row(point, dict(sorted(each.items(), key=lambda pair: pair[0] or 0)))
            for point, each in found
            if each
        ]

    def part(self, points: Sequence[Point]) -> Results:
        """Returns the results of some of the points, without what failed."""
        part = Results(points)
        part._outcomes = self._outcomes
        return part

    @property
    def best(self) -> Row | None:
        """The row that does best on the validation items; the first of equal ones."""
        return max(self.rows, key=lambda row: row.value, default=None)

    def as_json(self, confidence: float = CONFIDENCE) -> dict[str, object]:
        """Returns all of it as JSON has it, with intervals over the seeds."""
        best = self.best
        return {
            "chosen_by": f"valid {METRIC}",
            "best": None if best is None else best.point.name,
            "points": [_as_json(row, confidence) for row in self.rows],
            "failed": [{"trial": name, "reason": why} for name, why in self.failures.items()],
        }

    def table(
        self, confidence: float = CONFIDENCE
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Returns the columns and the rows of the table, with intervals over the seeds."""
        best = self.best
        columns = ("", "point", "seeds", *(f"{s} {m}" for s in ("valid", "test") for m in METRICS))
        rows = []
        for row in self.rows:
            epochs = fmean(each.epochs for each in row.outcomes.values())
            best_epoch = fmean(each.best_epoch for each in row.outcomes.values())
            seconds = fmean(each.seconds for each in row.outcomes.values())
            rows.append(
                (
                    "best" if best is not None and row.point is best.point else "",
                    row.point.name,
                    str(len(row.outcomes)),
                    *(
                        str(row.interval(split, metric, confidence))
                        for split in ("valid", "test")
                        for metric in METRICS
                    ),
                    f"{best_epoch:.0f} of {epochs:.0f}" if epochs else "",
                    f"{seconds:,.0f} s",
                )
            )
        return (*columns, "best epoch", "training"), rows


def _as_json(row: Row, confidence: float) -> dict[str, object]:
    def intervals(split: str) -> dict[str, object]:
        common = set.intersection(*(set(getattr(o, split)) for o in row.outcomes.values()))
        first = next(iter(row.outcomes.values()))
        return {
            name: asdict(row.interval(split, name, confidence))
            for name in getattr(first, split)
            if name in common
        }

    return {
        "point": row.point.name,
        "model": row.point.model,
        "settings": dict(row.point.settings),
        "valid": intervals("valid"),
        "test": intervals("test"),
        "runs": [
            {
                "seed": seed,
                "run": str(outcome.run),
                "epochs": outcome.epochs,
                "best_epoch": outcome.best_epoch,
                "seconds": outcome.seconds,
                "valid": dict(outcome.valid),
                "test": dict(outcome.test),
            }
            for seed, outcome in row.outcomes.items()
        ],
    }


def write_results(
    directory: Path, results: Results, dataset: Dataset, *, command: Sequence[str]
) -> None:
    """Writes ``sweep.json`` and, as Markdown, ``sweep.md``; each is the old one or the new one."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "format_version": FORMAT_VERSION,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "command": list(command),
        **results.as_json(),
    }
    with replacing(directory / "sweep.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    columns, rows = results.table()
    lines = [columns, ["---"] * len(columns), *rows]
    text = "".join(f"{markdown_row(cells)}\n" for cells in lines)
    with replacing(directory / "sweep.md") as temporary:
        temporary.write_text(
            f"{dataset.name}. {interval_note(CONFIDENCE)}.\n\n{text}", encoding="utf-8"
        )
