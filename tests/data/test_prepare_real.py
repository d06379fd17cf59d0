"""The published counts of public datasets, where their files lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from blin import _core
from prepared import raw_sequences

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the public datasets are not here")


def read(name: str, **options: object) -> dict[str, object]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return _core.read_log([path], **options)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("interactions/Beauty.tsv.gz", (22_363, 12_101, 198_502)),
        ("interactions/Sports_and_Outdoors.tsv.gz", (35_598, 18_357, 296_337)),
        ("interactions/Yelp.tsv.gz", (30_431, 20_033, 316_354)),
        ("s3rec/Beauty.txt", (22_363, 12_101, 198_502)),
        ("s3rec/Sports_and_Outdoors.txt", (35_598, 18_357, 296_337)),
        ("s3rec/Yelp.txt", (30_431, 20_033, 316_354)),
        ("ml-1m/ml-1m_5core_sequences.txt.gz", (6_040, 3_416, 999_611)),
        ("ml-1m/ratings_users_1-2999.dat.gz", (2_999, 3_266, 486_907)),
    ],
)
def test_the_five_core_has_the_published_counts(name, counts):
    report = read(name)["report"]
    assert (report["users"], report["items"], report["interactions"]) == counts


@pytest.mark.parametrize(
    ("min_rating", "counts"), [(3, (2_999, 3_122, 405_461)), (4, (2_999, 2_796, 277_756))]
)
def test_a_rating_threshold_comes_before_the_five_core(min_rating, counts):
    report = read("ml-1m/ratings_users_1-2999.dat.gz", min_rating=min_rating)["report"]
    assert (report["users"], report["items"], report["interactions"]) == counts


def test_repeats_in_yelp_are_counted_and_can_be_dropped():
    assert read("interactions/Yelp.tsv.gz")["report"]["repeats"] == 11_830
    report = read("interactions/Yelp.tsv.gz", duplicates="first")["report"]
    assert report["before_k_core"]["interactions"] == 304_524
    assert (report["users"], report["items"]) == (28_330, 18_775)


@pytest.mark.parametrize(
    ("name", "neighbours", "users"),
    [
        ("interactions/Beauty.tsv.gz", 77_402, 9_719),
        ("interactions/Sports_and_Outdoors.tsv.gz", 124_223, 16_049),
        ("interactions/Yelp.tsv.gz", 0, 0),
    ],
)
def test_ties_are_counted(name, neighbours, users):
    report = read(name)["report"]
    assert report["tied_neighbours"] == neighbours
    assert report["users_with_tied_last"] == users


@pytest.mark.parametrize("name", ["Beauty", "Sports_and_Outdoors", "Yelp"])
def test_sorting_the_timed_rows_gives_the_published_sequences(name):
    sequences = raw_sequences(read(f"interactions/{name}.tsv.gz"))
    lines = [line.split() for line in (DATA / f"s3rec/{name}.txt").read_text().splitlines()]
    assert sequences == {user: items for user, *items in lines}
    assert raw_sequences(read(f"s3rec/{name}.txt")) == sequences
