"""Which runs of a dataset are finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from blin.errors import CheckpointError
from blin.experiments.outcomes import finished_runs
from experiments.made_runs import make_run

RANKS = [1, 2, 30]


def test_finished_runs_are_trained_to_their_end_and_tested(tmp_path: Path) -> None:
    place = tmp_path / "shop"
    make_run(place / "b", RANKS, epochs_wanted=3, seed=1)
    make_run(place / "a", RANKS, epochs_wanted=9, patience=1)
    make_run(place / "not-tested", None, epochs_wanted=3)
    make_run(place / "stopped", RANKS, epochs_wanted=9)
    make_run(place / ".new", RANKS, epochs_wanted=3)
    make_run(place / "foreign", RANKS, model="foreign", epochs_wanted=3)
    make_run(place / "damaged", RANKS, epochs_wanted=3)
    (place / "damaged" / "config.toml").write_text("[")
    (first, patient), (second, whole) = finished_runs(tmp_path, "shop")
    assert (first.path.name, second.path.name) == ("a", "b")
    assert (second.model, second.fingerprint) == ("blin", "sha256:0")
    # What the run does not name has its default.
    assert (second.settings["seed"], second.settings["batch_size"]) == (1, 256)
    assert (patient.best_epoch, whole.best_epoch, whole.epochs) == (2, 2, 3)
    with pytest.raises(CheckpointError, match="expected finished runs, found none"):
        finished_runs(tmp_path, "other")
