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

Short rows are computed in parallel, as one chunk. Long rows are cut into chunks, and the sums over
all earlier positions, a D × D matrix and a vector, are carried from chunk to chunk: linear in the
length. Only sums of positive terms occur; nothing is the difference of two sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

KEY_CAP = 20.0

CHUNK = 64
"""Positions in a chunk; rows up to this length are one chunk."""

FORMS = ("auto", "parallel", "chunked")


class Carried(NamedTuple):
    """What a chunk learns from those before it.

    Attributes:
        segment: (B, 1), the segment that the sums belong to; 0 for none.
        values: (B, H, D, D), Σ_j exp(k_j) v_jᵀ over its positions.
        keys: (B, H, 1, D), Σ_j exp(k_j).
    """

    segment: Tensor
    values: Tensor
    keys: Tensor


def linear_attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor, *, form: str = "auto"
) -> Tensor:
    """Computes causal linear attention over rows of N positions.

    Args:
        queries: (B, H, N, D), unnormalised.
        keys: (B, H, N, D), unnormalised.
        values: (B, H, N, D).
        segments: (B, N); the positions of a segment follow one another, with nothing but padding
            (0) between them.
        form: ``parallel``, O(N² D); ``chunked``, O(N D (D + chunk)); or ``auto``.

    Returns:
        (B, H, N, D) in the dtype of ``values``; rows that see nothing are 0. The arithmetic is at
        least fp32, whatever the dtype of the arguments.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    n = segments.shape[-1]
    size = n if form == "parallel" or (form == "auto" and n <= CHUNK) else CHUNK
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(device_type=values.device.type, enabled=False):
        channels = queries.to(dtype).softmax(dim=-1)
        keys = torch.exp(KEY_CAP * torch.tanh(keys.to(dtype) / KEY_CAP))
        wide = values.to(dtype)
        carried = None
        outs = []
        for start in range(0, n, size):
            part = slice(start, start + size)
            chunk = channels[:, :, part], keys[:, :, part], wide[:, :, part], segments[:, part]
            outs.append(_attend(*chunk, carried))
            if start + size < n:
                carried = _carry(*chunk[1:], carried)
        return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)).to(values.dtype)


def visibility(segments: Tensor) -> Tensor:
    """Returns what each position may look at, (B, N) segments to a (B, N, N) mask of booleans.

    Entry (i, j) is true when j ≤ i and both lie in the same segment, padding (0) excepted.
    """
    n = segments.shape[-1]
    same = segments.unsqueeze(-1) == segments.unsqueeze(-2)
    real = (segments > 0).unsqueeze(-1)
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril_()
    return same & real & causal


def _attend(
    channels: Tensor, keys: Tensor, values: Tensor, segments: Tensor, carried: Carried | None
) -> Tensor:
    """Returns the output of a chunk, (B, H, C, D)."""
    mask = visibility(segments).to(values.dtype).unsqueeze(1)  # (B, 1, C, C)
    normaliser = mask @ keys  # (B, H, C, D)
    if carried is not None:
        goes_on = ((segments == carried.segment) & (segments > 0)).to(values.dtype)
        goes_on = goes_on[:, None, :, None]  # (B, 1, C, 1)
        normaliser = normaliser + goes_on * carried.keys
    # Z is 0 only where nothing is visible.
    channels = channels / normaliser.masked_fill(normaliser == 0, 1.0)
    out = ((channels @ keys.transpose(-1, -2)) * mask) @ values
    if carried is not None:
        out = out + goes_on * (channels @ carried.values)
    return out


def _carry(keys: Tensor, values: Tensor, segments: Tensor, carried: Carried | None) -> Carried:
    """Returns the sums over the segment that may go on after this chunk."""
    before = torch.zeros_like(segments[:, :1]) if carried is None else carried.segment
    places = torch.arange(1, segments.shape[1] + 1, device=segments.device)
    latest = ((segments > 0) * places).argmax(dim=1, keepdim=True)
    found = segments.gather(1, latest)  # 0 where the chunk is all padding
    segment = torch.where(found > 0, found, before)
    belongs = ((segments == segment) & (segments > 0))[:, None, :, None]
    keys = keys * belongs
    value_sums, key_sums = keys.transpose(-1, -2) @ values, keys.sum(dim=2, keepdim=True)
    if carried is not None:
        same = (segment == before)[:, :, None, None]
        value_sums = value_sums + same * carried.values
        key_sums = key_sums + same * carried.keys
    return Carried(segment, value_sums, key_sums)


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

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D)."""
        batch, n, dim = x.shape
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        heads = linear_attention(
            self._split(queries), self._split(keys), self._split(values), segments
        )
        mixed = heads.transpose(1, 2).reshape(batch, n, dim)
        if self.local is not None:
            mixed = mixed + self.local(values, segments)
        return self.out(mixed)  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """Splits (B, N, D) into heads, (B, H, N, D / H)."""
        batch, n, dim = x.shape
        return x.view(batch, n, self.num_heads, dim // self.num_heads).transpose(1, 2)
