from __future__ import annotations

import torch

from blin.nn.gaps import NUM_GAPS, log_gaps
from reference.spnn import gap


def of(times: list[int], segments: list[int] | None = None) -> list[int]:
    marks = torch.tensor([segments or [1] * len(times)])
    return log_gaps(torch.tensor([times]), marks)[0].tolist()  # type: ignore[no-any-return]


def test_gaps_are_orders_of_magnitude() -> None:
    times = [100, 100, 101, 103, 106, 110, 117, 125, 60, 61, 1_000_000]
    assert of(times) == [64, 0, 1, 2, 2, 3, 3, 4, 0, 1, 20]
    assert of(times) == [gap(times, i) for i in range(len(times))]


def test_every_gap_that_64_bits_hold_has_a_number() -> None:
    steps = [0] + [2**power + more for power in range(63) for more in (-1, 0)]
    found = [of([5, 5 + step])[1] for step in steps if step < 2**63 - 5]
    assert found == [gap([5, 5 + step], 1) for step in steps if step < 2**63 - 5]
    assert of([-(2**63), 2**63 - 1, -(2**63), 0]) == [64, 63, 0, 63]
    assert max(found) < NUM_GAPS - 1


def test_a_segment_begins_without_a_gap() -> None:
    assert of([0, 5, 9, 0, 7, 8], [0, 2, 2, 0, 1, 1]) == [64, 64, 3, 64, 64, 1]
    assert of([5, 9, 11, 7, 8], [2, 2, 1, 1, 0]) == [64, 3, 64, 0, 64]


def test_without_times_gaps_are_equal() -> None:
    segments = torch.tensor([[0, 1, 1, 2, 2, 2, 0]])
    times = torch.arange(7).unsqueeze(0)
    assert log_gaps(None, segments).tolist() == [[64, 64, 1, 64, 1, 1, 64]]
    assert torch.equal(log_gaps(None, segments), log_gaps(times, segments))


def test_a_copy_behind_a_delimiter_begins_without_a_gap() -> None:
    assert of([5, 9, 0, 5, 9], [1, 1, 0, 1, 1]) == [64, 3, 64, 64, 3]
