"""Every model scores as it did when its row of golden/models.json was made (golden/models.py)."""

from __future__ import annotations

import json

import pytest
import torch

from golden import models as golden
from learned import LEARNED

FROZEN = json.loads(golden.FILE.read_text(encoding="utf-8"))


def test_every_learned_model_has_a_row() -> None:
    assert list(FROZEN) == LEARNED


@pytest.mark.parametrize("name", LEARNED)
def test_scores_are_those_of_the_row(name: str) -> None:
    """To what the order of a sum may change, on another processor or with another torch."""
    found = torch.tensor(golden.scores(name), dtype=torch.float64)
    expected = torch.tensor(FROZEN[name]["scores"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_of_the_defaults_are_as_many(name: str) -> None:
    assert golden.parameters(name) == FROZEN[name]["parameters"]
