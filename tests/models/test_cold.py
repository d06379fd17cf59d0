"""Sequences in pieces: each is to a model what a history of its items alone would be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from blin.batch import Batch, View
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.models.cold import Pieces, cut, draw_pieces
from learned import LEARNED, lively, loader_of, module_of
from reference import distillation as reference

ROWS: dict[str, dict[str, Any]] = {
    "packed": {},
    "alone": {"pack": False},
    "repeated": {"padding": "repeat"},
    "truncated": {"padding": "repeat", "fit": "truncate"},
    "weighed": {"padding": "random-repeat", "copies": "weight"},
}
PREFIXES = ("blin-paper", "linrec")
"""Models whose rows are prefixes, of which a step is the last input alone."""


def batch_of(dataset: Dataset, name: str = "spnn", **settings: Any) -> tuple[Batch, Any]:
    module = module_of(name, dataset.num_items, max_len=16)
    spec = replace(module.batch_spec, places=True)
    changes = {"padding": "zero", "crop": 0.0, **settings}
    loader = loader_of(dataset, spec, name, max_len=16, batch_size=12, **changes)
    return loader.batch(loader.users, 0, 0), module


def pieces_of(batch: Batch, *, share: float = 0.6, longest: int = 3) -> Pieces:
    torch.manual_seed(5)
    return draw_pieces(batch.step_users, len(batch.users), share=share, longest=longest)


def row_of(view: View, number: int) -> dict[str, list[int]]:
    names = ("segments", "steps", "positions")
    return {name: getattr(view, name)[number].tolist() for name in names}


@pytest.mark.parametrize("positions", ["absolute", "per-copy"])
@pytest.mark.parametrize("rows", ROWS)
def test_pieces_are_those_of_the_loop(small_dataset: Dataset, rows: str, positions: str) -> None:
    batch, _ = batch_of(small_dataset, **ROWS[rows])
    pieces = pieces_of(batch)
    view = batch.views[0]
    found = cut(view, pieces, max_len=16, positions=positions)
    for number in range(len(view.items)):
        expected = reference.cut(
            row_of(view, number),
            pieces.cut.tolist(),
            pieces.begins.tolist(),
            max_len=16,
            positions=positions,
        )
        own = row_of(found, number)
        assert list(zip(own["segments"], own["positions"], strict=True)) == expected
    for name in ("items", "targets", "copies", "steps", "times", "weights"):
        before, after = getattr(view, name), getattr(found, name)
        assert (before is None and after is None) or torch.equal(before, after)
    assert found.segments.dtype == view.segments.dtype
    assert found.positions.dtype == view.positions.dtype


@pytest.mark.parametrize("name", [name for name in LEARNED if name not in PREFIXES])
def test_a_piece_is_a_history_of_its_own(small_dataset: Dataset, name: str) -> None:
    batch, module = batch_of(small_dataset, name, padding="repeat")
    module = lively(module)
    pieces = pieces_of(batch)
    spec = module.batch_spec
    view = cut(batch.views[0], pieces, max_len=spec.max_len, positions=spec.positions)
    states = module.encode(view)
    assert batch.step_places is not None
    compared = 0
    for row, segments in enumerate(view.segments):
        for segment in segments.unique().tolist():
            here = segments == segment
            steps = view.steps[row][here]
            if segment == 0 or not pieces.cut[steps].all():
                continue
            places = batch.step_places[steps].numpy()
            assert (np.diff(places) == 1).all()
            history = history_batch(
                small_dataset.items,
                places[:1],
                places[-1:] + 1,
                spec,
                timestamps=small_dataset.timestamps,
            ).views[0]
            assert history.items[0].tolist() == view.items[row][here].tolist()
            torch.testing.assert_close(states[row][here], module.encode(history)[0])
            compared += 1
    assert compared > 10


def test_lengths_are_drawn_alike_and_nobody_else_is_cut() -> None:
    torch.manual_seed(0)
    users = torch.arange(400).repeat_interleave(50)
    pieces = draw_pieces(users, 400, share=0.3, longest=4)
    assert not pieces.begins[~pieces.cut].any()
    assert 0.2 < pieces.cut.view(400, 50)[:, 0].float().mean() < 0.4
    assert (pieces.cut.view(400, 50) == pieces.cut.view(400, 50)[:, :1]).all()
    lengths: list[int] = []
    for begins in pieces.begins.view(400, 50)[pieces.cut.view(400, 50)[:, 0]]:
        lengths += torch.nonzero(begins).squeeze(1).diff().tolist()
    shares = np.bincount(lengths, minlength=5) / len(lengths)
    assert shares[0] == 0 and len(shares) == 5
    np.testing.assert_allclose(shares[1:], 0.25, atol=0.03)


def test_a_share_of_all_or_nobody() -> None:
    users = torch.arange(20).repeat_interleave(3)
    assert draw_pieces(users, 20, share=1.0, longest=1).begins.sum() >= 59
    none = draw_pieces(users, 20, share=0.0, longest=1)
    assert not none.cut.any() and not none.begins.any()
