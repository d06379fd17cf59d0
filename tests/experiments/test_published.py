"""The paper's figures, and which of them no ranks can have."""

from __future__ import annotations

import pytest

from blin.experiments.published import METRICS, PUBLISHED, TABLE_1, TABLE_2, Counts, Figures


def test_what_is_known_of_the_paper() -> None:
    for dataset, columns in PUBLISHED.items():
        assert columns.keys() <= set(TABLE_2), dataset
        for figures in columns.values():
            assert figures.values.keys() <= set(METRICS)
            assert all(0 < value < 1 for value in figures.values.values())
    assert PUBLISHED["beauty"]["sasrec"].verdict() == "possible"
    assert PUBLISHED["beauty"]["blin"].verdict() == (
        "impossible: NDCG rises by 0.311 a hit, 0.228 to 0.279 can be"
    )
    for dataset, model in (("beauty", "caser"), ("yelp", "blin"), ("yelp", "tisasrec")):
        assert PUBLISHED[dataset][model].verdict().startswith("impossible: ")
    assert all(each.verdict().startswith("impossible: ") for each in PUBLISHED["ml-1m"].values())
    assert PUBLISHED["sports"] == {}


def test_the_paper_counts_the_files_but_for_what_is_told() -> None:
    assert TABLE_1.keys() == PUBLISHED.keys()
    assert Counts.of(22363, 12101, 198502).sparsity == pytest.approx(99.93, abs=0.005)
    for dataset, (counts, error) in TABLE_1.items():
        follows = Counts.of(counts.users, counts.items, counts.interactions).sparsity
        agrees = counts.sparsity is None or follows == pytest.approx(counts.sparsity, abs=0.005)
        assert agrees == (dataset != "beauty")
        assert bool(error) == (dataset != "yelp")


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        (Figures(), ""),
        (Figures({"HR@10": 0.5, "NDCG@20": 0.3}), ""),
        (Figures({"HR@10": 0.5, "NDCG@10": 0.3}), "possible"),
        # All hits at rank 1 give NDCG = HR; it cannot be more.
        (Figures({"HR@10": 0.5, "NDCG@10": 0.6}), "impossible"),
        (Figures({"HR@10": 0.5, "NDCG@10": 0.3}, rise=(0.25, 0.25)), "possible"),
        (Figures({"HR@10": 0.5, "NDCG@10": 0.3}, rise=(0.1, 0.25)), "possible"),
        # Hits between rank 11 and 20 add 0.228 to 0.279 each.
        (
            Figures({"HR@10": 0.2, "HR@20": 0.3, "NDCG@10": 0.1, "NDCG@20": 0.125}),
            "possible",
        ),
        (
            Figures({"HR@10": 0.2, "HR@20": 0.3, "NDCG@10": 0.1, "NDCG@20": 0.14}),
            "impossible",
        ),
    ],
)
def test_figures_that_no_ranks_have_are_told(figures: Figures, verdict: str) -> None:
    assert figures.verdict() == verdict
