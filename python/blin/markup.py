"""Pages that need nothing but themselves: no network, no scripts, plots drawn into the HTML.

Tables are in Markdown, too, where they are to be pasted elsewhere. What a page is given decides its
bytes (with the same version of matplotlib): it holds no dates of its own. Colours are CSS
variables, in the plots, too, so that one page suits light, dark and paper.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blin.errors import BlinError, ConfigError
from blin.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, LINE, TRAIN, VALID, TEST = "#010101", "#020202", "#030303", "#040404", "#050505"
"""What plots are drawn in: text, lines around, and the three parts of a dataset."""

SERIES = tuple(f"#0606{number:02x}" for number in range(8))
"""What plots of many things are drawn in, one after the other."""

_VARIABLES = {
    INK: "var(--ink)",
    LINE: "var(--line)",
    TRAIN: "var(--train)",
    VALID: "var(--valid)",
    TEST: "var(--test)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}

_LIGHT = (
    "--train: #2f6f9f; --valid: #c98a1b; --test: #b4413c; --series-0: #1f6fb2; "
    "--series-1: #b4413c; --series-2: #2e7d32; --series-3: #8a5a00; --series-4: #7b3fa0; "
    "--series-5: #00796b; --series-6: #c2185b; --series-7: #5d6166;"
)
_DARK = (
    "--train: #6cb0e0; --valid: #e3b341; --test: #ef7d76; --series-0: #6cb0e0; "
    "--series-1: #ef7d76; --series-2: #7bc67f; --series-3: #e3b341; --series-4: #c49be6; "
    "--series-5: #4dc3b4; --series-6: #f48fb1; --series-7: #b0b7be;"
)
_STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #15181c; --ink: #e6e9ed; --soft: #9aa4af;
  --line: #3a424b; {_DARK} }} }}
@media print {{ :root {{ color-scheme: light; --paper: #fff; --ink: #000; --soft: #444;
  --line: #bbb; {_LIGHT} }} }}
body {{ margin: 0 auto; padding: 1.5rem 1rem; max-width: 64rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1, h2, h3 {{ line-height: 1.2; break-after: avoid; }} h2 {{ margin-top: 2rem; font-size: 1.2rem; }}
h3 {{ margin-top: 1.5rem; font-size: 1rem; }}
a {{ color: inherit; }}
.soft, figcaption, caption, dd span, td small {{ color: var(--soft); }}
dl {{ display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; margin: 0; }}
dt, dd {{ margin: 0; padding: .5rem 1rem .5rem 0; border-top: 1px solid var(--line); }}
dd b {{ margin-right: .5rem; font-variant-numeric: tabular-nums; }}
.plots {{ display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }}
figure {{ margin: 0; break-inside: avoid; }} figcaption {{ font-size: .9rem; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-family: inherit !important; }}
.scroll {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: separate; border-spacing: 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }}
caption {{ text-align: left; padding-bottom: .4rem; }}
caption span {{ position: sticky; left: 0; display: inline-block;
  max-width: min(100%, 62rem, 100vw - 2rem); }}
th, td {{ padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); text-align: left;
  vertical-align: top; }}
th.number, td.number {{ text-align: right; }} td.number, tbody th {{ white-space: nowrap; }}
td.text {{ min-width: 12rem; }} td code {{ overflow-wrap: anywhere; }}
td small {{ display: block; font-size: .88em; }}
tbody th {{ position: sticky; left: 0; background: var(--paper); }}
.swatch {{ display: inline-block; width: 1.8rem; height: .5rem; margin-right: .4rem;
  print-color-adjust: exact; }}
@media (max-width: 34rem) {{ dl {{ display: block; }} dd {{ border: 0; padding-top: 0; }} }}
@media print {{ body {{ max-width: none; padding: 0; font-size: 9pt; }}
  h1 {{ font-size: 16pt; }} h2 {{ font-size: 12pt; }} h3, figcaption {{ font-size: 9pt; }}
  .scroll {{ overflow: visible; }} table {{ font-size: 7.5pt; overflow-wrap: anywhere; }}
  th, td {{ padding-right: .4rem; }} td.text {{ min-width: 0; }} tr {{ break-inside: avoid; }}
  td.number, tbody th {{ white-space: normal; }} .plots {{ grid-template-columns: 1fr 1fr; }}
  thead {{ display: table-header-group; }} nav {{ display: none; }} }}
"""


def check(path: Path | None) -> None:
    """Makes sure, before there is work that could be in vain, that a page can be written.

    Args:
        path: Where to; None for a place that blin knows to be there.

    Raises:
        ConfigError: The name is not one of a page, or its directory is not there.
        BlinError: matplotlib is not installed.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        # An option whose value is optional would otherwise take, and replace, the log.
        raise ConfigError(f'report: expected a name that ends in .html, found "{path}"')
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f'report: expected a directory that is there, found "{path.parent}"')
    require_matplotlib()


def require_matplotlib() -> None:
    """Raises BlinError, with the command that mends it, unless plots can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BlinError("the plots need matplotlib: pip install 'blin-rec[plot]'")


def write(content: str, path: Path) -> Path:
    """Writes a page, in place of an older one, and returns its path."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


def document(title: str, body: str) -> str:
    """Returns a page of a title, which is escaped, and a body, which is HTML."""
    title = escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def markdown_row(cells: Iterable[str]) -> str:
    """Returns a line of a Markdown table, whatever its cells hold."""
    escaped = [re.sub(r"([|\\])", r"\\\1", " ".join(cell.split())) for cell in cells]
    return f"| {' | '.join(escaped)} |"


def points(sentences: Iterable[str]) -> str:
    """Returns a list of sentences, each without its full stop and beginning in lower case."""
    lines = "\n".join(f"<li>{escape(text[0].upper() + text[1:])}.</li>" for text in sentences)
    return f"<ul>\n{lines}\n</ul>"


def definitions(facts: Iterable[tuple[str, str, str]]) -> str:
    """Returns a list of names, each with a value and what the value means."""
    lines = "\n".join(
        f"<dt>{escape(name)}</dt><dd><b>{escape(value)}</b> <span>{escape(meaning)}</span></dd>"
        for name, value, meaning in facts
    )
    return f"<dl>\n{lines}\n</dl>"


def swatch(series: int) -> str:
    """Returns the colour of a series, for beside its name."""
    variable = _VARIABLES[SERIES[series % len(SERIES)]]
    return f'<span class="swatch" style="background:{variable}"></span>'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    numbers: frozenset[int] = frozenset(),
    texts: frozenset[int] = frozenset(),
) -> str:
    """Returns a table that scrolls by itself where it is wider than the page.

    Args:
        columns: their names, which are escaped.
        rows: of cells, which are HTML; the first cell of a row names it.
        caption: what it shows; escaped.
        numbers: which columns are of numbers, and right-aligned.
        texts: which columns are of sentences, and never very narrow.
    """

    def kind(place: int) -> str:
        if place in numbers:
            return ' class="number"'
        return ' class="text"' if place in texts else ""

    head = "".join(
        f'<th scope="col"{kind(place)}>{escape(name)}</th>' for place, name in enumerate(columns)
    )
    body = "\n".join(
        f'<tr><th scope="row"{kind(0)}>{first}</th>'
        + "".join(f"<td{kind(place)}>{cell}</td>" for place, cell in enumerate(rest, 1))
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n<table>\n'
        f"<caption><span>{escape(caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def figure(
    name: str,
    draw: Callable[[Axes], None],
    *,
    title: str,
    caption: str,
    height: float = 2.8,
) -> str:
    """Returns a plot with its caption.

    Args:
        name: of letters, digits and hyphens, no other figure's of the page.
        draw: draws into axes, in the colours of this module.
        title: what the plot shows, for whoever does not see it.
        caption: what stands below it.
        height: in inches; it is 4.6 wide.
    """
    plot = svg(name, draw, title=title, height=height)
    return f"<figure>\n{plot}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def svg(name: str, draw: Callable[[Axes], None], *, title: str, height: float = 2.8) -> str:
    """Draws a plot and returns it as an element whose ids begin with its name."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.5,
        "timezone": "UTC",
        **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), LINE),
    }
    with matplotlib.rc_context():
        # Whatever the user's own settings are.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        drawn = Figure(figsize=(4.6, height), layout="constrained")
        FigureCanvasSVG(drawn)
        draw(drawn.add_subplot())
        file = io.StringIO()
        drawn.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    content = file.getvalue()
    content = content[content.index("<svg") :]
    content = re.sub(r"\s*<metadata>.*?</metadata>", "", content, flags=re.DOTALL)
    content = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", content)
    for colour, variable in _VARIABLES.items():
        content = content.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', content)
    assert box is not None
    begin = (
        f'<svg {box[0]} role="img" aria-labelledby="{name}-title">\n'
        f'<title id="{name}-title">{escape(title)}</title>'
    )
    return (begin + content[content.index(">") + 1 :]).strip()
