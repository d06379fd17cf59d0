"""Sequences in pieces: each is to a model what a history of its items alone would be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blin.batch import Batch, BatchSpec, Losses, View
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.models.encoder import Encoder
from blin.training import trainer
from blin.training.cold import Pieces, cut, draw_pieces, with_pieces
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


def test_every_view_of_a_batch_is_cut_alike(small_dataset: Dataset) -> None:
    batch, module = batch_of(small_dataset, "blin")
    spec = module.batch_spec
    assert len(batch.views) == 2
    state = torch.get_rng_state()
    assert with_pieces(batch, spec, share=0.0, longest=3) is batch
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    found = with_pieces(batch, spec, share=0.6, longest=3)
    pieces = pieces_of(batch)
    for before, after in zip(batch.views, found.views, strict=True):
        expected = cut(before, pieces, max_len=16, positions=spec.positions)
        assert not torch.equal(after.segments, before.segments)
        assert torch.equal(after.segments, expected.segments)
        assert torch.equal(after.positions, expected.positions)


def test_a_training_learns_from_the_pieces(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are given the batches that the loader made, cut."""
    settings = {"dim": 8, "epochs": 1, "cold_share": 0.6, "cold_items": 3}
    where: dict[str, Any] = {"runs_dir": tmp_path, "device": "cpu", "threads": 1}
    given: list[tuple[Batch, float, int]] = []
    learned: list[Batch] = []

    def watched(batch: Batch, spec: BatchSpec, *, share: float, longest: int) -> Batch:
        given.append((batch, share, longest))
        return with_pieces(batch, spec, share=share, longest=longest)

    forward = Encoder.forward

    def seen(self: Encoder, batch: Batch) -> Losses:
        learned.append(batch)
        return forward(self, batch)

    monkeypatch.setattr(trainer, "with_pieces", watched)
    monkeypatch.setattr(Encoder, "forward", seen)
    trainer.train(small_dataset, settings=settings, **where)
    assert given and {each[1:] for each in given} == {(0.6, 3)}
    for (before, *_), after in zip(given, learned, strict=True):
        assert not torch.equal(before.views[0].segments, after.views[0].segments)


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
