from __future__ import annotations

import pytest
import torch

from blin.nn.attention.softmax import SoftmaxAttention, softmax_attention
from reference import attention as reference

SEGMENTS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 7, 0, 0, 7, 7, 0, 7, 7],
]


def random_heads() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (len(SEGMENTS), 2, len(SEGMENTS[0]), 3)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_formula_and_so_is_its_gradient(causal: bool) -> None:
    heads = random_heads()
    ours = softmax_attention(*heads, torch.tensor(SEGMENTS), causal=causal)
    expected = reference.by_row_and_head(
        reference.softmax_attention, heads, SEGMENTS, causal=causal
    )
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4)).double()
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), heads),
        torch.autograd.grad((expected * weights).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_padding_give_zeros_and_finite_gradients(dtype: torch.dtype) -> None:
    heads = [head.detach().to(dtype).requires_grad_() for head in random_heads()]
    segments = torch.zeros(len(SEGMENTS), len(SEGMENTS[0]), dtype=torch.long)
    out = softmax_attention(*heads, segments)
    out.sum().backward()
    assert not out.any()
    assert all(head.grad is not None and not head.grad.any() for head in heads)


def test_weights_are_dropped_while_training_only() -> None:
    torch.manual_seed(0)
    module = SoftmaxAttention(6, 2, dropout=0.5).double()
    x, segments = torch.randn(5, 9, 6, dtype=torch.float64), torch.tensor(SEGMENTS)
    trained = module(x, segments)
    assert not torch.equal(trained, module(x, segments))
    module.eval()
    assert torch.equal(module(x, segments), module(x, segments))
    whole = SoftmaxAttention(6, 2).double()
    whole.load_state_dict(module.state_dict())
    assert torch.equal(module(x, segments), whole(x, segments))


def test_dropped_weights_keep_the_mean() -> None:
    torch.manual_seed(0)
    ones = [torch.ones(1, 1, 400, 2)] * 3
    out = softmax_attention(*ones, torch.ones(1, 400, dtype=torch.long), causal=False, dropout=0.3)
    assert abs(out.mean().item() - 1) < 0.01
    assert out.std() > 0.01


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim 6 and num_heads 4"):
        SoftmaxAttention(6, 4)
