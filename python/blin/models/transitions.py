"""What follows what in the training sequences: counted, and taught to a table of items.

The teaching is TED, transition-aware embedding distillation, of *Collaboration and Transition:
Distilling Item Transitions into Multi-Query Self-Attention for Sequential Recommendation* (WSDM
2024). It asks nothing of a model but its item embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blin import _core
from blin.batch import Interactions
from blin.losses import softmax_loss
from blin.nn.sparse import SparseRows

SCORES = 1 << 26
"""Pairs of items that are compared in a step, at most; beyond that, some items are drawn."""


def count_transitions(
    interactions: Interactions, *, num_items: int, span: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts how often each item comes 1…span steps after each other one, inside a user.

    Args:
        interactions: all that may be counted.
        num_items: V.
        span: how many steps apart the two may be.

    Returns:
        What :meth:`SparseRows.fill` takes: (V + 1,) pairs that each item has, and for each pair,
        sorted, the item that follows and how often.
    """
    found = _core.count_transitions(
        interactions.items.numpy(), interactions.users.numpy(), num_items, span
    )
    lengths, targets, counts = map(torch.from_numpy, found)
    return lengths, targets, counts


@dataclass(frozen=True)
class Transitions:
    """What TED's teacher knows: for each item i the counts C_ij of what followed it.

    Attributes:
        counts: C, without its zeros.
        highest: (V + 1,), the highest count of each item, 0 where nothing followed it.
    """

    counts: SparseRows
    highest: Tensor

    @classmethod
    def of(cls, interactions: Interactions, *, num_items: int, span: int) -> Transitions:
        """Counts, as :func:`count_transitions` does."""
        counts = SparseRows(num_items)
        lengths, targets, values = count_transitions(interactions, num_items=num_items, span=span)
        counts.fill(lengths, targets, values)
        sources = torch.repeat_interleave(lengths)
        highest = torch.zeros(num_items + 1).scatter_reduce_(0, sources, counts.weights, "amax")
        return cls(counts, highest)

    def to(self, where: torch.device) -> Transitions:
        """Returns the same on another device."""
        return Transitions(self.counts.to(where), self.highest.to(where))

    def means(self, table: Tensor, items: Tensor, *, temperature: float) -> Tensor:
        """Returns the mean of all embeddings, weighted by what the teacher thinks of each.

            Σ_j T_ij E_j,    T_i = the softmax over all items j of C_ij / (τ max_j C_ij)

        Nearly all C_ij are 0: their weight is the same for all of them. So the sum is that share
        of the sum of the table, the same for all i, and a correction by the few C_ij above 0. An
        item that nothing followed has the plain mean.

        Args:
            table: (V + 1, D), E; row 0 is padding and counts for nothing.
            items: (U,), i.
            temperature: τ.

        Returns:
            (U, D).
        """
        rows, entries = self.counts.entries(items)
        highest = self.highest[items].to(table.dtype)  # (U,)
        # Relative to the highest weight, which is e^(1/τ), or 1 where all counts are 0.
        rest = torch.exp(-(highest > 0).to(table.dtype) / temperature)
        shares = self.counts.weights[entries].to(table.dtype) / highest[rows]
        more = torch.exp((shares - 1) / temperature) - rest[rows]  # (P,)
        lengths = torch.bincount(rows, minlength=len(items))
        corrections = nn.functional.embedding_bag(
            self.counts.targets[entries].long(),
            table,
            lengths.cumsum(0) - lengths,
            mode="sum",
            per_sample_weights=more,
        )
        total = rest * self.counts.num_items + torch.zeros_like(rest).index_add_(0, rows, more)
        sums = rest.unsqueeze(-1) * table[1:].sum(0) + corrections
        return sums / total.unsqueeze(-1)


def distillation_loss(
    table: Tensor,
    inputs: Tensor,
    transitions: Transitions,
    *,
    temperature: float,
    dropout: nn.Module,
    most: int = 0,
) -> Tensor:
    """Returns how far the table is from what follows what (TED).

        mean over the inputs i of - Σ_j T_ij log S_ij,
        S_i = the softmax over all items j of drop(√D E_i) · E_j / τ

    with the teacher T of :meth:`Transitions.means`. The cross-entropy with one item a, say i
    itself, differs from that with T_i only by the dot product of the left factor with E_a less the
    teacher's mean. So neither T nor S is ever held: the memory is that of the embeddings.

    An item is compared once however often it is among the inputs, with one draw of the dropout,
    and counts as often as it is there. Where there are more inputs than ``most``, so many of them
    are drawn, and where the items times V are above :data:`SCORES`, as many as that allows; the
    loss is right on average.

    Args:
        table: (V + 1, D), the item embeddings E; row 0 is padding and counts for nothing.
        inputs: (R,) items of 1…V, any of them as often as it is an input.
        transitions: what the teacher knows.
        temperature: τ, of teacher and student.
        dropout: of the left factor.
        most: inputs to compare, at most; 0 for no such limit.

    Returns:
        A scalar, 0 for R = 0.
    """
    dtype = torch.promote_types(table.dtype, torch.float32)
    if 0 < most < len(inputs):
        inputs = _some(inputs, most)
    items, counts = torch.unique(inputs, return_counts=True)
    affordable = max(1, SCORES // transitions.counts.num_items)
    if len(items) > affordable:
        items, counts = torch.unique(_some(inputs, affordable), return_counts=True)
    with torch.autocast(device_type=table.device.type, enabled=False):
        table = table.to(dtype)
        own = table[items]
        left = dropout(own * table.shape[1] ** 0.5) / temperature  # (U, D)
        weights = counts.to(dtype) / max(1, int(counts.sum()))
        itself = softmax_loss(left.unsqueeze(0), table, items, weights=weights.unsqueeze(0))
        gap = own - transitions.means(table, items, temperature=temperature)
        total: Tensor = itself.total + (weights.unsqueeze(-1) * left * gap).sum()
        return total


def _some(inputs: Tensor, number: int) -> Tensor:
    """Draws from (R,) inputs with replacement, on the CPU: (number,)."""
    return inputs[torch.randint(len(inputs), (number,)).to(inputs.device)]
