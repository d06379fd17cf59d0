from __future__ import annotations

import numpy as np
import pytest
import torch

from blin.errors import BlinError
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


def test_what_is_out_of_the_question_comes_last() -> None:
    values, items = best_items(torch.tensor([[-torch.inf, 1.0, -torch.inf, 2.0]]), 3)
    assert values.tolist() == [[2, 1, -np.inf]]
    assert items[0, :2].tolist() == [3, 1]


@pytest.mark.parametrize("k", [1, 3])
def test_a_score_that_is_no_number_is_an_error(k: int) -> None:
    with pytest.raises(BlinError, match="scores are not numbers"):
        best_items(torch.tensor([[1.0, 2.0, 3.0], [1.0, torch.nan, 3.0]]), k)
