"""Next-item recommendation from interaction logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blin.data.dataset import Dataset, load_dataset
    from blin.data.prepare import preprocess
    from blin.errors import BlinError
    from blin.estimator import Blin, Recommender
    from blin.evaluation.evaluator import Evaluation, evaluate

__all__ = [
    "Blin",
    "BlinError",
    "Dataset",
    "Evaluation",
    "Recommender",
    "evaluate",
    "load_dataset",
    "preprocess",
]

_HOMES = {
    "Blin": "blin.estimator",
    "BlinError": "blin.errors",
    "Dataset": "blin.data.dataset",
    "Evaluation": "blin.evaluation.evaluator",
    "Recommender": "blin.estimator",
    "evaluate": "blin.evaluation.evaluator",
    "load_dataset": "blin.data.dataset",
    "preprocess": "blin.data.prepare",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch is slow, ``blin --help`` must not be."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
