from __future__ import annotations

import pytest
import torch

from blin.nn.attention.softmax import softmax_attention
from blin.nn.attention.spans import SpanAttention, span_attention, spans_of
from reference.sasrec import places_by_segment
from reference.spnn import attention, span

SEGMENTS = torch.tensor(
    [[0, 0, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 3]]
)


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_spans_grow_by_a_factor_to_the_whole_history() -> None:
    assert spans_of(4, 50, shortest=4) == (4, 9, 22, 50)
    assert spans_of(3, 64, shortest=4) == (4, 16, 64)
    assert spans_of(4, 200, shortest=4) == (4, 15, 54, 200)
    assert spans_of(2, 50, shortest=1) == (1, 50)
    assert spans_of(1, 50, shortest=4) == (50,)
    assert spans_of(3, 3, shortest=4) == (3, 3, 3)


@pytest.mark.parametrize("num_heads", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("shortest", [1, 2, 4, 7])
def test_the_last_head_sees_all(num_heads: int, shortest: int) -> None:
    for max_len in range(1, 300):
        spans = spans_of(num_heads, max_len, shortest=shortest)
        assert spans[-1] == max_len
        assert list(spans) == sorted(spans)
        assert spans[0] == (max_len if num_heads == 1 else min(shortest, max_len))
        expected = [span(head, num_heads, max_len, shortest) for head in range(num_heads)]
        assert list(spans) == expected


def test_all_heads_of_the_longest_span_are_softmax_attention() -> None:
    queries, keys, values = drawn(3, 3, 2, 8, 4)
    found = span_attention(queries, keys, values, SEGMENTS, spans=(8, 8))
    assert torch.equal(found, softmax_attention(queries, keys, values, SEGMENTS))


def test_a_head_sees_no_further_than_its_span() -> None:
    queries, keys, values = drawn(3, 3, 3, 8, 4)
    spans = (1, 3, 8)
    before = span_attention(queries, keys, values, SEGMENTS, spans=spans)
    real = SEGMENTS > 0
    torch.testing.assert_close(before[:, 0][real], values[:, 0][real])
    assert not before.transpose(1, 2)[~real].any()
    moved = keys.clone(), values.clone()
    for part in moved:
        part[:, :, 2] += 1
    after = span_attention(queries, *moved, SEGMENTS, spans=spans)
    changed = (before != after).any(-1)[1]  # (H, N) of the row that is one segment
    assert changed.int().tolist() == [
        [0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 1],
    ]


def test_what_lies_between_the_copies_of_a_segment_is_not_counted() -> None:
    queries, keys, values = drawn(3, 1, 1, 5, 2)
    apart = torch.tensor([[1, 1, 0, 1, 1]])
    kept = [0, 1, 3, 4]
    parts = (part[:, :, kept] for part in (queries, keys, values))
    together = span_attention(*parts, apart[:, kept], spans=(3,))
    found = span_attention(queries, keys, values, apart, spans=(3,))
    torch.testing.assert_close(found[:, :, kept], together)


@pytest.mark.parametrize("spans", [(2, 8), (1, 2, 4, 8), (8,)], ids=str)
def test_it_is_that_of_one_head_of_one_position_after_the_other(spans: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    module = SpanAttention(8, len(spans), 8, shortest=spans[0]).double()
    assert module.spans == spans
    weights = {f"a.{name}": value for name, value in module.named_parameters()}
    x = drawn(3, 8, 8).requires_grad_()
    found = module(x, SEGMENTS)
    expected = torch.zeros_like(found)
    for row, places in places_by_segment(SEGMENTS):
        own = attention([x[row, place] for place in places], spans, weights, "a")
        expected[row, places] = torch.stack(own)
    real = SEGMENTS > 0
    torch.testing.assert_close(found[real], expected[real])
    inputs = [x, *weights.values()]
    scale = drawn(*found[real].shape)
    ours, theirs = (
        torch.autograd.grad((y[real] * scale).sum(), inputs, allow_unused=True)
        for y in (found, expected)
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_gate_weighs_the_heads_of_each_position() -> None:
    module = SpanAttention(8, 2, 8, shortest=2).double()
    x = drawn(3, 8, 8)
    gates = module.gates(x)
    assert gates.shape == (3, 8, 2)
    torch.testing.assert_close(gates.mean(-1), torch.ones(3, 8, dtype=torch.float64))
    assert len(gates[..., 0].unique()) == 24
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.copy_(torch.tensor([50.0, -50.0]))
    # The second head is shut: what lies behind the span of the first changes nothing.
    before = module(x, SEGMENTS)
    x[1, 0] += 1
    after = module(x, SEGMENTS)
    torch.testing.assert_close(before[1, 2:], after[1, 2:])
    assert not torch.equal(before[1, :2], after[1, :2])


def test_the_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads: expected a divisor of dim 8, got 3"):
        SpanAttention(8, 3, 8, shortest=1)
