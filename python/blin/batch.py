"""What crosses the border between data and models.

Shapes: B rows, N positions, T targets of the newest copies. 0 always means "nothing here".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, device


@dataclass(frozen=True)
class BatchSpec:
    """What a model wants its batches to be.

    Attributes:
        max_len: positions in a row, N.
        positions: what ``View.positions`` count: ``absolute`` or ``per-copy``.
        views: how many views of each user to learn from.
        num_negatives: how many negatives the batch shares.
        sampling: how they are drawn: ``uniform``, or in proportion to ``popularity``.
        loss_positions: what is learned from: ``all`` steps of a sequence, or the ``last`` step of
            each of its prefixes, which are rows of their own.
    """

    max_len: int
    positions: str
    views: int
    num_negatives: int
    sampling: str = "uniform"
    loss_positions: str = "all"


@dataclass(frozen=True)
class View:
    """One padded copy of a batch.

    Attributes:
        items: (B, N), the input item at each position, 0 for padding and delimiters.
        targets: (B, N), the item to predict at each position, 0 where there is none.
        segments: (B, N), equal and above 0 for positions that may see each other.
        positions: (B, N), the index for the position embedding.
        newest: (B, N) booleans, true on the newest copy of each sequence, or on its last position
            where only that is learned from. Read row by row, the marked positions name the same
            users and time steps in the same order in every view of a batch.
    """

    items: Tensor
    targets: Tensor
    segments: Tensor
    positions: Tensor
    newest: Tensor

    def to(self, where: device) -> View:
        """Returns the view on another device."""
        return replace(
            self,
            items=self.items.to(where, non_blocking=True),
            targets=self.targets.to(where, non_blocking=True),
            segments=self.segments.to(where, non_blocking=True),
            positions=self.positions.to(where, non_blocking=True),
            newest=self.newest.to(where, non_blocking=True),
        )


@dataclass(frozen=True)
class Batch:
    """The rows of some users, in one view or two.

    Attributes:
        users: indices of the users in the batch, in the order of their rows.
        views: one view to score, one or more to learn from.
        negatives: (K,), items that the whole batch takes for wrong ones; empty when the loss
            draws none.
        log_q: (K,), the logarithm of how often each negative is expected among K draws.
    """

    users: Tensor
    views: tuple[View, ...]
    negatives: Tensor
    log_q: Tensor

    def to(self, where: device) -> Batch:
        """Returns the batch on another device."""
        return replace(
            self,
            users=self.users.to(where, non_blocking=True),
            views=tuple(view.to(where) for view in self.views),
            negatives=self.negatives.to(where, non_blocking=True),
            log_q=self.log_q.to(where, non_blocking=True),
        )


@dataclass(frozen=True)
class Losses:
    """What a model's ``forward`` returns.

    Attributes:
        total: the scalar to minimise.
        parts: named scalars for the log, detached from the graph.
    """

    total: Tensor
    parts: dict[str, Tensor]
