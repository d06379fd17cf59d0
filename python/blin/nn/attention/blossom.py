"""The sparse attention of BlossomRec: a few old blocks for the lasting interest, and what is near.

For queries, keys and values of one head of width D (Ma et al., WWW 2026), and a segment whose
positions are cut into blocks of W, the first one at its beginning:

    long    a block that ends before the block of position i is chosen by i if the score
            q̄_i · c_b / √D is among the largest few; i attends to the chosen blocks, to its own
            block up to itself, and to the memory
    short   i attends to the j ≤ i with i - j < window or i - j a power of two
    out_i = σ(a_i) long_i + σ(b_i) short_i                 with a gate for each head and position

c_b is the compressed key of block b: what a small network makes of the keys of the blocks b - 1 and
b, to which learned positions in the pair are added. Heads come in groups that share keys and
values; q̄ is the mean over the group, so that its heads choose alike. Queries and keys are rotated
by their step in the segment. The memory is a key and a value, learned, that belongs to no position
and is not rotated: a head finds there what it takes where nothing chosen is of use.

**What does not depend on the rest of the row.** Blocks are counted from the beginning of a segment,
whatever lies around it, and only blocks that lie wholly in the past can be chosen, so a block is
the same whatever comes later, and so is the choice.

**How the choice learns.** It has no gradient. The compressed keys get the one that they would have
if the score of a chosen block were added to the logits of its keys; the score itself is not added,
and the queries and keys that it is made of do not learn by it.

**Memory.** Chosen keys are gathered for some positions at a time (:mod:`.gathered`). No matrix of
positions by positions exists; blocks are scored for the positions of one block at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin.nn.attention.gathered import gathered_attention
from blin.nn.convolution import DepthwiseConvolution
from blin.nn.rotary import rotate
from blin.nn.segments import SegmentRows

BLOCK_SIZE = 16

CHOSEN_BLOCKS = 4

WINDOW = 8

GATES = (-2.0, 2.0)
"""Before the sigmoid, at first: of the long and of the short path."""


@dataclass(frozen=True)
class Blocks:
    """The positions of a batch, segment by segment, and the blocks that they fill.

    Attributes:
        size: W, the places of a block.
        rows: the segments, and where their P positions lie in the batch.
        owners: (P,), the segment of each position.
        steps: (P,), how many positions of the segment come before it.
        counts: (S,), the blocks of each segment, the last of them filled in part or in full.
        total: M, the blocks of all segments.
    """

    size: int
    rows: SegmentRows
    owners: Tensor
    steps: Tensor
    counts: Tensor
    total: int

    @classmethod
    def of(cls, segments: Tensor, size: int) -> Blocks:
        """Returns the blocks of (B, N) segments."""
        rows = SegmentRows.of(segments)
        longest = max(1, rows.longest)
        counts = (rows.lengths + size - 1) // size
        owners, steps = rows.slots // longest, rows.slots % longest
        return cls(size, rows, owners, steps, counts, int(counts.sum()))

    @property
    def firsts(self) -> Tensor:
        """(S,), the first block of each segment among all."""
        return self.counts.cumsum(0) - self.counts

    @property
    def numbers(self) -> Tensor:
        """(P,), how many blocks of the segment come before that of a position."""
        return self.steps // self.size

    @property
    def slots(self) -> Tensor:
        """(P,), the place of each position among the M · W of the blocks."""
        return self.firsts[self.owners] * self.size + self.steps

    @property
    def closed_firsts(self) -> Tensor:
        """(S,), where the blocks of a segment begin among those that others of it come after."""
        return self.firsts - torch.arange(len(self.counts), device=self.counts.device)

    @property
    def closed(self) -> Tensor:
        """The blocks that others of their segment come after: all but the last of each."""
        closed = torch.ones(self.total, dtype=torch.bool, device=self.counts.device)
        closed[self.counts.cumsum(0) - 1] = False
        return closed.nonzero().squeeze(-1)

    def fill(self, x: Tensor) -> Tensor:
        """Maps (P, G, D) to (G, M · W, D), 0 where a block is not full."""
        blocks = x.new_zeros(x.shape[1], self.total * self.size, x.shape[2])
        return blocks.index_copy(1, self.slots, x.transpose(0, 1))


def choose_blocks(queries: Tensor, compressed: Tensor, blocks: Blocks, most: int) -> Tensor:
    """Returns the blocks that each position chooses, (P, G, ``most``), by their numbers.

    A position with no more than ``most`` blocks before its own has all of them, in their order, and
    then numbers without meaning; of equal scores the older block wins.

    Args:
        queries: (P, G, D).
        compressed: (G, C, D), a key for each closed block.
        blocks: the layout of the positions.
        most: how many are chosen.
    """
    device = queries.device
    chosen = torch.arange(most, device=device).repeat(*queries.shape[:2], 1)
    lengths = blocks.rows.lengths
    begins, firsts = lengths.cumsum(0) - lengths, blocks.closed_firsts
    longest = int(blocks.counts.max()) if len(lengths) else 0
    for number in range(most + 1, longest):
        owners = (blocks.counts > number).nonzero()  # (S, 1), of those with such a block
        steps = number * blocks.size + torch.arange(blocks.size, device=device)
        inside = steps < lengths[owners]  # (S, W)
        members = (begins[owners] + steps).clamp(max=len(queries) - 1)
        past = compressed[:, firsts[owners] + torch.arange(number, device=device)]
        asking = queries[members].permute(2, 0, 1, 3)  # (G, S, W, D)
        found = _largest(asking @ past.transpose(-1, -2), most)  # (G, S, W, most)
        chosen[members[inside]] = found.permute(1, 2, 0, 3)[inside]
    return chosen


def _largest(scores: Tensor, most: int) -> Tensor:
    """Returns where the largest scores of each row are; of equal ones the first."""
    scores, found = scores.clone(), []
    for _ in range(most):
        found.append(scores.argmax(-1, keepdim=True))
        scores.scatter_(-1, found[-1], -torch.inf)
    return torch.cat(found, dim=-1)


def _scores(queries: Tensor, compressed: Tensor, places: Tensor) -> Tensor:
    """Returns the scores of blocks, (P, G, T), of (P, G, D) queries and (P, G, T) closed blocks."""
    groups, closed, dim = compressed.shape
    if places.shape[-1] == 0:
        return queries.new_zeros(places.shape)
    flat = places + closed * torch.arange(groups, device=places.device).unsqueeze(-1)
    keys = compressed.flatten(0, 1).index_select(0, flat.flatten()).view(*places.shape, dim)
    return (keys @ queries.unsqueeze(-1)).squeeze(-1)


class BlossomAttention(nn.Module):
    """Multi-head attention by a choice of old blocks and by short distances; causal.

    Args:
        dim: width D of the input and the output.
        num_heads: heads of the queries; divides ``dim``, into an even width.
        num_kv_heads: heads of the keys and values; divides ``num_heads``.
        block_size: positions in a block, W.
        chosen_blocks: how many blocks a position may choose.
        window: how many positions the short path sees without a gap, its own included.
        local: a depthwise convolution of the values, whose output is added to that of the
            attention before the output projection; needs as many value heads as heads.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_kv_heads: int,
        block_size: int = BLOCK_SIZE,
        chosen_blocks: int = CHOSEN_BLOCKS,
        window: int = WINDOW,
        local: DepthwiseConvolution | None = None,
    ) -> None:
        super().__init__()
        if dim % (2 * num_heads) != 0:
            raise ValueError(
                f"2 · num_heads must divide dim, got dim {dim} and num_heads {num_heads}"
            )
        if num_heads % num_kv_heads != 0:
            raise ValueError(
                f"num_kv_heads must divide num_heads, got {num_kv_heads} and {num_heads}"
            )
        if local is not None and num_kv_heads != num_heads:
            raise ValueError("a local branch needs as many value heads as heads")
        width = dim // num_heads
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.block_size = block_size
        self.chosen_blocks = chosen_blocks
        self.window = window
        self.qkv = nn.Linear(dim, dim + 2 * num_kv_heads * width)
        self.compress = nn.Sequential(
            nn.Linear(2 * block_size * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.block_positions = nn.Parameter(torch.zeros(num_kv_heads, 2 * block_size, width))
        self.memory = nn.Parameter(torch.zeros(2, num_kv_heads, width))
        # No Linear: what draws the weights of a model leaves these alone.
        self.gate_weight = nn.Parameter(torch.zeros(2 * num_heads, dim))
        self.gate_bias = nn.Parameter(torch.tensor(GATES).repeat_interleave(num_heads))
        self.local = local
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Maps (B, N, D) inputs with (B, N) segments to (B, N, D).

        The positions of a segment follow one another, with nothing but padding (0) between them.
        The attention is computed in fp32 at least.
        """
        blocks = Blocks.of(segments, self.block_size)
        places = blocks.rows.places
        groups, width = self.num_kv_heads, x.shape[-1] // self.num_heads
        sizes = [x.shape[-1], groups * width, groups * width]
        projected = self.qkv(x)
        parts = projected.flatten(0, 1).index_select(0, places).split(sizes, dim=-1)
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(device_type=x.device.type, enabled=False):
            queries, keys, values = (
                part.to(dtype).view(len(places), groups, *shape, width)
                for part, shape in zip(parts, [(self.num_heads // groups,), (), ()], strict=True)
            )
            rotated, keys = rotate(queries, blocks.steps), blocks.fill(rotate(keys, blocks.steps))
            values = blocks.fill(values)
            paths = torch.stack(
                [
                    self._long(queries, rotated, keys, values, blocks),
                    self._short(rotated, keys, values, blocks),
                ],
                dim=1,
            )  # (P, 2, G, R, D)
            real = x.flatten(0, 1).index_select(0, places).to(dtype)
            gates = nn.functional.linear(real, self.gate_weight, self.gate_bias).sigmoid()
            mixed = (gates.view(*paths.shape[:-1], 1) * paths).sum(1).flatten(1)
        whole = torch.zeros_like(x, dtype=projected.dtype).flatten(0, 1)
        whole = whole.index_copy(0, places, mixed.to(whole.dtype)).view_as(x)
        if self.local is not None:
            whole = whole + self.local(projected.split(sizes, dim=-1)[2], segments)
        return self.out(whole)  # type: ignore[no-any-return]

    def _long(
        self, queries: Tensor, rotated: Tensor, keys: Tensor, values: Tensor, blocks: Blocks
    ) -> Tensor:
        """Returns what positions take of the blocks they choose, of their own and of the memory.

        Args:
            queries: (P, G, R, D).
            rotated: (P, G, R, D).
            keys: (G, M · W, D), rotated.
            values: (G, M · W, D).
            blocks: the layout of the positions.

        Returns:
            (P, G, R, D).
        """
        size, groups = self.block_size, self.num_kv_heads
        asking = rotated.detach().mean(2) / rotated.shape[-1] ** 0.5  # (P, G, D)
        compressed = self._compressed(keys.detach(), blocks)
        chosen = choose_blocks(asking, compressed.detach(), blocks, self.chosen_blocks)
        # Positions that choose equally many blocks have lists of one length.
        visible = blocks.numbers.clamp(max=self.chosen_blocks)
        order = visible.argsort(stable=True)
        sizes = visible.bincount(minlength=1).tolist()
        parts, turned = (torch.split(x, sizes) for x in (order, rotated.index_select(0, order)))
        found = []
        for many, (part, own_queries) in enumerate(zip(parts, turned, strict=True)):
            owners, steps = blocks.owners[part], blocks.steps[part]
            picked = chosen[part, :, :many]  # (Q, G, many)
            firsts = blocks.firsts[owners]
            own = (firsts + steps // size)[:, None, None].expand(-1, groups, 1)
            runs = torch.cat([firsts[:, None, None] + picked, own], dim=-1)
            past = torch.arange(size, device=keys.device) <= (steps % size).unsqueeze(-1)
            seen = torch.cat([past.new_ones(len(part), many * size), past], dim=1)
            places = blocks.closed_firsts[owners][:, None, None] + picked
            scores = _scores(asking[part], compressed, places)
            found.append(gathered_attention(own_queries, keys, values, runs, seen, scores))
        out, logs = (
            torch.zeros_like(like).index_copy(0, order, torch.cat(some))
            for like, some in zip((rotated, rotated[..., 0]), zip(*found, strict=True), strict=True)
        )
        key, value = self.memory[0], self.memory[1]
        remembered = (queries * key.unsqueeze(1)).sum(-1) / queries.shape[-1] ** 0.5
        share: Tensor = (logs - remembered).sigmoid().unsqueeze(-1)
        return share * out + (1 - share) * value.unsqueeze(1)

    def _compressed(self, keys: Tensor, blocks: Blocks) -> Tensor:
        """Returns a key for each closed block, (G, C, D), of (G, M · W, D) keys."""
        by_block = keys.view(len(keys), blocks.total, self.block_size, keys.shape[-1])
        closed = blocks.closed
        first = torch.zeros(blocks.total, dtype=torch.bool, device=keys.device)
        first[blocks.firsts] = True
        before = by_block[:, (closed - 1).clamp(min=0)] * ~first[closed][:, None, None]
        pairs = torch.cat([before, by_block[:, closed]], dim=2)
        pairs = (pairs + self.block_positions.unsqueeze(1)).flatten(2)
        return self.compress(pairs)  # type: ignore[no-any-return]

    def _short(self, queries: Tensor, keys: Tensor, values: Tensor, blocks: Blocks) -> Tensor:
        """Returns what positions take of what is near, and of what is a power of two away.

        The arguments are those of :meth:`_long`, (P, G, R, D) rotated queries and what they see.
        """
        distances = torch.tensor(short_distances(max(1, blocks.rows.longest), self.window))
        distances = distances.to(keys.device)
        runs = (blocks.slots.unsqueeze(-1) - distances).clamp(min=0)  # (P, T)
        runs = runs.unsqueeze(1).expand(-1, self.num_kv_heads, -1)
        seen = distances <= blocks.steps.unsqueeze(-1)
        scores = queries.new_zeros(*runs.shape[:2], 0)
        return gathered_attention(queries, keys, values, runs, seen, scores)[0]


def short_distances(longest: int, window: int) -> list[int]:
    """Returns how far back the short path looks in histories of up to ``longest`` positions."""
    distances = list(range(min(window, longest)))
    distance = 1
    while distance < longest:
        if distance >= window:
            distances.append(distance)
        distance *= 2
    return distances
