"""Every entry of the catalogue is complete and can be named on a command line."""

import re

import pytest

from blin.data.catalog import DATASETS, CatalogEntry


@pytest.mark.parametrize("name, entry", DATASETS.items())
def test_entry_is_complete(name: str, entry: CatalogEntry) -> None:
    assert name == entry.name
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert entry.url.startswith("https://") and entry.host
    assert entry.num_bytes > 0 and entry.summary and entry.terms
    assert entry.file_name.endswith(".zip") == (entry.member is not None)


def test_the_log_is_the_member_or_the_file_itself() -> None:
    assert DATASETS["ml-1m"].log_name == "ratings.dat"
    assert DATASETS["beauty"].log_name == "Beauty.txt"
