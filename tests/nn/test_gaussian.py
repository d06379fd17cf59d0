from __future__ import annotations

import torch
from torch import Tensor

from blin.nn.gaussian import (
    STRETCH,
    by_sequence,
    covariance,
    point,
    squared_distances,
    squared_distances_of_rows,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_distances_are_those_of_the_definition() -> None:
    means, covs = draw(2, 5, 3), covariance(draw(2, 5, 3, seed=1))
    points = point(means, covs)
    found = squared_distances(points[0], points[1])
    for i in range(5):
        for j in range(5):
            apart = (means[0, i] - means[1, j]).square().sum()
            apart += (covs[0, i].sqrt() - covs[1, j].sqrt()).square().sum()
            torch.testing.assert_close(found[i, j], apart)


def test_covariances_are_positive_and_have_a_slope_everywhere() -> None:
    raw = torch.tensor([-200.0, -40.0, -1.0, 0.0, 1.0, 200.0], requires_grad=True)
    cov = covariance(raw)
    torch.testing.assert_close(cov[2:], torch.tensor([torch.e**-1, 1.0, 2.0, 201.0]))
    assert (cov >= 0).all()
    points = point(torch.zeros(6), cov)
    points.sum().backward()
    assert torch.isfinite(points).all()
    assert raw.grad is not None and torch.isfinite(raw.grad).all()


def test_distances_keep_their_digits_under_autocast() -> None:
    points = draw(7, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = squared_distances(points, points)
        rows = squared_distances_of_rows(points.view(7, 2, 2), torch.full((7,), 2))
    assert found.dtype == rows.dtype == torch.float32
    torch.testing.assert_close(found, squared_distances(points, points))
    torch.testing.assert_close(rows, found)


def test_each_segment_gets_a_row_the_newest_first() -> None:
    segments = torch.tensor([[0, 3, 3, 2, 1, 1], [0, 0, 0, 1, 1, 1]])
    states = torch.arange(1.0, 13.0).view(2, 6, 1)
    rows, lengths = by_sequence(states, segments, 4)
    assert rows.squeeze(-1).tolist() == [[3, 2, 0, 0], [4, 0, 0, 0], [6, 5, 0, 0], [12, 11, 10, 0]]
    assert lengths.tolist() == [2, 1, 2, 3]


def test_rows_are_compared_whole() -> None:
    lengths = torch.tensor([2 * STRETCH + 3, 2 * STRETCH, STRETCH, STRETCH - 1, 1])
    rows = draw(5, 2 * STRETCH + 5, 3)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = 0
    found = squared_distances_of_rows(rows, lengths)
    expected = (rows.unsqueeze(1) - rows).square().sum((2, 3))
    torch.testing.assert_close(found, expected)
