from __future__ import annotations

import pytest
import torch

from blin.nn.attention import linrec
from blin.nn.attention.linrec import LinRecAttention, linrec_attention
from reference import attention as heads_of
from reference import linrec as reference

SEGMENTS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 7, 0, 0, 7, 7, 0, 2, 2],
]


def random_heads(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (len(SEGMENTS), 2, len(SEGMENTS[0]), 3)
    return [
        (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for _ in range(3)
    ]


@pytest.mark.parametrize("paired", [9, 8], ids=["by pairs", "by segments"])
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_formula_and_so_is_its_gradient(
    monkeypatch: pytest.MonkeyPatch, causal: bool, paired: int
) -> None:
    monkeypatch.setattr(linrec, "PAIRED", paired)
    heads = random_heads()
    ours = linrec_attention(*heads, torch.tensor(SEGMENTS), causal=causal)
    expected = heads_of.by_row_and_head(reference.linrec_attention, heads, SEGMENTS, causal=causal)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4)).double()
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), heads),
        torch.autograd.grad((expected * weights).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [linrec.PAIRED, linrec.PAIRED + 1, 200])
def test_rows_of_any_length_are_computed_alike(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    heads = [torch.randn(3, 2, n, 4, generator=generator).double() for _ in range(3)]
    segments = (torch.rand(3, n, generator=generator) < 0.1).long().cumsum(1)
    found = []
    for paired in (linrec.PAIRED, 0, n):
        monkeypatch.setattr(linrec, "PAIRED", paired)
        found.append(linrec_attention(*heads, segments))
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found[0], found[2], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("paired", [9, 8], ids=["by pairs", "by segments"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_padding_give_zeros_and_finite_gradients(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, paired: int
) -> None:
    monkeypatch.setattr(linrec, "PAIRED", paired)
    heads = [head.detach().to(dtype).requires_grad_() for head in random_heads()]
    segments = torch.zeros(len(SEGMENTS), len(SEGMENTS[0]), dtype=torch.long)
    out = linrec_attention(*heads, segments)
    assert out.dtype == dtype
    out.sum().backward()
    assert not out.any()
    assert all(head.grad is not None and not head.grad.any() for head in heads)


@pytest.mark.parametrize("paired", [9, 8], ids=["by pairs", "by segments"])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e4])
def test_lengths_of_any_size_give_finite_numbers(
    monkeypatch: pytest.MonkeyPatch, scale: float, paired: int
) -> None:
    monkeypatch.setattr(linrec, "PAIRED", paired)
    heads = [head.detach().float().requires_grad_() for head in random_heads(scale)]
    out = linrec_attention(*heads, torch.tensor(SEGMENTS))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(head.grad is not None and torch.isfinite(head.grad).all() for head in heads)


def test_half_precision_comes_near() -> None:
    torch.manual_seed(0)
    module = LinRecAttention(6, 2, causal=False)
    x, segments = torch.randn(5, 9, 6), torch.tensor(SEGMENTS)
    exact = module(x, segments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(x, segments)
    assert not torch.equal(rough.float(), exact)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.02)
