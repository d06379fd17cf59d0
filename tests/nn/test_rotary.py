from __future__ import annotations

import torch

from blin.nn.rotary import rotate
from reference.blossom import rotated


def test_it_is_the_formula() -> None:
    x = torch.randn(5, 2, 3, 6, generator=torch.Generator().manual_seed(0)).double()
    steps = torch.tensor([0, 1, 7, 7, 4000])
    found = rotate(x, steps)
    for place, step in enumerate(steps.tolist()):
        for group in range(2):
            for head in range(3):
                expected = rotated(x[place, group, head], step)
                torch.testing.assert_close(found[place, group, head], expected)


def test_products_depend_on_the_distance_only() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 8, generator=generator).double()

    def product(i: int, j: int) -> torch.Tensor:
        turned = (rotate(x, torch.tensor([step])) for x, step in ((query, i), (key, j)))
        first, second = turned
        return (first * second).sum()

    torch.testing.assert_close(product(9, 4), product(105, 100))
    assert abs(product(9, 4) - product(9, 5)) > 1e-3
    torch.testing.assert_close(product(3, 3), (query * key).sum())
