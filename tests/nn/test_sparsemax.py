"""Sparsemax against every set of weights that could be above 0."""

from __future__ import annotations

import pytest
import torch

from blin.nn.sparsemax import sparsemax
from reference import distillation as reference


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_it_is_the_nearest_point_of_the_simplex(scale: float) -> None:
    torch.manual_seed(0)
    rows = scale * torch.randn(8, 6, dtype=torch.float64)
    rows[0] = 0.5
    rows[1, :3] = rows[1, 3]
    found = sparsemax(rows)
    expected = torch.tensor([reference.sparsemax(row.tolist()) for row in rows])
    torch.testing.assert_close(found, expected.double())
    torch.testing.assert_close(found.sum(-1), torch.ones(8, dtype=torch.float64))


def test_what_is_not_there_weighs_nothing() -> None:
    rows = torch.tensor([[0.3, -torch.inf, 0.1], [-torch.inf] * 3, [-torch.inf, -4.0, -torch.inf]])
    expected = torch.tensor([[0.6, 0.0, 0.4], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(sparsemax(rows), expected)


def test_gradients_are_right() -> None:
    torch.manual_seed(1)
    rows = torch.randn(5, 6, dtype=torch.float64)
    rows[2, 4:] = -torch.inf
    there = rows.isfinite()

    def of_those_there(values: torch.Tensor) -> torch.Tensor:
        return sparsemax(torch.full_like(rows, -torch.inf).masked_scatter(there, values))

    values = rows[there].requires_grad_()
    assert torch.autograd.gradcheck(of_those_there, (values,))


def test_higher_scores_leave_less() -> None:
    row = torch.linspace(-1, 1, 20).unsqueeze(0)
    counts = [int((sparsemax(scale * row) > 0).sum()) for scale in (0.01, 1.0, 10.0, 100.0)]
    assert counts == [20, 4, 1, 1]
