"""Memory for batches that is used again, and never too early."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor


class Buffers:
    """Lends tensors and lends their memory again once nothing refers to it.

    A tensor's memory is taken back when the tensor, all slices of it and everything that autograd
    saved of it are gone, and not before: whoever keeps a batch keeps it unchanged. So in a training
    loop a few buffers go round, without fresh pages for every batch.

    Args:
        pin: lend page-locked memory, which a GPU copies from without waiting. PyTorch's own
            allocator keeps it for reuse and holds it back until the copies are done.
        keep: how much memory to keep of one kind; what is lent beyond that is freed.
    """

    def __init__(self, *, pin: bool, keep: int) -> None:
        self._pin = pin
        self._keep = keep
        self._lock = threading.Lock()
        self._kept: dict[object, list[NDArray[Any]]] = defaultdict(list)
        self._lent: dict[int, weakref.ref[NDArray[Any]]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """Returns a tensor of any content.

        Args:
            name: what it is for; memory goes round among tensors of one name, shape and type.
            shape: its shape.
            dtype: the NumPy name of its type.
        """
        if self._pin:
            like = torch.from_numpy(np.empty(0, dtype=dtype))
            return torch.empty(shape, dtype=like.dtype, pin_memory=True)
        with self._lock:
            kept = self._kept[name, shape, np.dtype(dtype)]
            free = (array for array in kept if self._lent[id(array)]() is None)
            array = next(free, None)
            if array is None:
                array = np.empty(shape, dtype=dtype)
                if len(kept) >= self._keep:
                    return torch.from_numpy(array)
                kept.append(array)
            # The tensor's memory holds this view, and the view the array.
            view = array[...]
            self._lent[id(array)] = weakref.ref(view)
            return torch.from_numpy(view)
