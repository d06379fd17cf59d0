from __future__ import annotations

import pytest
import torch

from blin.nn.convolution import DepthwiseConvolution
from reference import attention as reference

SEGMENTS = [[0, 2, 2, 0, 1, 1, 1], [3, 0, 3, 3, 3, 3, 3], [0] * 7, [1] * 7]
KERNELS = [1, 2, 3, 5, 7, 9, 15]


def random_convolution(kernel_size: int, *, causal: bool) -> DepthwiseConvolution:
    torch.manual_seed(kernel_size)
    module = DepthwiseConvolution(3, kernel_size, causal=causal).double()
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_it_is_the_formula_and_so_is_its_gradient(kernel_size: int, causal: bool) -> None:
    module = random_convolution(kernel_size, causal=causal)
    x = torch.randn(4, 7, 3, dtype=torch.float64).requires_grad_()
    ours = module(x, torch.tensor(SEGMENTS))
    expected = torch.stack(
        [
            reference.convolution(row, module.weight, module.bias, segments, causal=causal)
            for row, segments in zip(x, SEGMENTS, strict=True)
        ]
    )
    torch.testing.assert_close(ours, expected)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    inputs = [x, module.weight, module.bias]
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_the_bidirectional_kernel_is_centred() -> None:
    module = random_convolution(5, causal=False)
    x = torch.zeros(1, 9, 3, dtype=torch.float64)
    x[0, 4] = 1
    reached = module(x, torch.ones(1, 9, dtype=torch.long)) - module.bias
    assert reached[0, :, 0].nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("parts", [[1] * 10, [3, 1, 6], [10], [7, 0, 3]])
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_going_on_is_one_pass(kernel_size: int, parts: list[int]) -> None:
    module = random_convolution(kernel_size, causal=True)
    x = torch.randn(2, 10, 3, dtype=torch.float64)
    outs, past = [], None
    for part in x.split(parts, dim=1):
        out, past = module.advance(part, past)
        outs.append(out)
        assert past.shape == (2, kernel_size - 1, 3)
    expected = module(x, torch.ones(2, 10, dtype=torch.long))
    torch.testing.assert_close(torch.cat(outs, dim=1), expected)


def test_a_bidirectional_convolution_cannot_go_on() -> None:
    with pytest.raises(ValueError, match="only a causal convolution"):
        random_convolution(3, causal=False).advance(torch.zeros(1, 1, 3), None)


def test_a_kernel_has_at_least_one_tap() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DepthwiseConvolution(3, 0)
