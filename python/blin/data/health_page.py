"""A dataset's health as one HTML page that needs nothing but itself: no network, no scripts.

The page is a function of ``dataset.json`` alone: the same dataset gives the same bytes (with the
same version of matplotlib). Colours are CSS variables, in the plots, too, so that one page suits
light, dark and paper.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blin.data.health import percent, warnings
from blin.errors import BlinError, ConfigError
from blin.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What matplotlib draws in, and the CSS variable that takes its place.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030303": "var(--train)",
    "#040404": "var(--valid)",
    "#050505": "var(--test)",
}
_INK, _LINE, _TRAIN, _VALID, _TEST = _COLOURS
_PARTS = {"train": _TRAIN, "valid": _VALID, "test": _TEST}
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --train: #2f6f9f; --valid: #c98a1b; --test: #b4413c; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e9ed; --soft: #9aa4af;
  --line: #3a424b; --train: #6cb0e0; --valid: #e3b341; --test: #ef7d76; } }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444;
  --line: #bbb; --train: #2f6f9f; --valid: #c98a1b; --test: #b4413c; } }
body { margin: 0 auto; padding: 1.5rem 1rem; max-width: 64rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2rem; font-size: 1.2rem; }
.soft, figcaption, dd span { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; margin: 0; }
dt, dd { margin: 0; padding: .5rem 1rem .5rem 0; border-top: 1px solid var(--line); }
dd b { margin-right: .5rem; font-variant-numeric: tabular-nums; }
.plots { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; break-inside: avoid; } figcaption { font-size: .9rem; }
svg { display: block; width: 100%; height: auto; } svg text { font-family: inherit !important; }
@media (max-width: 34rem) { dl { display: block; } dd { border: 0; padding-top: 0; } }
"""


def check(path: Path | None) -> None:
    """Makes sure, before there is work that could be in vain, that a page can be written.

    Args:
        path: Where to; None for the dataset's own directory.

    Raises:
        ConfigError: The name is not one of a page, or its directory is not there.
        BlinError: matplotlib is not installed.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        # An option whose value is optional would otherwise take, and replace, the log.
        raise ConfigError(f'report: expected a name that ends in .html, found "{path}"')
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f'report: expected a directory that is there, found "{path.parent}"')
    if importlib.util.find_spec("matplotlib") is None:
        raise BlinError("the plots need matplotlib: pip install 'blin-rec[plot]'")


def write(metadata: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the page of a dataset, in place of an older one, and returns its path."""
    path, content = Path(path), page(metadata)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return path


def page(metadata: Mapping[str, Any]) -> str:
    """Returns the page for the content of a ``dataset.json`` that has ``health``."""
    name = escape(str(metadata["name"]))
    remarks = warnings(metadata)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: data health</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{name}: data health</h1>
<p>{_summary(metadata)}</p>
<h2>What to know first</h2>
{_list(remarks) if remarks else "<p>Nothing stands out.</p>"}
<h2>Figures</h2>
<dl>
{_definitions(_figures(metadata["health"]))}
</dl>
<h2>Plots</h2>
<div class="plots">
{_plots(metadata)}
</div>
<p class="soft">{escape(_origin(metadata))}</p>
</body>
</html>
"""


def _summary(metadata: Mapping[str, Any]) -> str:
    split, time = metadata["split"], metadata["time"]
    parts = ", ".join(f"{split[part]:,} {part}" for part in ("train", "valid", "test"))
    text = (
        f"{metadata['users']:,} users, {metadata['items']:,} items, "
        f"{metadata['interactions']:,} interactions; {split['rule']} split: {parts}"
    )
    if time is not None:
        ends = (str(time[f"{end}_date"] or time[end]) for end in ("first", "last"))
        text += f"; from {' to '.join(ends)}"
    return escape(text + ".")


def _origin(metadata: Mapping[str, Any]) -> str:
    files = [source["file"] for source in metadata["sources"]]
    log = f"Prepared from {', '.join(files[:3])}" if files else "Prepared from a table"
    more = f" and {len(files) - 3} more files" if len(files) > 3 else ""
    return f"{log}{more} by blin {metadata['blin_version']}; {metadata['fingerprint']}"


def _list(sentences: Iterable[str]) -> str:
    points = "\n".join(f"<li>{escape(_sentence(text))}</li>" for text in sentences)
    return f"<ul>\n{points}\n</ul>"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _definitions(figures: Iterable[tuple[str, str, str]]) -> str:
    return "\n".join(
        f"<dt>{escape(name)}</dt><dd><b>{escape(value)}</b> <span>{escape(meaning)}</span></dd>"
        for name, value, meaning in figures
    )


def _figures(health: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Yields each figure's name, its value and what it means, in a sentence."""
    ties, baseline = health["ties"], health["popularity_baseline"]
    lengths, popularity = health["sequence_length"], health["item_popularity"]
    unknown = "unknown"
    yield (
        "Repeats",
        percent(health["repeats_share"]),
        f"{health['repeats']:,} interactions are with an item that the user had before.",
    )
    yield (
        "Ties",
        unknown if ties is None else percent(ties["neighbours_share"]),
        "Neighbours in a user's sequence with the same time: the order of the log decides.",
    )
    yield (
        "Tied at the end",
        unknown if ties is None else percent(ties["users_last_two_share"]),
        "Users whose last two interactions have the same time: the order of the log decides "
        "which one is last.",
    )
    for part in ("valid", "test"):
        targets = health[part]
        yield (
            f"Leakage ({part})",
            unknown if targets["leaking"] is None else percent(targets["leaking_share"]),
            f"Of {targets['count']:,} {part} items, those that are older than the newest training "
            "interaction of another user: the model learns from what comes after them.",
        )
        yield (
            f"Still to come ({part})",
            unknown if targets["leaking"] is None else percent(targets["newer_training_share"]),
            f"Training interactions that are newer than a {part} item, on average (at least).",
        )
        yield (
            f"Cold ({part})",
            percent(targets["cold_share"]),
            f"Of the {part} items, those that occur in nobody's training part.",
        )
    for metric, value in (baseline or {}).items():
        yield (
            f"Baseline {metric}",
            f"{value:.4f}",
            "What recommending the most popular items reaches on the test items; a model that "
            "does worse has learned nothing of use.",
        )
    for name, numbers, of in (
        ("Length", lengths, "interactions per user"),
        ("Popularity", popularity, "interactions per item"),
    ):
        yield (
            name,
            f"{numbers['median']:,}",
            f"The median of {of}; {numbers['p5']:,} to {numbers['p95']:,} for nine in ten, "
            f"{numbers['min']:,} to {numbers['max']:,} for all, {numbers['mean']:,.1f} on average.",
        )
    yield (
        "Top 1% / 10%",
        " / ".join(percent(popularity[f"top_{top}_percent_share"]) for top in (1, 10)),
        "The share of the interactions that goes to the most popular 1% and 10% of the items.",
    )
    yield (
        "Gini",
        f"{popularity['gini']:.2f}",
        "How unevenly the items are liked: 0 means all alike, 1 means one item has it all.",
    )


def _plots(metadata: Mapping[str, Any]) -> str:
    health, time = metadata["health"], metadata["time"]
    plots: list[tuple[str, Callable[[Axes], None], str]] = [
        (
            "length",
            lambda axes: _draw_lengths(axes, health["sequence_length"]["histogram"]),
            "How many users have sequences of which length. Bars get wider with the length.",
        ),
        (
            "popularity",
            lambda axes: _draw_ranks(axes, health["item_popularity"]["rank_curve"]),
            "The interactions of each item, from the most popular to the least; both axes are "
            "logarithmic.",
        ),
    ]
    if health["over_time"] is not None:
        plots += [
            (
                "time",
                lambda axes: _draw_periods(axes, health["over_time"], time["unit"]),
                "When the interactions took place, and what they serve for. Test items to the left "
                "of training interactions mean that a model sees the future.",
            ),
            (
                "leakage",
                lambda axes: _draw_future(axes, health["over_time"], time["unit"]),
                "How much of each part is still to come. In a split without leakage training has "
                "ended before the test begins.",
            ),
        ]
    return "\n".join(
        f"<figure>\n{_svg(name, draw)}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"
        for name, draw, caption in plots
    )


def _draw_lengths(axes: Axes, histogram: Sequence[Sequence[int]]) -> None:
    edges = [(first, last + 1) for first, last, _ in histogram]
    axes.bar(
        [start for start, _ in edges],
        [users for *_, users in histogram],
        [end - start for start, end in edges],
        align="edge",
        color=_TRAIN,
    )
    axes.set_xscale("log")
    axes.set(xlabel="interactions", ylabel="users")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_ranks(axes: Axes, curve: Sequence[Sequence[int]]) -> None:
    ranks, counts = zip(*curve, strict=True)
    axes.plot(ranks, counts, color=_TRAIN, marker=".")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="rank of the item", ylabel="interactions")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_periods(axes: Axes, over_time: Mapping[str, Any], unit: str) -> None:
    edges = _moments(over_time, unit)
    below = [0] * (len(edges) - 1)
    for part, colour in _PARTS.items():
        heights = [a + b for a, b in zip(below, over_time[part], strict=True)]
        axes.stairs(heights, edges, baseline=below, fill=True, color=colour, label=part)
        below = heights
    axes.set(ylabel="interactions")
    axes.legend(frameon=False)


def _draw_future(axes: Axes, over_time: Mapping[str, Any], unit: str) -> None:
    edges = _moments(over_time, unit)
    for part, colour in _PARTS.items():
        total = sum(over_time[part])
        left = [sum(over_time[part][period:]) for period in range(len(edges))]
        if total:
            axes.plot(edges, [100 * count / total for count in left], color=colour, label=part)
    axes.set(ylabel="still to come, %")
    axes.legend(frameon=False)


def _moments(over_time: Mapping[str, Any], unit: str) -> list[Any]:
    """Returns the ends of all periods as dates, or as numbers if they are none."""
    first, width = over_time["first"], over_time["width"]
    moments = [first + width * period for period in range(len(over_time["train"]) + 1)]
    if unit not in _UNITS:
        return moments
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        return [epoch + timedelta(seconds=moment / _UNITS[unit]) for moment in moments]
    except OverflowError:
        return moments


def _svg(name: str, draw: Callable[[Axes], None]) -> str:
    """Draws a plot and returns it as an element whose ids begin with its name."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.5,
        "timezone": "UTC",
        **dict.fromkeys(("text.color", "axes.labelcolor"), _INK),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), _INK),
        **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), _LINE),
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.6, 2.8), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        file = io.StringIO()
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        rf'<svg \1 role="img" aria-label="{name}">',
        svg,
        count=1,
    )
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
