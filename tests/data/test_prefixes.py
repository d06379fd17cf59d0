from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from blin.batch import BatchSpec
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader
from blin.data.prefixes import prefixes
from blin.models.objective import AgreementConfig, next_item_loss
from reference import objective as reference

SPEC = BatchSpec(14, "absolute", views=2, num_negatives=9, loss_positions="last")
ROWS = {
    "zero": Rows(padding="zero", fit="whole", copies="reset", pack=True),
    "repeats": Rows(padding="random-repeat", fit="whole", copies="reset", pack=True),
    "partial repeats that attend": Rows("random-repeat", "truncate", copies="attend", pack=False),
    "weights": Rows(padding="random-repeat", fit="whole", copies="weight", pack=True),
}


def test_prefixes_have_two_items_or_more() -> None:
    owners, starts, ends = prefixes(np.array([0, 3, 4, 4, 6]), np.array([3, 4, 4, 6, 10]))
    assert owners.tolist() == [0, 0, 3, 4, 4, 4]
    assert starts.tolist() == [0, 0, 4, 6, 6, 6]
    assert ends.tolist() == [2, 3, 6, 8, 9, 10]


def test_an_epoch_has_every_prefix_once(small_dataset: Dataset) -> None:
    loader = TrainingLoader(small_dataset, SPEC, ROWS["zero"], batch_size=50, seed=3)
    found = []
    for batch in loader.epoch(2):
        view = batch.views[0]
        places = view.targets > 0
        users = batch.users[batch.step_users[view.steps[places]]]
        found += list(zip(users.tolist(), view.targets[places].tolist(), strict=True))
    expected = [
        (user, item)
        for user in range(small_dataset.num_users)
        for item in small_dataset.sequence(user)[1 : small_dataset.splits[user, 0]].tolist()
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("negatives_per", ["batch", "position", "copy"])
@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_a_prefix_has_one_step_and_its_target_is_not_in_its_segment(
    small_dataset: Dataset, rows: Rows, negatives_per: str
) -> None:
    distinct = Dataset(small_dataset.path)
    distinct.items = np.arange(1, len(distinct.items) + 1, dtype=np.uint32)
    spec = replace(SPEC, negatives_per=negatives_per)
    loader = TrainingLoader(distinct, spec, rows, batch_size=30, seed=3)
    batch = loader.batch(loader.users, 1, 2)
    assert batch.step_users.tolist() == list(range(30))
    shape = {"batch": (9,), "position": (30, 9)}.get(negatives_per)
    if negatives_per == "copy":
        shape = (max(int(view.copies.max()) for view in batch.views), 30, 9)
    assert batch.negatives.shape == batch.log_q.shape == shape
    for view in batch.views:
        places = view.targets > 0
        assert torch.equal(places, view.steps >= 0)
        assert view.steps[places].tolist() == list(range(30))
        assert (view.copies[places] == 1).all()
        for row, place in places.nonzero().tolist():
            target = int(view.targets[row, place])
            seen = view.items[row][view.segments[row] == view.segments[row, place]]
            assert int(seen.max()) == target - 1
            if negatives_per != "batch":
                assert target not in batch.negatives[..., view.steps[row, place], :]


@pytest.mark.parametrize("negatives_per", ["batch", "position", "copy"])
@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_the_loss_is_that_of_one_target_after_the_other(
    small_dataset: Dataset, rows: Rows, negatives_per: str
) -> None:
    config = AgreementConfig(num_negatives=9, negatives_per=negatives_per, log_q=True)
    spec = replace(SPEC, negatives_per=negatives_per)
    loader = TrainingLoader(small_dataset, spec, rows, batch_size=6, seed=3)
    batch = loader.batch(loader.users, 0, 0)
    generator = torch.Generator().manual_seed(1)
    states = [
        torch.randn(*view.items.shape, 4, generator=generator, dtype=torch.float64)
        for view in batch.views
    ]
    table = torch.randn(small_dataset.num_items + 1, 4, generator=generator, dtype=torch.float64)
    ours = next_item_loss(states, table, batch, config)
    sequence, divergence = reference.next_item_loss(states, table, batch, config)
    torch.testing.assert_close(ours.total, sequence + config.kl_weight * divergence)
