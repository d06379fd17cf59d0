from __future__ import annotations

import pytest
import torch

from blin.nn.convolution import CausalDepthwiseConvolution
from reference import attention as reference

SEGMENTS = [[0, 2, 2, 0, 1, 1, 1], [3, 0, 3, 3, 3, 3, 3], [0] * 7, [1] * 7]


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5, 7, 9])
def test_it_is_the_formula_and_so_is_its_gradient(kernel_size: int) -> None:
    generator = torch.Generator().manual_seed(kernel_size)
    module = CausalDepthwiseConvolution(3, kernel_size).double()
    torch.nn.init.normal_(module.bias, generator=generator)
    x = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    ours = module(x, torch.tensor(SEGMENTS))
    expected = torch.stack(
        [
            reference.convolution(row, module.weight, module.bias, segments)
            for row, segments in zip(x, SEGMENTS, strict=True)
        ]
    )
    torch.testing.assert_close(ours, expected)
    weights = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    inputs = [x, module.weight, module.bias]
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_a_kernel_has_at_least_one_tap() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CausalDepthwiseConvolution(3, 0)
