from __future__ import annotations

from typing import Any

import pytest
import torch

from blin.nn.sparse import SparseRows

TABLE = torch.tensor(
    [[0, 0, 0, 0], [0, 0, 2, 0.5], [0, 0, 0, 0], [0, 3, 1, 0]], dtype=torch.float32
)


def rows_of(table: torch.Tensor) -> SparseRows:
    rows = SparseRows(len(table) - 1)
    where = table.nonzero()
    rows.fill((table > 0).sum(1), where[:, 1], table[table > 0])
    rows.check()
    return rows


def test_rows_are_added_as_those_of_the_table() -> None:
    items = torch.tensor([3, 0, 1, 2, 3])
    scores = torch.arange(20.0).view(5, 4)
    expected = scores + 0.5 * TABLE[items]
    rows_of(TABLE).add_to(scores, items, 0.5)
    assert torch.equal(scores, expected)


def test_no_entries_add_nothing() -> None:
    scores = torch.ones(2, 4)
    SparseRows(3).add_to(scores, torch.tensor([1, 2]))
    assert torch.equal(scores, torch.ones(2, 4))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"offsets": [1, 0, 2, 2, 4]}, "offsets: expected to rise from 0 to 4"),
        ({"offsets": [0, 1, 2, 2, 4]}, "offsets: expected to rise"),
        ({"offsets": [0, 0, 3, 2, 4]}, "offsets: expected to rise"),
        ({"offsets": [0, 0, 2, 2, 5]}, "offsets: expected to rise"),
        ({"offsets": [0, 0, -9, 2, 4]}, "offsets: expected to rise"),
        ({"targets": [2, 3, 1, 4]}, "targets: expected items from 1 to 3"),
        ({"targets": [2, 3, 0, 2]}, "targets: expected items from 1 to 3"),
        ({"weights": [2, 0.5, 3, float("nan")]}, "weights: expected finite numbers"),
        ({"weights": [2, 0.5, 3, float("inf")]}, "weights: expected finite numbers"),
        ({"weights": [2, 0.5, 3, -1]}, "weights: expected finite numbers"),
        ({"targets": [2.0, 3.0, 1.0, 2.0]}, "targets: expected torch.int32, found torch.float32"),
    ],
)
def test_what_no_filling_leaves_is_refused(changes: dict[str, Any], message: str) -> None:
    rows = rows_of(TABLE)
    for name, values in changes.items():
        dtype = None if isinstance(values[0], float) else getattr(rows, name).dtype
        setattr(rows, name, torch.tensor(values, dtype=dtype))
    with pytest.raises(ValueError, match=message):
        rows.check()
