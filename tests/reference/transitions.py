"""TED by its formulas: tables of all pairs, one pair after the other; index 0 is padding."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def counts(sequences: Sequence[Sequence[int]], *, span: int) -> Counter[tuple[int, int]]:
    """How often each item comes 1…span steps after each other one."""
    return Counter(
        (sequence[place], sequence[place + step])
        for sequence in sequences
        for step in range(1, span + 1)
        for place in range(len(sequence) - step)
    )


def teacher(pairs: Counter[tuple[int, int]], num_items: int, temperature: float) -> Tensor:
    """(V + 1, V + 1): what the teacher thinks comes after each item, nothing of padding."""
    table = torch.zeros(num_items + 1, num_items + 1, dtype=torch.float64)
    items = range(1, num_items + 1)
    for i in items:
        highest = max(pairs[i, j] for j in items)
        shares = [pairs[i, j] / highest if highest > 0 else 0.0 for j in items]
        weights = [math.exp((share - max(shares)) / temperature) for share in shares]
        for j, weight in zip(items, weights, strict=True):
            table[i, j] = weight / sum(weights)
    return table


def distillation_loss(
    table: Tensor, inputs: Sequence[int], known: Tensor, *, temperature: float
) -> Tensor:
    """The mean cross-entropy of what the table says comes after an input."""
    items = range(1, len(table))
    dim = table.shape[1]
    terms = []
    for i in inputs:
        scores = torch.stack(
            [math.sqrt(dim) * (table[i] * table[j]).sum() / temperature for j in items]
        )
        highest = scores.max().detach()
        log_sum = highest + (scores - highest).exp().sum().log()
        terms.append(sum(known[i, j] * (log_sum - scores[j - 1]) for j in items))
    return sum(terms, torch.zeros((), dtype=table.dtype)) / max(1, len(terms))  # type: ignore[arg-type]
