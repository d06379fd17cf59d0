from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blin.nn.attention import gathered
from blin.nn.attention.blossom import (
    GATES,
    Blocks,
    BlossomAttention,
    choose_blocks,
    short_distances,
)
from blin.nn.convolution import DepthwiseConvolution
from reference import blossom as reference

N, DIM = 16, 8
SEGMENTS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0],
    [1] * N,
    [0] * N,
    [0] * (N - 1) + [1],
    [0, 7, 0, 0, 7, 7, 7, 7, 7, 0, 7, 7, 7, 2, 2, 2],
]
FORMS: dict[str, reference.Sizes] = {
    "shared keys": reference.Sizes(4, 2, 2, 2, 2),
    "one key head": reference.Sizes(2, 1, 3, 1, 3),
    "a key head each": reference.Sizes(2, 2, 4, 2, 1),
    "as published, all in one block": reference.Sizes(4, 2, 16, 4, 8),
}


def build(sizes: reference.Sizes, **settings: Any) -> BlossomAttention:
    torch.manual_seed(0)
    module = BlossomAttention(
        DIM,
        sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        block_size=sizes.block_size,
        chosen_blocks=sizes.chosen_blocks,
        window=sizes.window,
        **settings,
    ).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return module


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(len(SEGMENTS), N, DIM, generator=generator).double()


@pytest.mark.parametrize("gathered_at_a_time", [1 << 20, 100])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_formula_and_so_is_its_gradient(
    monkeypatch: pytest.MonkeyPatch, form: str, gathered_at_a_time: int
) -> None:
    monkeypatch.setattr(gathered, "GATHERED", gathered_at_a_time)
    module, segments = build(FORMS[form]), torch.tensor(SEGMENTS)
    ours, theirs = (inputs().requires_grad_() for _ in range(2))
    weights = {
        f"it.{name}": value.detach().clone().requires_grad_()
        for name, value in module.named_parameters()
    }
    found = module(ours, segments)
    expected = reference.attended(theirs, segments, weights, "it", FORMS[form])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    weighing = torch.randn(found.shape, generator=torch.Generator().manual_seed(4)).double()
    (found * weighing).sum().backward()
    (expected * weighing).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-11)
    learning = 0
    for name, parameter in module.named_parameters():
        wanted = weights[f"it.{name}"].grad
        if wanted is None:
            assert parameter.grad is None
            continue
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-10, atol=1e-10)
        learning += 1
    # Where nothing lies in an earlier block there is no choice to learn.
    assert learning == (6 if FORMS[form].block_size == N else 11)


@pytest.mark.parametrize("form", FORMS)
def test_later_positions_change_nothing(form: str) -> None:
    """Neither what is attended to, nor the choice of it: bit for bit."""
    module, x = build(FORMS[form]), inputs()
    segments = torch.ones(len(x), N, dtype=torch.int64)
    before = module(x, segments)
    for place in range(1, N):
        other = x.clone()
        other[:, place:] = 3 * torch.randn(other[:, place:].shape, dtype=torch.float64)
        after = module(other, segments)
        assert torch.equal(before[:, :place], after[:, :place])
        assert (before[:, place] != after[:, place]).any(dim=-1).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_segment_is_alone_wherever_it_lies(form: str) -> None:
    """Padding before it, gaps in it and others around it change nothing."""
    module, x, segments = build(FORMS[form]), inputs(), torch.tensor(SEGMENTS)
    packed = module(x, segments)
    assert not packed[segments == 0].any()
    for row, marks in enumerate(SEGMENTS):
        for mark in set(marks) - {0}:
            own = segments[row] == mark
            alone = module(x[row, own].unsqueeze(0), torch.ones(1, int(own.sum())).long())
            torch.testing.assert_close(packed[row, own], alone[0], rtol=1e-12, atol=1e-12)


def test_another_segment_changes_no_bit() -> None:
    module, x, segments = build(FORMS["shared keys"]), inputs(), torch.tensor(SEGMENTS)
    before = module(x, segments)
    for mark in (1, 2, 3, 7):
        own = segments == mark
        after = module(torch.where(own.unsqueeze(-1), x, x.flip(1) - 1), segments)
        assert torch.equal(before[own], after[own])


def test_the_best_blocks_of_the_past_are_chosen() -> None:
    generator = torch.Generator().manual_seed(1)
    segments = torch.tensor([[1] * 11 + [2] * 7, [0] * 2 + [5] * 16])
    blocks = Blocks.of(segments, 2)
    queries = torch.randn(len(blocks.steps), 2, 3, generator=generator)
    compressed = torch.randn(2, len(blocks.closed), 3, generator=generator)
    chosen = choose_blocks(queries, compressed, blocks, 2)
    choices = 0
    for p, (owner, step) in enumerate(
        zip(blocks.owners.tolist(), blocks.steps.tolist(), strict=True)
    ):
        past = step // 2
        first = int(blocks.closed_firsts[owner])
        for group in range(2):
            scores = [
                float(queries[p, group] @ compressed[group, first + block]) for block in range(past)
            ]
            best = sorted(range(past), key=lambda block: -scores[block])[:2]
            assert set(chosen[p, group, : min(2, past)].tolist()) == set(best)
            choices += past > 2
    assert choices > 30


def test_of_equal_blocks_the_oldest_are_chosen() -> None:
    blocks = Blocks.of(torch.ones(1, 12, dtype=torch.int64), 2)
    chosen = choose_blocks(torch.zeros(12, 1, 3), torch.ones(1, 5, 3), blocks, 2)
    assert chosen[6:].squeeze(1).tolist() == [[0, 1]] * 6


def test_blocks_begin_with_their_segments() -> None:
    blocks = Blocks.of(torch.tensor(SEGMENTS), 4)
    assert blocks.counts.tolist() == [1, 1, 2, 4, 1, 3, 1]
    assert blocks.total == 13
    assert blocks.closed.tolist() == [2, 4, 5, 6, 9, 10]
    numbers = torch.arange(len(blocks.steps), dtype=torch.float64).view(-1, 1, 1)
    filled = blocks.fill(numbers + 1)
    assert filled.shape == (1, 52, 1)
    assert filled[0, 8:16, 0].tolist() == [6, 7, 8, 9, 10, 11, 12, 0]


@pytest.mark.parametrize(
    ("longest", "window", "expected"),
    [
        (1, 8, [0]),
        (5, 8, [0, 1, 2, 3, 4]),
        (8, 8, list(range(8))),
        (9, 8, [*range(8), 8]),
        (64, 8, [*range(8), 8, 16, 32]),
        (65, 3, [0, 1, 2, 4, 8, 16, 32, 64]),
        (5, 1, [0, 1, 2, 4]),
    ],
)
def test_short_distances(longest: int, window: int, expected: list[int]) -> None:
    assert short_distances(longest, window) == expected
    seen = [i for i, sees in enumerate(reference.short_mask(longest - 1, _window(window))) if sees]
    assert sorted(longest - 1 - distance for distance in expected) == seen


def _window(window: int) -> reference.Sizes:
    return FORMS["shared keys"]._replace(window=window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_padding_give_zeros_and_finite_gradients(dtype: torch.dtype) -> None:
    module = build(FORMS["shared keys"]).to(dtype)
    x = inputs().to(dtype).requires_grad_()
    out = module(x, torch.zeros(len(SEGMENTS), N, dtype=torch.int64))
    out.sum().backward()
    assert not out.any()
    assert x.grad is not None and not x.grad.any()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


def test_keys_far_away_give_finite_numbers() -> None:
    module = build(FORMS["shared keys"]).float()
    x = (1e3 * inputs()).float().requires_grad_()
    out = module(x, torch.tensor(SEGMENTS))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_single_precision_comes_near() -> None:
    module = build(FORMS["as published, all in one block"])
    exact = module(inputs(), torch.tensor(SEGMENTS))
    rough = module.float()(inputs().float(), torch.tensor(SEGMENTS))
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-5)


def test_half_precision_comes_near() -> None:
    module = build(FORMS["as published, all in one block"]).float()
    x, segments = inputs().float(), torch.tensor(SEGMENTS)
    exact = module(x, segments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = module(x, segments)
    assert not torch.equal(rough.float(), exact)
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.2)


def test_no_tensor_of_its_graph_is_as_large_as_all_pairs() -> None:
    """What is kept for the gradient grows as the length does."""
    kept = []
    for n in (256, 1024):
        module = BlossomAttention(8, 2, num_kv_heads=1, block_size=4, chosen_blocks=2, window=4)
        sizes: list[int] = []

        def keep(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            module(torch.randn(1, n, 8), torch.ones(1, n, dtype=torch.int64))
        assert max(sizes) <= 16 * n
        kept.append(sum(sizes))
    assert kept[1] < 4.2 * kept[0]


def test_the_local_branch_is_added_to_the_values() -> None:
    local = DepthwiseConvolution(DIM, 3).double()
    sizes = FORMS["a key head each"]
    module, plain = build(sizes, local=local), build(sizes)
    plain.load_state_dict(module.state_dict(), strict=False)
    x, segments = inputs(), torch.tensor(SEGMENTS)
    added = local(module.qkv(x)[..., 2 * DIM :], segments)
    torch.testing.assert_close(module(x, segments), plain(x, segments) + module.out(added))


def test_gates_favour_the_short_path_at_first() -> None:
    module = BlossomAttention(DIM, 2, num_kv_heads=1)
    assert not module.gate_weight.any()
    assert module.gate_bias.tolist() == [GATES[0]] * 2 + [GATES[1]] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 6, "num_heads": 2}, "dim 6 and num_heads 2"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads must divide num_heads, got 3 and 4"),
        ({"local": DepthwiseConvolution(8, 3)}, "as many value heads as heads"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlossomAttention(**{"dim": 8, "num_heads": 2, "num_kv_heads": 1, **settings})
