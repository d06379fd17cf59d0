"""Vectors for items from which of them are met near each other, before anything is learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

_TOLERANCE = 1e-4
"""Of the eigenvalues, relative; a vector that is not yet exact is learned from here anyway."""

_APART = 1e-6
"""By which equal eigenvalues are moved apart: among them ARPACK would go on from random vectors of
its own, which no seed tells it."""


def spectral_vectors(lengths: Tensor, targets: Tensor, counts: Tensor, *, dim: int) -> Tensor:
    """Returns vectors whose dot products approximate how near to each other items are met.

    With A_ij the counts of the pair (i, j) in either order, 0 for i = j, and d_i = Σ_j A_ij, these
    are the rows of U √Λ, where Λ are the D highest eigenvalues, those below 0 set to 0, of

        A_ij / √((d_i + d̄) (d_j + d̄)),   d̄ = the mean of d over all items,

    and U its eigenvectors; the rows are scaled to a length of 1 and turned by a random rotation,
    so that no coordinate means more than another. Without d̄ a few rare items that are met with
    none but each other have eigenvalues as high as the whole log (Qin and Rohe, *Regularized
    Spectral Clustering under the Degree-Corrected Stochastic Blockmodel*, NeurIPS 2013).

    The rotation, and where the iteration begins, are drawn from torch's default generator.

    Args:
        lengths: (V + 1,), how many pairs begin with each item; 0 for padding.
        targets: (P,), the second item of each pair, row by row.
        counts: (P,), how often the pair was met.
        dim: D.

    Returns:
        (V + 1, D) float32; 0 for padding and for items that are met with no other.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import eigsh

    size = len(lengths)
    rotation: Tensor = torch.linalg.qr(torch.randn(dim, dim)).Q
    start, apart = torch.randn(2, size, dtype=torch.float64).numpy()
    first = torch.repeat_interleave(lengths).numpy()
    second = targets.numpy()
    other = first != second
    pairs = (counts.numpy()[other].astype(np.float64), (first[other], second[other]))
    one_way = coo_array(pairs, shape=(size, size)).tocsr()
    near = (one_way + one_way.T).tocoo()
    degrees = np.bincount(near.row, weights=near.data, minlength=size)
    if not degrees.any():
        return torch.zeros(size, dim)
    roots = 1 / np.sqrt(degrees + degrees.sum() / (size - 1))
    near.data *= roots[near.row] * roots[near.col]
    if size <= 2 * dim:  # more are asked for than the iteration can find
        values, vectors = np.linalg.eigh(near.toarray())
    else:
        near = (near + diags_array(_APART * apart)).tocsr()
        values, vectors = eigsh(near, dim, which="LA", v0=start, tol=_TOLERANCE)
    rows = vectors[:, -dim:] * np.sqrt(values[-dim:].clip(min=0))
    rows[degrees == 0] = 0
    found = nn.functional.normalize(torch.from_numpy(rows).to(torch.float32))
    return found @ rotation[: found.shape[1]]
