from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from torch import Tensor

from blin.nn.spectral import spectral_vectors
from reference import spectral as reference

Pairs = Counter[tuple[int, int]]


def vectors(pairs: Pairs, num_items: int, dim: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    entries = sorted(pairs.items())
    lengths = torch.zeros(num_items + 1, dtype=torch.int64)
    for (first, _), _ in entries:
        lengths[first] += 1
    targets = torch.tensor([second for (_, second), _ in entries], dtype=torch.int32)
    counts = torch.tensor([count for _, count in entries], dtype=torch.float32)
    return spectral_vectors(lengths, targets, counts, dim=dim)


def some_pairs(num_items: int, count: int, seed: int = 0) -> Pairs:
    draw = random.Random(seed)
    return Counter((draw.randint(1, num_items), draw.randint(1, num_items)) for _ in range(count))


def communities(sizes: list[int], edges: int = 12, seed: int = 1) -> Pairs:
    """Items of one community are met with each other alone, and in a chain, so that all are."""
    draw, pairs, first = random.Random(seed), Counter[tuple[int, int]](), 1
    for size in sizes:
        inside = range(first, first + size)
        pairs.update(zip(inside, inside[1:], strict=False))
        pairs.update((draw.choice(inside), draw.choice(inside)) for _ in range(edges * size))
        first += size
    return pairs


@pytest.mark.parametrize("num_items", [2, 5, 11])
@pytest.mark.parametrize("dim", [1, 3, 16])
def test_they_are_the_eigenvectors_of_the_formula(num_items: int, dim: int) -> None:
    # By all eigenvectors at once where there are few items for each direction, else by iteration.
    pairs = some_pairs(num_items, 3 * num_items)
    found = vectors(pairs, num_items, dim)
    assert found.shape == (num_items + 1, dim)
    expected = reference.products(pairs, num_items, dim)
    torch.testing.assert_close((found @ found.t()).double(), expected, atol=2e-4, rtol=0)


def test_of_many_items_they_are_found_where_few_eigenvalues_are_high() -> None:
    pairs = communities([40, 50, 60])
    found = vectors(pairs, 150, 3)
    expected = reference.products(pairs, 150, 3)
    torch.testing.assert_close((found @ found.t()).double(), expected, atol=2e-3, rtol=0)
    inside = torch.block_diag(*(torch.ones(size, size) for size in (1, 40, 50, 60))).bool()
    products = (found @ found.t())[1:, 1:]
    assert products[inside[1:, 1:]].min() > 0.9
    assert products[~inside[1:, 1:]].abs().max() < 0.1


def test_pairs_of_rare_items_do_not_take_all_directions() -> None:
    # Two large communities, and twenty couples that know nobody else.
    pairs = communities([60, 60])
    pairs.update((item, item + 1) for item in range(121, 161, 2))
    found = vectors(pairs, 160, 2)[1:121]
    products = found @ found.t()
    assert products[:60, :60].mean() > 0.9 and products[60:, 60:].mean() > 0.9
    assert products[:60, 60:].abs().mean() < 0.1


def test_the_order_of_a_pair_does_not_matter() -> None:
    pairs = some_pairs(9, 30)
    reverse = Counter({(second, first): count for (first, second), count in pairs.items()})
    torch.testing.assert_close(vectors(pairs, 9, 4), vectors(reverse, 9, 4))


def test_an_item_that_is_met_with_no_other_has_none() -> None:
    pairs = some_pairs(6, 20) + Counter({(8, 8): 5})
    found = vectors(pairs, 8, 3)
    assert torch.equal(found.any(1), torch.tensor([False] + [True] * 6 + [False] * 2))
    torch.testing.assert_close(found.norm(dim=1), found.any(1).float())
    assert torch.equal(found, vectors(pairs - Counter({(8, 8): 5}), 8, 3))


@pytest.mark.parametrize(
    "pairs",
    [
        Counter({(1, 2): 3}),
        Counter({(item, item + 1): 1 for item in range(1, 40, 2)}),
        Counter({(item, item + 1): 1 for item in range(1, 1000, 2)}),
        Counter({(1, item): 1 for item in range(2, 900)}),
    ],
    ids=["a pair", "some pairs", "pairs", "a star"],
)
def test_equal_eigenvalues_leave_nothing_to_chance(pairs: Pairs) -> None:
    first, second = vectors(pairs, 1000, 64), vectors(pairs, 1000, 64)
    assert torch.equal(first, second)
    met = {item for pair in pairs for item in pair}
    assert set(torch.nonzero(first.any(1))[:, 0].tolist()) == met


def test_where_nothing_is_met_there_is_nothing() -> None:
    assert not vectors(Counter(), 4, 3).any()


def test_the_seed_turns_them_and_no_more() -> None:
    pairs = some_pairs(12, 60)
    first, second = vectors(pairs, 12, 4, seed=0), vectors(pairs, 12, 4, seed=1)
    assert torch.equal(first, vectors(pairs, 12, 4, seed=0))
    assert (first - second).abs().max() > 0.1
    torch.testing.assert_close(first @ first.t(), second @ second.t(), atol=2e-4, rtol=0)
