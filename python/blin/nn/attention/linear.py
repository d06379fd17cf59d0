"""Causal linear attention.

For queries, keys and values q, k, v of one head, position i and channel c (Blin, Eq. 10, made
causal; the operator itself is Efficient Attention, Shen et al. 2021):

    p_ic   = softmax over c of q_i                     the query chooses channels
    w_ij   = Σ_c p_ic · exp(k_jc) / Z_ic               with Z_ic = Σ_{j visible from i} exp(k_jc)
    out_i  = Σ_{j visible from i} w_ij · v_j

The weights are non-negative and every row with a visible key sums to 1. Position j is visible
from i when j ≤ i and both belong to the same segment; padding (segment 0) sees and shows nothing.

Keys pass through ``c · tanh(k / c)`` first. For the keys that occur in practice this changes
next to nothing; it bounds ``exp(k)`` by e^±20, so that no maximum has to be subtracted, no sum can
overflow and no ``Z`` can underflow, however far a key runs off, in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KEY_CAP = 20.0


def visibility(segments: Tensor) -> Tensor:
    """Returns what each position may look at, (B, N) segments to a (B, N, N) mask of booleans.

    Entry (i, j) is true when j ≤ i and both lie in the same segment, padding (0) excepted.
    """
    n = segments.shape[-1]
    same = segments.unsqueeze(-1) == segments.unsqueeze(-2)
    real = (segments > 0).unsqueeze(-1)
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril_()
    return same & real & causal


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Computes causal linear attention in its parallel form, O(N²·D) for rows of N positions.

    Args:
        queries: (B, H, N, D), unnormalised.
        keys: (B, H, N, D), unnormalised.
        values: (B, H, N, D).
        visible: (B, N, N) booleans, see :func:`visibility`.

    Returns:
        (B, H, N, D) in the dtype of ``values``; rows that see nothing are 0. The arithmetic is at
        least fp32, whatever the dtype of the arguments.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(device_type=values.device.type, enabled=False):
        mask = visible.to(dtype).unsqueeze(1)  # (B, 1, N, N)
        channels = queries.to(dtype).softmax(dim=-1)
        keys = torch.exp(KEY_CAP * torch.tanh(keys.to(dtype) / KEY_CAP))
        normaliser = mask @ keys  # (B, H, N, D), 0 only where nothing is visible
        blind = normaliser == 0
        channels = channels / normaliser.masked_fill(blind, 1.0)
        weights = (channels @ keys.transpose(-1, -2)) * mask  # (B, H, N, N)
        return (weights @ values.to(dtype)).to(values.dtype)


class LinearAttention(nn.Module):
    """Multi-head causal linear attention, with room for a local branch on the values (Eq. 11).

    Args:
        dim: width D of the input and the output.
        num_heads: number of heads; divides ``dim``.
        local: a module (values (B, N, D), segments (B, N)) → (B, N, D) whose output is added to
            that of the attention before the output projection; Blin puts its depthwise
            convolution here.
    """

    def __init__(self, dim: int, num_heads: int, *, local: nn.Module | None = None) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"num_heads must divide dim, got dim {dim} and num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.local = local
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        """Maps (B, N, D) inputs to (B, N, D) outputs; ``visible`` is ``visibility(segments)``."""
        batch, n, dim = x.shape
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        heads = linear_attention(
            self._split(queries), self._split(keys), self._split(values), visible
        )
        mixed = heads.transpose(1, 2).reshape(batch, n, dim)
        if self.local is not None:
            mixed = mixed + self.local(values, segments)
        return self.out(mixed)  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """Splits (B, N, D) into heads, (B, H, N, D / H)."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
