from __future__ import annotations

import numpy as np
import torch

from blin.nn.top import best_items


def test_ties_go_to_the_lower_item() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]])
    values, items = best_items(scores, 3)
    assert items.tolist() == [[2, 4, 1], [0, 1, 2]]
    assert values.tolist() == [[2, 2, 1], [5, 5, 5]]


def test_top_is_a_sort() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 7, (50, 30))).float()
    _, items = best_items(scores, 9)
    for row, found in zip(scores.tolist(), items.tolist(), strict=True):
        assert found == sorted(range(30), key=lambda item: (-row[item], item))[:9]
