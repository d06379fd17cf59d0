from __future__ import annotations

import pytest
import torch

from blin.nn.window import window_mean
from reference.mqsa_ted import means_of_newest

SEGMENTS = torch.tensor(
    [[0, 0, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 3]]
)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 20])
def test_means_are_those_of_the_newest_in_the_segment(window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    found = window_mean(x, SEGMENTS, window)
    expected = torch.zeros_like(found)
    for row, marks in enumerate(SEGMENTS.tolist()):
        for mark in set(marks) - {0}:
            places = [place for place, found_mark in enumerate(marks) if found_mark == mark]
            means = means_of_newest([x[row, place] for place in places], window)
            expected[row, places] = torch.stack(means)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(3, 8, 2, generator=generator, dtype=torch.float64)
    (ours,), (theirs,) = (torch.autograd.grad((y * weights).sum(), x) for y in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_window_of_one_leaves_all_but_padding_as_it_is() -> None:
    x = torch.arange(48.0).view(3, 8, 2)
    assert torch.equal(window_mean(x, SEGMENTS, 1), x * (SEGMENTS > 0).unsqueeze(-1))
