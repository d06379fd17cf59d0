from __future__ import annotations

import numpy as np
import torch

from blin.data.buffers import Buffers


def test_memory_is_lent_again_once_nothing_refers_to_it() -> None:
    buffers = Buffers(pin=False, keep=3)
    first = buffers.take("a", (4, 3), np.int64)
    place = first.data_ptr()
    part = first[1:3, 0]
    del first
    assert buffers.take("a", (4, 3), np.int64).data_ptr() != place, "a slice is still there"
    del part
    assert place in {buffers.take("a", (4, 3), np.int64).data_ptr() for _ in range(2)}


def test_what_autograd_keeps_is_not_lent_again() -> None:
    buffers = Buffers(pin=False, keep=3)
    table = torch.eye(3, requires_grad=True)
    rows = buffers.take("a", (2,), np.int64)
    rows.copy_(torch.tensor([0, 2]))
    loss = (table[rows] * torch.tensor([[1.0], [5.0]])).sum()
    del rows
    buffers.take("a", (2,), np.int64).fill_(1)
    loss.backward()
    assert table.grad is not None
    assert table.grad.sum(-1).tolist() == [3, 0, 15]


def test_other_names_shapes_and_types_share_nothing() -> None:
    buffers = Buffers(pin=False, keep=3)
    places = {
        buffers.take("a", (4,), np.int64).data_ptr(),
        buffers.take("b", (4,), np.int64).data_ptr(),
        buffers.take("a", (5,), np.int64).data_ptr(),
        buffers.take("a", (4,), np.float32).data_ptr(),
    }
    assert len(places) == 4


def test_what_is_lent_beyond_the_limit_is_not_kept() -> None:
    buffers = Buffers(pin=False, keep=2)
    held = [buffers.take("a", (1000,), np.int64).fill_(number) for number in range(5)]
    assert [int(tensor[0]) for tensor in held] == [0, 1, 2, 3, 4]
    places = {tensor.data_ptr() for tensor in held[:2]}
    del held
    again = [buffers.take("a", (1000,), np.int64) for _ in range(2)]
    assert {tensor.data_ptr() for tensor in again} == places
