from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blin.nn.attention import linear
from blin.nn.attention.linear import LinearAttention, advance, linear_attention
from blin.nn.convolution import DepthwiseConvolution
from reference import attention as reference

SEGMENTS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1],
    [5, 4, 3, 2, 2, 1, 1, 0, 1],
    [0, 7, 0, 0, 7, 7, 0, 7, 7],
]

EXECUTIONS = [
    ("parallel", 4),
    ("auto", 9),
    ("auto", 8),
    *(("chunked", size) for size in (1, 2, 3, 5, 64)),
]


def random_heads(rows: int, n: int, *, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    heads = [torch.randn(rows, 2, n, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    heads[1] *= scale
    return [head.requires_grad_() for head in heads]


@pytest.mark.parametrize(
    ("execution", "chunk", "causal"),
    [
        *((*execution, causal) for execution in EXECUTIONS for causal in (True, False)),
        ("recurrent", 4, True),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_it_is_the_formula_and_so_is_its_gradient(
    execution: str, chunk: int, causal: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", chunk)
    heads = random_heads(len(SEGMENTS), len(SEGMENTS[0]), scale=scale)
    ours = linear_attention(*heads, torch.tensor(SEGMENTS), causal=causal, execution=execution)
    expected = reference.by_row_and_head(reference.linear_attention, heads, SEGMENTS, causal=causal)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4)).double()
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), heads),
        torch.autograd.grad((expected * weights).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_weights_sum_to_one_where_anything_is_visible(causal: bool) -> None:
    queries, keys, values = random_heads(len(SEGMENTS), len(SEGMENTS[0]))
    segments = torch.tensor(SEGMENTS)
    out = linear_attention(queries, keys, torch.ones_like(values), segments, causal=causal)
    expected = (segments > 0).double()[:, None, :, None].expand_as(out)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("execution", ["parallel", "chunked"])
@pytest.mark.parametrize("causal", [True, False])
def test_huge_keys_stay_finite(
    dtype: torch.dtype, execution: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", 2)
    heads = [head.detach().to(dtype).requires_grad_() for head in random_heads(2, 9, scale=100)]
    segments = torch.tensor(SEGMENTS[:2])
    out = linear_attention(*heads, segments, causal=causal, execution=execution)
    out.float().square().sum().backward()
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    assert all(head.grad is not None and torch.isfinite(head.grad).all() for head in heads)
    # The arithmetic is that of fp32: only the result is rounded to the narrow type.
    exact = linear_attention(*(head.detach().double() for head in heads), segments, causal=causal)
    torch.testing.assert_close(
        out, exact.to(dtype), rtol=1e-5 if dtype == torch.float32 else 8e-3, atol=1e-5
    )


def test_a_later_key_far_above_the_earlier_ones_leaves_them_their_outputs() -> None:
    """A maximum over the whole row would turn them into 0 / 0."""
    heads = [head.detach().float() for head in random_heads(1, 9)]
    heads[1][:, :, 5:] += 1000
    segments = torch.ones(1, 9, dtype=torch.long)
    out = linear_attention(*heads, segments)
    alone = linear_attention(*(head[:, :, :5] for head in heads), segments[:, :5])
    torch.testing.assert_close(out[:, :, :5], alone)
    assert out.abs().amin() > 0


def test_autocast_does_not_lower_its_precision() -> None:
    heads = [head.detach().float() for head in random_heads(2, 9)]
    segments = torch.tensor(SEGMENTS[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_attention(*heads, segments)
        went_on, _ = advance(*heads, None)
    torch.testing.assert_close(inside, linear_attention(*heads, segments), rtol=0, atol=0)
    torch.testing.assert_close(went_on, advance(*heads, None)[0], rtol=0, atol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 300])
def test_long_rows_in_fp32_are_those_in_fp64(n: int, causal: bool) -> None:
    """All executions, gradients included; two segments, of which one begins within a chunk."""
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(2, 1, n, 4, generator=generator) for _ in range(3)]
    weights = torch.randn(2, 1, n, 4, generator=generator)
    pad, border = n // 27, n // 3
    segments = torch.tensor([0] * pad + [2] * (border - pad) + [1] * (n - border)).repeat(2, 1)

    def computed(execution: str, dtype: torch.dtype) -> list[Tensor]:
        leaves = [head.to(dtype).requires_grad_() for head in heads]
        out = linear_attention(*leaves, segments, causal=causal, execution=execution)
        return [out, *torch.autograd.grad((out * weights.to(dtype)).sum(), leaves)]

    exact = computed("parallel", torch.float64)
    for execution in ("auto", "parallel", "chunked", *(["recurrent"] if causal else [])):
        for ours, expected in zip(computed(execution, torch.float32), exact, strict=True):
            torch.testing.assert_close(ours, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [[1] * 9, [3, 1, 5], [9]])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_going_on_is_one_pass(
    parts: list[int], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "CHUNK", 2)
    heads = [head.detach() for head in random_heads(2, 9, scale=scale)]
    outs, carried = [], None
    for pieces in zip(*(head.split(parts, dim=2) for head in heads), strict=True):
        out, carried = advance(*pieces, carried)
        outs.append(out)
    expected = linear_attention(*heads, torch.ones(2, 9, dtype=torch.long))
    torch.testing.assert_close(torch.cat(outs, dim=2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("local", [None, DepthwiseConvolution(6, 3)])
def test_the_module_goes_on_as_in_one_pass(local: DepthwiseConvolution | None) -> None:
    torch.manual_seed(0)
    module = LinearAttention(6, 2, local=local)
    x = torch.randn(2, 9, 6)
    outs, state = [], None
    for part in x.split([4, 1, 1, 3], dim=1):
        out, state = module.advance(part, state)
        outs.append(out)
    expected = module(x, torch.ones(2, 9, dtype=torch.long))
    torch.testing.assert_close(torch.cat(outs, dim=1), expected, rtol=1e-5, atol=1e-5)


def test_what_sees_the_future_has_no_recurrence() -> None:
    with pytest.raises(ValueError, match="only a causal attention"):
        LinearAttention(4, 2, causal=False).advance(torch.zeros(1, 1, 4), None)
    with pytest.raises(ValueError, match="must not be recurrent"):
        linear_attention(
            *random_heads(1, 9), torch.tensor(SEGMENTS[:1]), causal=False, execution="recurrent"
        )


def test_an_unknown_execution_is_named() -> None:
    with pytest.raises(ValueError, match="auto, parallel, chunked, recurrent, got 'fast'"):
        linear_attention(*random_heads(1, 9), torch.tensor(SEGMENTS[:1]), execution="fast")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim 6 and num_heads 4"):
        LinearAttention(6, 4)
