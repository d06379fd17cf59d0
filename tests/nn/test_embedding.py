from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from blin.nn.embedding import ItemEmbedding, PositionEmbedding, append_bias, positions_from_end
from reference import attention as reference


@st.composite
def rows_of_copies(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Segments and their copies one after the other, the newest numbered 1, padding anywhere."""
    sizes = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), max_size=4))
    row = [
        (len(sizes) - segment, len(copies) - copy)
        for segment, copies in enumerate(sizes)
        for copy, size in enumerate(copies)
        for _ in range(size)
    ]
    for _ in range(draw(st.integers(0, 5))):
        row.insert(draw(st.integers(0, len(row))), (0, 0))
    return row or [(0, 0)]


@given(row=rows_of_copies())
def test_positions_from_the_end_are_counted(row: list[tuple[int, int]]) -> None:
    segments, copies = ([mark[part] for mark in row] for part in (0, 1))
    found = positions_from_end(torch.tensor([segments]), torch.tensor([copies]))
    assert found[0].tolist() == reference.positions_from_end(segments, copies)
    alone = positions_from_end(torch.tensor([segments]))
    assert alone[0].tolist() == reference.positions_from_end(segments, [1] * len(row))


def test_each_copy_of_a_segment_is_counted_from_its_own_end() -> None:
    segments = torch.tensor([[0, 2, 2, 2, 0, 2, 2, 2, 1, 1]])
    copies = torch.tensor([[0, 2, 2, 2, 0, 1, 1, 1, 1, 1]])
    assert positions_from_end(segments, copies).tolist() == [[0, 2, 1, 0, 0, 2, 1, 0, 1, 0]]


def test_positions_from_the_end_of_several_rows() -> None:
    segments = torch.tensor([[0, 2, 2, 0, 1, 1], [0, 0, 0, 0, 0, 0], [3, 2, 1, 0, 1, 1]])
    assert positions_from_end(segments).tolist() == [
        [0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 2, 0, 1, 0],
    ]


def test_positions_beyond_the_table_share_its_last_vector() -> None:
    embedding = PositionEmbedding(3, 2)
    vectors = embedding(torch.tensor([[0, 2, 3, 99]]))[0]
    assert torch.equal(vectors, embedding.weight[[0, 2, 2, 2]])


def test_scores_are_dot_products_with_the_items() -> None:
    embedding = ItemEmbedding(3, 2)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[0.0, 0], [1, 2], [3, 4], [5, 6]]))
    states = torch.tensor([[1.0, 0], [1, -1]])
    assert embedding.score(states).tolist() == [[0, 1, 3, 5], [0, -1, -1, -1]]
    assert embedding.score(states, torch.tensor([[3, 1], [2, 2]])).tolist() == [[5, 1], [-1, -1]]


def test_a_bias_is_added_to_the_dot_products() -> None:
    states, table, bias = torch.randn(2, 3, 4), torch.randn(6, 4), torch.randn(6)
    ones, biased = append_bias(states, table, bias)
    torch.testing.assert_close(ones @ biased.t(), states @ table.t() + bias)


def test_tokens_are_read_like_items_and_never_scored() -> None:
    torch.manual_seed(0)
    embedding = ItemEmbedding(5, 3, tokens=2)
    assert embedding.weight.shape == (8, 3) and embedding.items.shape == (6, 3)
    assert torch.equal(embedding(torch.tensor([6, 7])), embedding.weight[6:])
    states = torch.randn(2, 3)
    scores = embedding.score(states)
    torch.testing.assert_close(scores, states @ embedding.weight[:6].t())
    candidates = torch.tensor([[5, 1], [2, 2]])
    torch.testing.assert_close(embedding.score(states, candidates), scores.gather(1, candidates))
