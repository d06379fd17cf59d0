"""Pages stand alone, and hold what they are given without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from blin import markup
from blin.errors import BlinError, ConfigError
from html_page import Page


def test_a_page_is_checked_before_the_work(tmp_path, monkeypatch):
    markup.check(None)
    markup.check(tmp_path / "page.html")
    with pytest.raises(ConfigError, match=r'a name that ends in .html, found "log.csv"'):
        markup.check(Path("log.csv"))
    with pytest.raises(ConfigError, match="a directory that is there"):
        markup.check(tmp_path / "nowhere" / "page.html")
    monkeypatch.setattr(markup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BlinError, match=r"pip install 'blin-rec\[plot\]'"):
        markup.check(None)


def test_a_table_has_headers_numbers_and_a_caption_and_is_escaped():
    content = markup.table(
        ("<run>", "HR"), [("<b>A</b>", "0.5")], caption='"x" & <y>', numbers=frozenset({1})
    )
    page = Page(content)
    assert '<th scope="col">&lt;run&gt;</th><th scope="col" class="number">HR</th>' in content
    assert '<th scope="row"><b>A</b></th><td class="number">0.5</td>' in content
    assert 'aria-label="&quot;x&quot; &amp; &lt;y&gt;"' in content
    assert '"x" & <y>' in page.text


def test_a_plot_is_named_takes_text_as_it_is_and_leaves_matplotlib_alone():
    import matplotlib

    def draw(axes):
        axes.plot([0, 1], color=markup.SERIES[3])
        axes.set(xlabel="<script>$\\bad")

    with matplotlib.rc_context({"lines.linewidth": 40, "axes.facecolor": "#123456"}):
        content = markup.svg("a-plot", draw, title="<b>")
        assert matplotlib.rcParams["lines.linewidth"] == 40
    assert content == markup.svg("a-plot", draw, title="<b>")
    assert '<title id="a-plot-title">&lt;b&gt;</title>' in content
    assert "var(--series-3)" in content
    assert "&lt;script&gt;$\\bad" in content
