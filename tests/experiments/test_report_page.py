"""The page of runs stands alone, holds their numbers, and is drawn by a browser without a word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from blin import markup
from blin.data.prepare import preprocess
from blin.experiments.report import gather
from blin.experiments.report_page import page
from experiments.made_runs import evaluate_run, make_run
from html_page import Page

RANKS = ([1, 2, 40, 3] * 5, [1, 1, 2, 2] * 5, [50, 2, 40, 90] * 5)
# The loss, two validation metrics, two costs, four of the data; and by each of two passports λ by
# two metrics and the history.
PLOTS = 1 + 2 + 2 + 4 + 2 * (2 + 1)
HOSTILE = "<script>alert(1)</script>\"'&$\\frac"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def made(place: Path) -> list[Path]:
    paths = [
        make_run(place / f"run{number}", ranks, kl_weight=0.5 * number)
        for number, ranks in enumerate(RANKS)
    ]
    paths.append(make_run(place / "seed", RANKS[0], seed=1))
    paths.append(make_run(place / "begun", None, epochs=1))
    sampled = {"ranking": "uniform-5", "seed": 0}
    for path in paths[:2]:
        evaluate_run(path, RANKS[0], name="u5", suffix="[uniform-5]", protocol=sampled)
    return paths


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, small_log: Path) -> str:
    place = tmp_path_factory.mktemp("page")
    done = preprocess(small_log, data_dir=place, name="shop")
    paths = made(place / "runs")
    for path in paths:
        for file in [path / "config.toml", *(path / "eval").glob("*.json")]:
            text = file.read_text().replace("sha256:0", str(done.metadata["fingerprint"]))
            file.write_text(text)
        (path / "model").mkdir()
        shutil.copy(done.path / "items.parquet", path / "model")
    return page(gather(paths, data_dir=place, resamples=199))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their plots, of which the words are asked only: drawing takes longest."""
    monkeypatch.setattr(markup, "svg", lambda *_, **__: "<svg><title></title></svg>")


def test_the_page_stands_alone_and_holds_the_numbers(content):
    parsed = Page(content)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)
    assert "<script" not in content and "http" not in content.replace("http-equiv", "")
    assert 'name="viewport"' in content and "@media print" in content
    for svg in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        drawn = ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert drawn.find("title") is not None
        assert "#0" not in svg, "a colour that is not a variable"
    assert content.count("<figure>") == content.count("<svg") == PLOTS
    for number in ("0.7500", "1.0000", "HR@10 [uniform-5]", "λ", "blin train --seed 0", "run0"):
        assert number in parsed.text
    assert content.count("<h3>Test items, full ranking") == 2
    assert "Gini" in parsed.text


@pytest.mark.usefixtures("undrawn")
def test_marks_come_with_what_they_mean(tmp_path):
    paths = [make_run(tmp_path / "a", [1] * 30), make_run(tmp_path / "b", [99] * 30)]
    content = page(gather(paths, resamples=199))
    assert content.count("<strong>★") == 3
    assert "★ marks a run that is better than each other run" in content
    paths.append(make_run(tmp_path / "c", [1] * 30, dim=8))
    content = page(gather(paths, resamples=199))
    assert "<strong>" not in content
    assert "No value is marked" in content
    assert "compared with nothing" in page(gather(paths[:1]))


@pytest.mark.usefixtures("undrawn")
def test_cut_histories_have_a_table_of_their_own_after_the_usual_one(tmp_path):
    run = make_run(tmp_path / "shop" / "a", RANKS[0])
    evaluate_run(
        run, RANKS[0], name="test-last-3", suffix="[last-3]", protocol={"history": "last-3"}
    )
    titles = re.findall(r"<h3>(Test.*?)</h3>", page(gather([run])))
    assert titles[:2] == ["Test items, full ranking", "Test items, full ranking, history last-3"]


@pytest.mark.usefixtures("undrawn")
def test_passports_that_look_alike_are_named_by_what_differs(tmp_path):
    paths = [make_run(tmp_path / "a", [1] * 9), make_run(tmp_path / "b", [1] * 9)]
    evaluate_run(paths[1], [1] * 9, protocol={"ties": "random"})
    content = page(gather(paths))
    assert "<h3>Test items, full ranking, ties not recorded</h3>" in content
    assert "<h3>Test items, full ranking, ties random</h3>" in content


@pytest.mark.usefixtures("undrawn")
def test_a_seed_that_was_trained_twice_is_told_once(tmp_path):
    paths = [make_run(tmp_path / f"{n}", [1, 9], seed=seed) for n, seed in enumerate((0, 0, 1))]
    content = page(gather(paths, resamples=199))
    assert re.search(r">A, B, C</t[dh]><td[^>]*>blin</td><td[^>]*>2</td>", content)


def test_the_same_runs_give_the_same_bytes(tmp_path):
    paths = made(tmp_path)[1:3]
    assert page(gather(paths, resamples=199)) == page(gather(paths, resamples=199))


@pytest.mark.usefixtures("undrawn")
def test_datasets_have_parts_of_their_own(tmp_path):
    paths = [make_run(tmp_path / name, [1, 2, 3]) for name in "ab"]
    config = (paths[1] / "config.toml").read_text().replace('"shop"', '"mall"')
    (paths[1] / "config.toml").write_text(config)
    content = page(gather(paths, resamples=199))
    parsed = Page(content)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)
    assert "<title>Runs on shop, mall</title>" in content
    assert content.index("<h2>shop</h2>") < content.index("<h2>mall</h2>")


def test_many_runs_fit_on_one_page(tmp_path):
    paths = [make_run(tmp_path / f"{number}", [1, 9], dim=4 + number) for number in range(30)]
    Page(page(gather(paths)))


def test_nothing_that_a_run_says_is_run(tmp_path):
    path = tmp_path / HOSTILE.replace("/", "") / "<img src=x onerror=alert(2)>"
    make_run(path, [1, 2, 3], model=HOSTILE, loss=HOSTILE, extra=HOSTILE)
    protocol = {"dataset": HOSTILE, "ranking": HOSTILE, HOSTILE: HOSTILE}
    evaluate_run(path, [1, 2, 3], protocol=protocol)
    for file in (path / "eval" / "test.json", path / "history.jsonl"):
        text = file.read_text().replace("NDCG@10", json.dumps(HOSTILE)[1:-1])
        file.write_text(text.replace("1-4", json.dumps(HOSTILE)[1:-1]))
    history = (path / "history.jsonl").read_text().replace("sequence", json.dumps(HOSTILE)[1:-1])
    (path / "history.jsonl").write_text(history)
    environment = dict.fromkeys(("torch", "device", "platform", "started"), HOSTILE)
    environment |= {"command": ["x", HOSTILE, 7]}
    environment |= {"resumed": [{**environment, "torch": 8, "epoch": HOSTILE, "step": HOSTILE}]}
    (path / "environment.json").write_text(json.dumps(environment))
    config = (path / "config.toml").read_text().replace('"shop"', json.dumps(HOSTILE))
    (path / "config.toml").write_text(config)
    content = page(gather([path], resamples=199))
    parsed = Page(content)
    assert not parsed.tags & {"script", "img", "i"}
    assert not any(name.startswith("on") for name in parsed.names)
    assert parsed.text.count(HOSTILE) > 10
    for svg in re.findall(r"<svg.*?</svg>", content, re.DOTALL):
        ElementTree.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))


def browse(file: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens a page in a browser without a window."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", "--enable-logging=stderr", *options, file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_shows_the_page_and_says_nothing(content, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(content, encoding="utf-8")
    shown = browse(file, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    assert shown.stdout.count("<svg") == PLOTS
    file.write_text(content.replace("</body>", '<img src="x.png"></body>'), encoding="utf-8")
    assert "CONSOLE" in browse(file, tmp_path / "profile", "--dump-dom").stderr


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_everything_is_drawn_within_a_phone_and_a_desk(content, tmp_path):
    # A copy that may run scripts measures itself, in frames: a window cannot be a phone's.
    measure = """<script>
    const plots = [...document.querySelectorAll('svg')].map(svg => {
      const drawn = svg.getBBox(), place = svg.getBoundingClientRect();
      return [drawn.width > 150, drawn.height > 50, place.width > 250, place.height > 60,
              place.right <= innerWidth];
    });
    parent.document.querySelector('pre').textContent += JSON.stringify({
      width: innerWidth, wide: document.documentElement.scrollWidth, plots}) + ' ';
    </script></body>"""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", content)
    copy = escape(free.replace("</body>", measure))
    frames = "".join(
        f'<iframe style="border:0" width="{width}" height="800" srcdoc="{copy}"></iframe>'
        for width in (360, 1200)
    )
    file = tmp_path / "frames.html"
    file.write_text(f"<!DOCTYPE html><meta charset=utf-8><pre></pre>{frames}", encoding="utf-8")
    shown = browse(file, tmp_path / "profile", "--dump-dom", "--window-size=1600,900")
    match = re.search(r"<pre>(.*?)</pre>", shown.stdout)
    assert match is not None
    found = sorted(map(json.loads, match[1].split()), key=lambda each: each["width"])
    assert [each["width"] for each in found] == [360, 1200]
    for each in found:
        assert each["wide"] <= each["width"], "the page scrolls sideways"
        assert len(each["plots"]) == PLOTS
        assert all(map(all, each["plots"]))
