from __future__ import annotations

import pytest
import torch

from blin.nn.attention import linear
from blin.nn.attention.linear import LinearAttention, linear_attention
from reference import attention as reference

SEGMENTS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1],
    [5, 4, 3, 2, 2, 1, 1, 0, 1],
    [0, 7, 0, 0, 7, 7, 0, 7, 7],
]


def random_heads(rows: int, n: int, *, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    heads = [torch.randn(rows, 2, n, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    heads[1] *= scale
    return [head.requires_grad_() for head in heads]


@pytest.mark.parametrize(
    ("form", "chunk"),
    [("parallel", 4), ("auto", 9), ("auto", 8), *(("chunked", size) for size in (1, 2, 3, 5, 64))],
)
def test_it_is_the_formula_and_so_is_its_gradient(
    form: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", chunk)
    heads = random_heads(len(SEGMENTS), len(SEGMENTS[0]))
    ours = linear_attention(*heads, torch.tensor(SEGMENTS), form=form)
    expected = torch.stack(
        [
            torch.stack(
                [
                    reference.linear_attention(*(part[row, head] for part in heads), segments)
                    for head in range(2)
                ]
            )
            for row, segments in enumerate(SEGMENTS)
        ]
    )
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4)).double()
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), heads),
        torch.autograd.grad((expected * weights).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


def test_weights_sum_to_one_where_anything_is_visible() -> None:
    queries, keys, values = random_heads(len(SEGMENTS), len(SEGMENTS[0]))
    segments = torch.tensor(SEGMENTS)
    out = linear_attention(queries, keys, torch.ones_like(values), segments)
    expected = (segments > 0).double()[:, None, :, None].expand_as(out)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["parallel", "chunked"])
def test_huge_keys_stay_finite(
    dtype: torch.dtype, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", 2)
    heads = [head.detach().to(dtype).requires_grad_() for head in random_heads(2, 9, scale=100)]
    out = linear_attention(*heads, torch.tensor(SEGMENTS[:2]), form=form)
    out.sum().backward()
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    assert all(head.grad is not None and torch.isfinite(head.grad).all() for head in heads)


def test_autocast_does_not_lower_its_precision() -> None:
    heads = [head.detach().float() for head in random_heads(2, 9)]
    segments = torch.tensor(SEGMENTS[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_attention(*heads, segments)
    torch.testing.assert_close(inside, linear_attention(*heads, segments), rtol=0, atol=0)


def test_long_rows_in_fp32_are_those_in_fp64() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(2, 1, 1000, 4, generator=generator) for _ in range(3)]
    segments = torch.cat([torch.zeros(2, 37), torch.ones(2, 963)], dim=1).long()
    short = linear_attention(*heads, segments)
    exact = linear_attention(*(head.double() for head in heads), segments, form="parallel")
    torch.testing.assert_close(short, exact.float(), rtol=1e-5, atol=1e-5)


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ValueError, match="auto, parallel, chunked, got 'fast'"):
        linear_attention(*random_heads(1, 9), torch.tensor(SEGMENTS[:1]), form="fast")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim 6 and num_heads 4"):
        LinearAttention(6, 4)
