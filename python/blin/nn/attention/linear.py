"""Linear attention, causal or bidirectional.

For queries, keys and values q, k, v of one head, position i and channel c (Blin, Eq. 10; the
operator itself is Efficient Attention, Shen et al. 2021):

    p_ic   = softmax over c of q_i                     the query chooses channels
    w_ij   = Σ_c p_ic · exp(k_jc) / Z_ic               with Z_ic = Σ_{j visible from i} exp(k_jc)
    out_i  = Σ_{j visible from i} w_ij · v_j

The weights are non-negative and every row with a visible key sums to 1. Position j is visible
from i when both belong to the same segment and, in the causal form, j ≤ i; padding (segment 0) sees
and shows nothing. The printed Eq. 10 is the bidirectional form.

Keys pass through ``c · tanh(k / c)`` first. For the keys that occur in practice this changes
next to nothing; it bounds ``exp(k)`` by e^±20, so that no maximum has to be subtracted, no sum can
overflow and no ``Z`` can underflow, however far a key runs off, in fp32. A maximum per row would
not do: a later key far above it would leave earlier rows nothing but zeros, and a maximum per
position does not factor into matrix products.

Three executions give the same numbers. Short rows are computed in parallel, as one chunk. Long
rows are cut into chunks, and the sums over the positions outside a chunk, a D × D matrix and a
vector, are carried from chunk to chunk, from the left and, in the bidirectional form, from the
right too: linear in the length. A sequence that grows one position at a time goes on from the sums
it left behind (:func:`advance`), at a cost that does not depend on how long it is. Only sums of
positive terms occur; nothing is the difference of two sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from blin.nn.attention.heads import (
    MultiHeadAttention,
    merge_heads,
    split_heads,
    visibility,
)
from blin.nn.convolution import DepthwiseConvolution

KEY_CAP = 20.0

CHUNK = 64
"""Positions in a chunk; rows up to this length are one chunk."""

EXECUTIONS = ("auto", "parallel", "chunked", "recurrent")


class Carried(NamedTuple):
    """What a chunk learns from those on one side of it.

    Attributes:
        segment: (B, 1), the segment that the sums belong to; 0 for none.
        values: (B, H, D, D), Σ_j exp(k_j) v_jᵀ over its positions.
        keys: (B, H, 1, D), Σ_j exp(k_j).
    """

    segment: Tensor
    values: Tensor
    keys: Tensor


class Chunk(NamedTuple):
    """C positions of a row.

    Attributes:
        channels: (B, H, C, D), the queries' softmax over channels.
        keys: (B, H, C, D), exp of the capped keys.
        values: (B, H, C, D).
        segments: (B, C).
    """

    channels: Tensor
    keys: Tensor
    values: Tensor
    segments: Tensor

    def flipped(self) -> Chunk:
        """Returns the positions in reverse order."""
        channels, keys, values = (part.flip(2) for part in self[:3])
        return Chunk(channels, keys, values, self.segments.flip(1))


def linear_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    segments: Tensor,
    *,
    causal: bool = True,
    execution: str = "auto",
) -> Tensor:
    """Computes linear attention over rows of N positions.

    Args:
        queries: (B, H, N, D), unnormalised.
        keys: (B, H, N, D), unnormalised.
        values: (B, H, N, D).
        segments: (B, N); the positions of a segment follow one another, with nothing but padding
            (0) between them.
        causal: see only what came before, and oneself.
        execution: ``parallel``, O(N² D); ``chunked``, O(N D (D + chunk)); ``recurrent``, one
            position after the other, causal only; or ``auto``: the faster of the first two.

    Returns:
        (B, H, N, D) in the dtype of ``values``; rows that see nothing are 0. The arithmetic is at
        least fp32, whatever the dtype of the arguments.
    """
    n = segments.shape[-1]
    size = _chunk_size(execution, n, causal=causal)
    dtype = torch.promote_types(values.dtype, torch.float32)
    with torch.autocast(device_type=values.device.type, enabled=False):
        row = _prepare(queries, keys, values, segments, dtype)
        chunks = _cut(row, size)
        sides = [_carries(chunks, None)]
        if not causal:
            mirrored = [chunk.flipped() for chunk in reversed(chunks)]
            sides.append(_carries(mirrored, None)[::-1])
        outs = [
            _attend(chunk, carried, causal=causal)
            for chunk, *carried in zip(chunks, *sides, strict=True)
        ]
        return _join(outs).to(values.dtype)


def advance(
    queries: Tensor, keys: Tensor, values: Tensor, carried: Carried | None
) -> tuple[Tensor, Carried]:
    """Computes causal linear attention at the next M positions of sequences without padding.

    Sums are kept in double precision: a hundred thousand positions later they have not drifted.

    Args:
        queries: (B, H, M, D), unnormalised.
        keys: (B, H, M, D), unnormalised.
        values: (B, H, M, D).
        carried: what the positions before have left; None at the beginning.

    Returns:
        (B, H, M, D) in the dtype of ``values``, and what is left for the positions to come.
    """
    batch, _, m, _ = values.shape
    segments = torch.ones(batch, m, dtype=torch.long, device=values.device)
    with torch.autocast(device_type=values.device.type, enabled=False):
        row = _prepare(queries, keys, values, segments, torch.float64)
        if carried is not None and m == 1:
            out, carried = _step(row, carried)
            return out.to(values.dtype), carried
        outs = []
        for chunk in _cut(row, CHUNK):
            outs.append(_attend(chunk, [carried], causal=True))
            carried = _carry(chunk, carried)
        assert carried is not None
        return _join(outs).to(values.dtype), carried


def _chunk_size(execution: str, n: int, *, causal: bool) -> int:
    if execution not in EXECUTIONS:
        known = ", ".join(EXECUTIONS)
        raise ValueError(f"execution must be one of {known}, got {execution!r}")
    if execution == "recurrent":
        if not causal:
            raise ValueError("execution must not be recurrent where later positions are seen")
        return 1
    return max(1, n) if execution == "parallel" or (execution == "auto" and n <= CHUNK) else CHUNK


def _prepare(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor, dtype: torch.dtype
) -> Chunk:
    """Returns whole rows as one chunk of the dtype that is computed in."""
    return Chunk(
        queries.to(dtype).softmax(dim=-1),
        torch.exp(KEY_CAP * torch.tanh(keys.to(dtype) / KEY_CAP)),
        values.to(dtype),
        segments,
    )


def _cut(row: Chunk, size: int) -> list[Chunk]:
    """Cuts rows into chunks of a size, the last one smaller."""
    if row.segments.shape[1] <= size:
        return [row]
    heads = (torch.split(part, size, dim=2) for part in row[:3])
    segments = torch.split(row.segments, size, dim=1)
    return [Chunk(*parts) for parts in zip(*heads, segments, strict=True)]


def _join(outs: list[Tensor]) -> Tensor:
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def _carries(chunks: Sequence[Chunk], carried: Carried | None) -> list[Carried | None]:
    """Returns what each chunk learns from those before it in the list."""
    before = [carried]
    for chunk in chunks[:-1]:
        before.append(_carry(chunk, before[-1]))
    return before


def _attend(chunk: Chunk, sides: Sequence[Carried | None], *, causal: bool) -> Tensor:
    """Returns the output of a chunk, (B, H, C, D), with what is carried to it from each side."""
    channels, keys, values, segments = chunk
    mask = visibility(segments, causal=causal).to(values.dtype).unsqueeze(1)  # (B, 1, C, C)
    normaliser = mask @ keys  # (B, H, C, D)
    reaching = []
    for carried in sides:
        if carried is not None:
            goes_on = ((segments == carried.segment) & (segments > 0)).to(values.dtype)
            goes_on = goes_on[:, None, :, None]  # (B, 1, C, 1)
            normaliser = normaliser + goes_on * carried.keys
            reaching.append((goes_on, carried.values))
    # Z is 0 only where nothing is visible.
    channels = channels / normaliser.masked_fill(normaliser == 0, 1.0)
    out = ((channels @ keys.transpose(-1, -2)) * mask) @ values
    for goes_on, outside in reaching:
        out = out + goes_on * (channels @ outside)
    return out


def _carry(chunk: Chunk, carried: Carried | None) -> Carried:
    """Returns the sums over the segment that may go on after this chunk."""
    _, keys, values, segments = chunk
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


def _step(position: Chunk, carried: Carried) -> tuple[Tensor, Carried]:
    """Returns the output of the next position of the carried segment, and what goes on from it.

    It is what :func:`_attend` and :func:`_carry` come to for one position.
    """
    channels, keys, values, _ = position
    key_sums = carried.keys + keys
    value_sums = carried.values + keys.transpose(-1, -2) * values
    return (channels / key_sums) @ value_sums, Carried(carried.segment, value_sums, key_sums)


class AttentionState(NamedTuple):
    """What :meth:`LinearAttention.advance` needs of the positions before: H·(D² + D) numbers.

    Attributes:
        carried: the sums of the attention.
        past: (B, K - 1, D), the newest values, for the local branch; None without one.
    """

    carried: Carried
    past: Tensor | None


class LinearAttention(MultiHeadAttention):
    """Multi-head linear attention, with room for a local branch on the values (Eq. 11).

    Args:
        dim: as for :class:`MultiHeadAttention`.
        num_heads: as for :class:`MultiHeadAttention`.
        causal: as for :class:`MultiHeadAttention`.
        local: as for :class:`MultiHeadAttention`.
        execution: see :func:`linear_attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        causal: bool = True,
        local: DepthwiseConvolution | None = None,
        execution: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, causal=causal, local=local)
        self.execution = execution

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        """Applies :func:`linear_attention`."""
        return linear_attention(
            queries, keys, values, segments, causal=self.causal, execution=self.execution
        )

    def advance(self, x: Tensor, state: AttentionState | None) -> tuple[Tensor, AttentionState]:
        """Maps the next M positions of sequences without padding, (B, M, D), to (B, M, D).

        Together with the calls before it this is one causal ``forward`` over the whole sequences.
        """
        if not self.causal:
            raise ValueError("only a causal attention can go on from what came before")
        parts = self.qkv(x).chunk(3, dim=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in parts)
        heads, carried = advance(queries, keys, values, None if state is None else state.carried)
        mixed, past = merge_heads(heads), None
        if self.local is not None:
            local, past = self.local.advance(parts[2], None if state is None else state.past)
            mixed = mixed + local
        return self.out(mixed), AttentionState(carried, past)
