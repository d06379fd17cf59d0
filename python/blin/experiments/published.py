"""What the Blin paper prints in its Tables 1 and 2, as far as it is known here, and if it can be.

The protocol of Table 2 is not stated. Its figures can be read as those among 500 uniform negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log2

from blin.evaluation.metrics import possible

NEGATIVES = 500

METRICS = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")

_ROUNDING = 0.00005
"""The paper prints four digits."""


@dataclass(frozen=True)
class Figures:
    """A column of the table for one dataset.

    Attributes:
        values: the metrics that are known.
        rise: between what (NDCG@20 - NDCG@10) / (HR@20 - HR@10) is known to be.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    rise: tuple[float, float] | None = None

    def verdict(self) -> str:
        """Returns ``possible`` or ``impossible: …``; empty where too little is known.

        A hit between rank 11 and rank 20 adds between 1/log₂ 21 and 1/log₂ 12 to NDCG, and so the
        rise lies between these.
        """
        least, most = 1 / log2(21), 1 / log2(12)
        if self.rise is not None and (self.rise[1] < least or self.rise[0] > most):
            found = f"{self.rise[0]:.3f}"
            if self.rise[1] != self.rise[0]:
                found += f" or more, up to {self.rise[1]:.3f}"
            return f"impossible: NDCG rises by {found} a hit, {least:.3f} to {most:.3f} can be"
        known = [k for k in (10, 20) if {f"HR@{k}", f"NDCG@{k}"} <= self.values.keys()]
        if not known:
            return ""
        hr, ndcg = ({k: self.values[f"{name}@{k}"] for k in known} for name in ("HR", "NDCG"))
        return "possible" if possible(hr, ndcg, rounding=_ROUNDING) else "impossible"


@dataclass(frozen=True)
class Counts:
    """A dataset in numbers.

    Attributes:
        users: that have interactions.
        items: that are interacted with.
        interactions: of all users.
        sparsity: the share of the pairs of a user and an item that have no interaction, in
            per cent; None where it is not known.
    """

    users: int
    items: int
    interactions: int
    sparsity: float | None = None

    @classmethod
    def of(cls, users: int, items: int, interactions: int) -> Counts:
        """Returns counts with the sparsity that follows from them."""
        return cls(users, items, interactions, 100 * (1 - interactions / (users * items)))


TABLE_1: Mapping[str, tuple[Counts, str]] = {
    "beauty": (
        Counts(22363, 12101, 198502, 99.73),
        "the sparsity does not follow from the counts: they make it 99.93 %",
    ),
    "sports": (
        Counts(35958, 18357, 296337),
        "two digits of the users are swapped: the file has 35,598",
    ),
    "yelp": (Counts(30431, 20033, 316354), ""),
    "ml-1m": (
        Counts(6041, 3417, 999611),
        "the padding is counted as a user and as an item: without it 6,040 and 3,416",
    ),
}
"""By dataset: what the paper counts, and what is wrong with it."""

TABLE_2 = (
    "gru4rec",
    "caser",
    "sasrec",
    "bert4rec",
    "tisasrec",
    "cl4srec",
    "linrec",
    "mstein",
    "ct4rec",
    "blin",
)
"""The models of the table."""

PUBLISHED: Mapping[str, Mapping[str, Figures]] = {
    "beauty": {
        "sasrec": Figures({"HR@10": 0.2775, "HR@20": 0.3572, "NDCG@10": 0.1752, "NDCG@20": 0.1961}),
        "caser": Figures(rise=(0.218, 0.218)),
        "blin": Figures({"HR@10": 0.3319, "HR@20": 0.4051, "NDCG@10": 0.2218}, (0.311, 0.311)),
    },
    "sports": {},
    "yelp": {
        "tisasrec": Figures(rise=(0.214, 0.214)),
        "blin": Figures(rise=(0.282, 0.282)),
    },
    "ml-1m": {
        **{name: Figures(rise=(0.456, 0.791)) for name in TABLE_2},
        "blin": Figures({"HR@10": 0.5588}, (0.456, 0.791)),
    },
}
"""By dataset, then model. What is missing is printed in the paper, but not known here."""
