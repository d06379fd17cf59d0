"""Runs as a sweep leaves them, trained in this process: quicker than processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blin.data.dataset import Dataset
from blin.experiments.points import Point
from blin.training import trainer


def train_points(points: Sequence[Point], dataset: Dataset, runs_dir: Path) -> list[Path]:
    """Returns the runs, by point, then seed."""
    return [
        trainer.train(
            dataset,
            model=trial.model,
            settings=trial.settings,
            runs_dir=runs_dir,
            device="cpu",
            threads=1,
        ).run
        for point in points
        for trial in point.trials(dataset)
    ]
