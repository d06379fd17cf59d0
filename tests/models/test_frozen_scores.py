"""Every model scores as it did when its row of golden/models.json was made (golden/models.py).

The rows follow from the formulas, too: the slow twins of ``reference`` work them out, one position
and one channel after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from blin.batch import View
from golden import models as golden
from learned import LEARNED
from reference import (
    bert4rec,
    blin,
    blossom,
    caser,
    esasrec,
    gru4rec,
    linrec,
    mqsa_ted,
    mstein,
    sasrec,
    spnn,
    tisasrec,
)

Weights = Mapping[str, Tensor]

FROZEN = json.loads(golden.FILE.read_text(encoding="utf-8"))

STATES: Mapping[str, Callable[[View, Weights, Any], Tensor]] = {
    **{name: blin.states for name in LEARNED if name.startswith("blin")},
    **dict.fromkeys(("sasrec", "cl4srec", "ct4rec"), sasrec.states),
    "gru4rec": lambda view, weights, _: gru4rec.encode(weights, view.items, view.segments),
    "tisasrec": tisasrec.states,
    "linrec": lambda view, weights, config: sasrec.states_by_segment(
        view, config, lambda *own: linrec.states(*own, weights, config)
    ),
    "esasrec": esasrec.states,
    "mqsa-ted": mqsa_ted.states,
    "blossomrec": blossom.states,
    "spnn": spnn.states,
}
"""The formulas of (B, N, D) states, of models whose scores are products with the item table."""


def caser_scores(view: View, weights: Weights, config: Any) -> list[Tensor]:
    newest = caser.encode(weights, view.items, view.segments, config)[:, -1]
    return [caser.scores(state, weights) for state in newest]


def bert4rec_scores(_: View, weights: Weights, config: Any) -> list[Tensor]:
    return [bert4rec.history_scores(row, weights, config) for row in golden.HISTORIES]


def mstein_scores(view: View, weights: Weights, config: Any) -> list[Tensor]:
    sequences = mstein.sequences(weights, config, view)
    items = [mstein.item(weights, number) for number in range(golden.NUM_ITEMS + 1)]
    end = view.items.shape[1] - 1
    states = [sequences[row, end] for row in range(len(view.items))]
    return [torch.stack([-mstein.distance(state, item) for item in items]) for state in states]


SCORES = {"caser": caser_scores, "bert4rec": bert4rec_scores, "mstein": mstein_scores}


def test_every_learned_model_has_a_row() -> None:
    assert list(FROZEN) == LEARNED


@pytest.mark.parametrize("name", LEARNED)
def test_scores_are_those_of_the_row(name: str) -> None:
    """To what the order of a sum may change, on another processor or with another torch."""
    found = torch.tensor(golden.scores(name), dtype=torch.float64)
    expected = torch.tensor(FROZEN[name]["scores"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LEARNED)
def test_the_row_is_that_of_the_formulas(name: str) -> None:
    module: Any = golden.model(name)
    weights, view = module.state_dict(), golden.histories(module).views[0]
    if name in SCORES:
        found = torch.stack(SCORES[name](view, weights, module.config))
    else:
        newest = STATES[name](view, weights, module.config)[:, -1]
        found = newest @ weights["item_embedding.weight"].T
    expected = torch.tensor(FROZEN[name]["scores"], dtype=torch.float64)
    items = slice(1, golden.NUM_ITEMS + 1)
    torch.testing.assert_close(found[:, items], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_of_the_defaults_are_as_many(name: str) -> None:
    assert golden.parameters(name) == FROZEN[name]["parameters"]
