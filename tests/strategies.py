"""Interaction logs for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from reference.ingest import MISSING_USERS

Row = tuple[str, str, int]

_TEXT = st.characters(codec="utf-8", exclude_characters="\0")
_PLAIN = st.characters(codec="utf-8", exclude_characters='\0\r\n,"')


def rows(*, max_size: int = 60) -> st.SearchStrategy[list[Row]]:
    """Few users and items and fewer times, so that repeats, ties and small cores are common."""
    user = st.integers(0, 7).map("u{}".format) | st.sampled_from(["", "NA", "\\N", "Na"])
    item = st.integers(0, 7).map("i{}".format) | st.sampled_from(["", "NA"])
    time = st.integers(1_700_000_000, 1_700_000_009)
    return st.lists(st.tuples(user, item, time), min_size=1, max_size=max_size)


def raw_ids() -> st.SearchStrategy[str]:
    """Any user, with the lengths at which the core changes its ways, and look-alike numbers."""
    lengths = st.sampled_from([7, 8, 15, 16, 40]).flatmap(
        lambda size: st.text(_TEXT, min_size=size, max_size=size)
    )
    text = st.text(_TEXT, min_size=1) | lengths | st.sampled_from(["7", "07", "007", " 7", "7 "])
    return text.filter(lambda name: name not in MISSING_USERS)


def plain_ids() -> st.SearchStrategy[str]:
    """Users that need no quotes in a CSV."""
    text = st.text(_PLAIN, min_size=1) | st.sampled_from(["7", "07", "007", " 7", "7 "])
    return text.filter(lambda name: name not in MISSING_USERS)
