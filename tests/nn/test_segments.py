from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from blin.nn.segments import SegmentRows
from reference.segments import segment_rows

ROWS = [
    [0, 0, 3, 3, 0, 2, 2, 2, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 7, 0, 0, 7, 7, 0, 2, 2],
]


@st.composite
def rows_of_segments(draw: st.DrawFn) -> list[list[int]]:
    """Segments side by side or with padding around and in them; numbers return in other rows."""
    width = draw(st.integers(1, 9))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        runs = draw(st.lists(st.integers(1, 4), max_size=4))
        numbers = draw(st.permutations(range(1, len(runs) + 1)))
        marks = [number for number, run in zip(numbers, runs, strict=True) for _ in range(run)]
        for place in draw(st.lists(st.integers(0, len(marks)), max_size=4)):
            marks.insert(place, 0)
        rows.append(([0] * width + marks)[-width:])
    return rows


@given(rows_of_segments())
def test_split_is_the_loop_and_join_takes_it_back(segments: list[list[int]]) -> None:
    rows = SegmentRows.of(torch.tensor(segments))
    expected = segment_rows(segments)
    assert rows.lengths.tolist() == [len(places) for places in expected]
    x = torch.randn(*torch.tensor(segments).shape, 2)
    split = rows.split(x)
    assert split.shape == (len(expected), max(map(len, expected), default=0), 2)
    assert rows.real.tolist() == [
        [column < len(places) for column in range(split.shape[1])] for places in expected
    ]
    for row, places in zip(split, expected, strict=True):
        assert torch.equal(row[: len(places)], torch.stack([x[place] for place in places]))
        assert not row[len(places) :].any()
    real = (torch.tensor(segments) > 0).unsqueeze(-1)
    assert torch.equal(rows.join(split), torch.where(real, x, 0.0))


@given(rows_of_segments())
def test_steps_are_those_of_all_segments_the_longest_first(segments: list[list[int]]) -> None:
    expected = sorted(segment_rows(segments), key=len, reverse=True)
    width = len(segments[0])
    longest = max(map(len, expected), default=0)
    steps = [[each[step] for each in expected if step < len(each)] for step in range(longest)]
    places, counts = SegmentRows.of(torch.tensor(segments)).steps()
    assert counts.tolist() == [len(step) for step in steps]
    assert places.tolist() == [row * width + column for step in steps for row, column in step]


def test_a_gradient_goes_there_and_back() -> None:
    segments = torch.tensor(ROWS)
    rows = SegmentRows.of(segments)
    x = torch.randn(4, 9, 3, requires_grad=True)
    weights = torch.randn(4, 9, 3)
    (rows.join(rows.split(x) * 2) * weights).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * weights * (segments > 0).unsqueeze(-1))


def test_what_stands_behind_the_end_of_a_segment_is_left_there() -> None:
    segments = torch.tensor(ROWS)
    rows = SegmentRows.of(segments)
    split = rows.split(torch.randn(4, 9, 3))
    filled = torch.where(rows.real.unsqueeze(-1), split, 99.0)
    assert torch.equal(rows.join(filled), rows.join(split))
