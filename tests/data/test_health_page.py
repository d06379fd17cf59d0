"""The page on a dataset's health stands alone, holds its figures and escapes what it is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from blin.data import health_page
from blin.data.prepare import preprocess
from html_page import Page


def metadata_of(folder: Path, rows: list[str], *, name: str = "log", **options: Any) -> Any:
    log = folder / f"{name}.csv"
    log.write_text("\n".join(rows))
    return dict(preprocess(log, data_dir=folder, min_interactions=1, **options).metadata)


@pytest.fixture(scope="module")
def metadata(small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dict(preprocess(small_log, data_dir=tmp_path_factory.mktemp("data")).metadata)


def test_the_page_stands_alone_and_holds_the_figures(metadata):
    content = health_page.page(metadata)
    page = Page(content)
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert "<script" not in content and "http" not in content.replace("http-equiv", "")
    assert content.count("<svg") == 4
    for svg in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "#0" not in svg, "a colour that is not a variable"
    health = metadata["health"]
    baseline = f"{health['popularity_baseline']['HR@10']:.4f}"
    for figure in (baseline, f"{metadata['users']:,} users", metadata["fingerprint"]):
        assert figure in page.text


def test_the_same_dataset_gives_the_same_bytes(metadata):
    assert health_page.page(metadata) == health_page.page(metadata)


def test_what_is_raw_is_escaped(metadata):
    source = {"file": "<b>&.csv", "sha256": "", "bytes": 0}
    content = health_page.page(metadata | {"name": "</title><i>", "sources": [source]})
    assert "<b>&" not in content and "<i>" not in content
    assert "&lt;b&gt;&amp;.csv" in content


def test_without_times_two_plots_are_left_and_the_rest_is_unknown(tmp_path):
    content = health_page.page(metadata_of(tmp_path, ["user,item", "ann,a", "ann,b", "ann,a"]))
    page = Page(content)
    assert content.count("<svg") == 2
    assert page.text.count("unknown") == 6


@pytest.mark.parametrize(
    "times", [(1, 2, 3), (7, 7, 7), (-(2**62), 0, 2**62), (10**9, 10**10, 9**11)]
)
def test_any_times_can_be_drawn(tmp_path, times):
    rows = [
        "user,item,time",
        *(f"ann,{item},{time}" for item, time in zip("aba", times, strict=True)),
    ]
    assert health_page.page(metadata_of(tmp_path, rows)).count("<svg") == 4


def test_one_interaction_can_be_drawn_and_is_said_to_have_no_test(tmp_path):
    page = Page(health_page.page(metadata_of(tmp_path, ["user,item,time", "ann,a,1"])))
    assert "nothing to evaluate a model on" in page.text
