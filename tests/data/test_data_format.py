"""The page on the prepared dataset, tried out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blin.data.dataset import Dataset
from blin.data.prepare import preprocess

PAGE = Path(__file__).parents[2] / "docs" / "data-format.md"


def test_the_example_writes_what_a_log_of_the_same_histories_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(compile(example[1], str(PAGE), "exec"), {})
    written = Dataset(tmp_path / "data" / "drinks")
    (tmp_path / "drinks.txt").write_text("ann tea milk tea\nbob milk tea jam milk\n")
    log = tmp_path / "drinks.txt"
    prepared = Dataset(preprocess(log, data_dir=tmp_path / "prepared", min_interactions=1).path)
    assert written.fingerprint == prepared.fingerprint
    assert written.item_ids.index_of("jam") == prepared.item_ids.index_of("jam") == 3


def test_every_key_of_the_metadata_is_explained(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nann,tea,1\n")
    report = preprocess(log, data_dir=tmp_path, min_interactions=1)
    page = PAGE.read_text(encoding="utf-8")
    unexplained = [key for key in report.metadata if f"`{key}`" not in page]
    assert unexplained == []
