"""Counting what is above a score, in the core and on any device, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blin._core import count_above
from blin.evaluation.ranking import _above_and_level

scores_and_own = st.integers(1, 9).flatmap(
    lambda width: st.lists(
        st.tuples(
            st.lists(
                st.sampled_from([-1.0, 0.0, 0.5, 2.0, -np.inf]), min_size=width, max_size=width
            ),
            st.sampled_from([-1.0, 0.5, 2.0]),
        ),
        max_size=6,
    )
)


@given(scores_and_own)
def test_every_form_of_scores_is_counted_alike(rows):
    width = len(rows[0][0]) if rows else 4
    scores = torch.tensor([row for row, _ in rows]).reshape(len(rows), width)
    own = torch.tensor([[mine] for _, mine in rows]).reshape(len(rows), 1)
    above = [sum(score > mine for score in row) for row, mine in rows]
    level = [sum(score == mine for score in row) for row, mine in rows]
    forms = [scores, scores.double(), scores.bfloat16(), scores.t().contiguous().t()]
    for form in forms:
        found = _above_and_level(form, own.to(form.dtype))
        assert [counts.tolist() for counts in found] == [above, level]


def test_counts_of_another_number_of_rows_are_refused():
    scores, counts = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    for own, above in ((np.zeros(3, np.float32), counts), (scores[:, 0].copy(), counts[:1])):
        with pytest.raises(ValueError, match="one own score and two counts a row"):
            count_above(scores, own, above, np.zeros(2, np.int64))
