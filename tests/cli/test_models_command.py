"""``blin models`` as a user types it."""

from __future__ import annotations

import json

from blin.models import MODELS
from blin.models.sources import SOURCES
from cli.conftest import run_blin


def test_every_model_has_a_source() -> None:
    assert MODELS.keys() == SOURCES.keys()
    for name, source in SOURCES.items():
        assert source.about and "\n" not in source.about, name
        assert bool(source.paper) == bool(source.venue), name
        assert not source.venue or source.venue.rpartition(" ")[2].isdecimal(), name


def test_all_models_are_listed_with_what_they_are() -> None:
    told = json.loads(run_blin("models", "--json").stdout)
    assert [row["model"] for row in told] == list(MODELS)
    rows = {row["model"]: row for row in told}
    assert rows["sasrec"]["venue"] == "ICDM 2018"
    assert rows["sasrec"]["paper"] == "Self-Attentive Sequential Recommendation"
    assert (rows["blin-d"]["kind"], rows["item-knn"]["kind"]) == ("learned", "counted")
    lines = run_blin("models").stdout.splitlines()
    assert len(lines) == 1 + len(MODELS)
    assert "Self-Attentive Sequential Recommendation (ICDM 2018)" in lines[1 + 6]
