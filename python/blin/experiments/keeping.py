"""Evaluations are kept in a run beside the very weights that they are of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from blin.checkpoint import WEIGHTS_FILE
from blin.errors import BlinError
from blin.evaluation.evaluator import Evaluation

Weights = tuple[int, int] | None


def weights_of(run: Path) -> Weights:
    """Returns what tells the weights of a run from those that may replace them; None of none."""
    with suppress(FileNotFoundError):
        found = (run / "model" / WEIGHTS_FILE).stat()
        return found.st_ino, found.st_mtime_ns
    return None


def keep_evaluation(evaluation: Evaluation, run: Path, *, weights: Weights) -> None:
    """Writes an evaluation into a run that may be in training.

    Args:
        evaluation: of the test or the validation items.
        run: its directory.
        weights: what :func:`weights_of` returned before they were loaded.

    Raises:
        BlinError: The run has other weights by now.
    """
    if weights_of(run) != weights:
        raise BlinError(f"{run}: its training has found a better epoch meanwhile: evaluate again")
    evaluation.save(run / "eval")
