"""What a metric is over several seeds: one meaning of ± for all tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Of intervals, where nothing else is asked for."""


@dataclass(frozen=True)
class Interval:
    """The mean of a metric over seeds, and where the mean of all seeds may lie.

    Attributes:
        mean: over the seeds.
        low: lower end of the interval by Student's t; None of one seed.
        high: upper end.
    """

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
        """Returns that of values."""
        mean = fmean(values)
        if len(values) < 2:
            return cls(mean, None, None)
        t = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
        half = t * stdev(values) / len(values) ** 0.5
        return cls(mean, mean - half, mean + half)

    @property
    def half(self) -> float | None:
        """Half of its width; None of one seed."""
        return None if self.high is None else self.high - self.mean

    def __str__(self) -> str:
        """Returns it as people read it: ``0.0583 ± 0.0015``."""
        return f"{self.mean:.4f}" + ("" if self.half is None else f" ± {self.half:.4f}")


def interval_note(confidence: float) -> str:
    """Returns what ± means."""
    return f"Mean over seeds ± half of its {100 * confidence:g} % interval"
