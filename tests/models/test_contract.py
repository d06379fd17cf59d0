"""What every model that learns by a loss must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from blin.batch import Batch, View
from blin.checkpoint import TrainedModel, load_run
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.errors import ConfigError
from blin.models import MODELS, Learned
from blin.training.trainer import resume, train
from learned import LEARNED, informed, loader_of, module_of, small_settings

V = 12
HISTORIES = [[3, 1, 4, 1, 5, 9, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [7], [8, 8]]

pytestmark = pytest.mark.parametrize("name", LEARNED)


def histories(module: Learned, rows: list[list[int]]) -> Batch:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ends = np.cumsum(lengths)
    flat = np.array([item for row in rows for item in row], dtype=np.uint32)
    return history_batch(flat, ends - lengths, ends, module.batch_spec)


def padded(batch: Batch, width: int) -> Batch:
    """The batch in rows of another width, filled with padding on the left."""
    view = batch.views[0]
    more = width - view.items.shape[1]

    def wider(array: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(array, (more, 0), value=value)

    rows = View(
        items=wider(view.items, 0),
        targets=wider(view.targets, 0),
        segments=wider(view.segments, 0),
        positions=wider(view.positions, 0),
        copies=wider(view.copies, 0),
        steps=wider(view.steps, -1),
    )
    return replace(batch, views=(rows,))


def test_the_loss_is_finite_and_falls(small_dataset: Dataset, name: str) -> None:
    torch.manual_seed(0)
    config = module_of(name, small_dataset.num_items, max_len=16).config
    module = informed(MODELS[name].module(small_dataset.num_items, config), small_dataset)
    loader = loader_of(small_dataset, module.batch_spec, name, max_len=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for epoch in range(8):
        for batch in loader.epoch(epoch):
            loss = module(batch)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            losses.append(loss.total.item())
            assert all(torch.isfinite(part).all() for part in loss.parts.values())
            assert not any(part.requires_grad for part in loss.parts.values())
    steps = loader.steps_per_epoch
    assert np.isfinite(losses).all()
    assert np.mean(losses[-steps:]) < np.mean(losses[:steps])


def test_every_parameter_learns(small_dataset: Dataset, name: str) -> None:
    module = informed(module_of(name, small_dataset.num_items, max_len=16), small_dataset).train()
    loader = loader_of(small_dataset, module.batch_spec, name, max_len=16)
    for batch in loader.epoch(0):
        module(batch).total.backward()
    for parameter, weights in module.named_parameters():
        assert weights.grad is not None and weights.grad.any(), parameter
        assert torch.isfinite(weights.grad).all(), parameter
    for part in module.modules():
        if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None:
            assert not part.weight.grad[part.padding_idx].any()  # type: ignore[index]


def test_candidates_score_as_in_the_whole_catalogue(name: str) -> None:
    module = module_of(name, V)
    batch = histories(module, HISTORIES)
    full = module.score(batch)
    assert full.shape == (len(HISTORIES), V + 1)
    candidates = torch.tensor([[1, 2, 12], [3, 3, 4], [7, 1, 5], [2, 2, 2]])
    torch.testing.assert_close(module.score(batch, candidates), full.gather(1, candidates))


def test_items_score_differently(name: str) -> None:
    module = module_of(name, V)
    scores = module.score(histories(module, HISTORIES))[:, 1:]
    assert all(len(row.unique()) == V for row in scores)
    assert len(scores.unique(dim=0)) == len(HISTORIES)


def test_a_row_scores_alone_as_among_others(name: str) -> None:
    module = module_of(name, V)
    together = module.score(histories(module, HISTORIES))
    for row, expected in zip(HISTORIES, together, strict=True):
        torch.testing.assert_close(module.score(histories(module, [row]))[0], expected)


def test_padding_changes_nothing(name: str) -> None:
    module = module_of(name, V)
    narrow = histories(module, HISTORIES[2:])
    width = module.batch_spec.max_len
    assert narrow.views[0].items.shape[1] < width
    torch.testing.assert_close(module.score(padded(narrow, width)), module.score(narrow))


def test_an_empty_history_has_finite_scores(name: str) -> None:
    module = module_of(name, V)
    assert torch.isfinite(module.score(histories(module, [[], [1]]))).all()


def test_no_history_has_no_scores(name: str) -> None:
    module = module_of(name, V)
    nobody = histories(module, [])
    assert module.score(nobody).shape == (0, V + 1)
    assert module.score(nobody, torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_only_the_newest_items_matter(name: str) -> None:
    module = module_of(name, V)
    kept = module.batch_spec.max_len
    newest = [item % V + 1 for item in range(kept)]
    long, short = (histories(module, [row]) for row in ([5, 6, *newest], newest))
    torch.testing.assert_close(module.score(long), module.score(short))


def test_saved_models_score_as_before_and_stopped_runs_come_to_the_same_weights(
    small_dataset: Dataset, tmp_path: Path, name: str
) -> None:
    how = {"model": name, "device": "cpu", "threads": 1}
    runs = []
    for epochs in (2, 1):
        settings = small_settings(name, epochs=epochs, batch_size=64)
        home = tmp_path / str(epochs)
        runs.append(train(small_dataset, settings=settings, runs_dir=home, **how))  # type: ignore[arg-type]
    resumed = resume(
        runs[1].run, data_dir=small_dataset.path.parent, settings={"epochs": 2}, threads=1
    )
    whole, gone_on = (
        load_file(run.run / "checkpoints" / "last.safetensors") for run in (runs[0], resumed)
    )
    assert whole.keys() == gone_on.keys()
    for part, tensor in whole.items():
        assert torch.equal(tensor, gone_on[part]), part
    assert resumed.metrics == runs[0].metrics
    trained = load_run(resumed.run).model
    assert trained.name == name
    trained.save(tmp_path / "saved")
    loaded = TrainedModel.load(tmp_path / "saved")
    batch = histories(trained.module, HISTORIES)  # type: ignore[arg-type]
    assert torch.equal(loaded.score(batch), trained.score(batch))


def test_settings_that_no_model_can_have_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="max_len: expected at least 1, found 0"):
        module_of(name, V, max_len=0)
    with pytest.raises(ConfigError, match="dropout: expected a number in"):
        module_of(name, V, dropout=1.0)
