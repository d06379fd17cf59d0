"""Spectral vectors by their formula: a matrix of all pairs, and all of its eigenvectors."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor


def matrix(pairs: Counter[tuple[int, int]], num_items: int) -> Tensor:
    """(V + 1, V + 1) float64: how near items are met, each seldom one held back."""
    size = num_items + 1
    near = [[0 if i == j else pairs[i, j] + pairs[j, i] for j in range(size)] for i in range(size)]
    degrees = [sum(row) for row in near]
    mean = sum(degrees) / num_items
    table = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            if near[i][j]:
                table[i, j] = near[i][j] / math.sqrt((degrees[i] + mean) * (degrees[j] + mean))
    return table


def products(pairs: Counter[tuple[int, int]], num_items: int, dim: int) -> Tensor:
    """(V + 1, V + 1): the dot products of the vectors, which no rotation changes."""
    table = matrix(pairs, num_items)
    values, vectors = torch.linalg.eigh(table)
    rows = vectors[:, -dim:] * values[-dim:].clamp(min=0).sqrt()
    lengths = rows.norm(dim=1, keepdim=True)
    met = table.any(1, keepdim=True)
    rows = torch.where(met, rows / lengths.clamp(min=1e-30), 0)
    return rows @ rows.t()
