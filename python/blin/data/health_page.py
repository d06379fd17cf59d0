"""A dataset's health as one HTML page that needs nothing but itself.

The page is a function of ``dataset.json`` alone: the same dataset gives the same bytes (with the
same version of matplotlib).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blin import markup
from blin.data.health import percent, warnings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PARTS = {"train": markup.TRAIN, "valid": markup.VALID, "test": markup.TEST}
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def write(metadata: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the page of a dataset, in place of an older one, and returns its path."""
    return markup.write(page(metadata), Path(path))


def page(metadata: Mapping[str, Any]) -> str:
    """Returns the page for the content of a ``dataset.json`` that has ``health``."""
    body = f"""<p>{summary(metadata)}</p>
<h2>What to know first</h2>
{remarks(metadata)}
<h2>Figures</h2>
{figures(metadata)}
<h2>Plots</h2>
{plots(metadata)}
<p class="soft">{escape(_origin(metadata))}</p>"""
    return markup.document(f"{metadata['name']}: data health", body)


def summary(metadata: Mapping[str, Any]) -> str:
    """Returns in a sentence, as HTML, how large the dataset is and how it is split."""
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


def remarks(metadata: Mapping[str, Any]) -> str:
    """Returns what has consequences."""
    found = warnings(metadata)
    return markup.points(found) if found else "<p>Nothing stands out.</p>"


def figures(metadata: Mapping[str, Any]) -> str:
    """Returns all that is known of the dataset before training, explained."""
    return markup.definitions(_figures(metadata["health"]))


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


def plots(metadata: Mapping[str, Any], *, prefix: str = "") -> str:
    """Returns the plots.

    Args:
        metadata: with ``health``.
        prefix: what their names begin with on a page of several datasets.
    """
    health, time = metadata["health"], metadata["time"]
    found: list[tuple[str, str, Callable[[Axes], None], str]] = [
        (
            "length",
            "Users by the length of their sequence",
            lambda axes: _draw_lengths(axes, health["sequence_length"]["histogram"]),
            "How many users have sequences of which length. Bars get wider with the length.",
        ),
        (
            "popularity",
            "Interactions of each item by its rank",
            lambda axes: _draw_ranks(axes, health["item_popularity"]["rank_curve"]),
            "The interactions of each item, from the most popular to the least; both axes are "
            "logarithmic.",
        ),
    ]
    if health["over_time"] is not None:
        found += [
            (
                "time",
                "Interactions over time, by what they serve for",
                lambda axes: _draw_periods(axes, health["over_time"], time["unit"]),
                "When the interactions took place, and what they serve for. Test items to the left "
                "of training interactions mean that a model sees the future.",
            ),
            (
                "leakage",
                "Share of each part that is still to come, over time",
                lambda axes: _draw_future(axes, health["over_time"], time["unit"]),
                "How much of each part is still to come. In a split without leakage training has "
                "ended before the test begins.",
            ),
        ]
    drawn = "\n".join(
        markup.figure(prefix + name, draw, title=title, caption=caption)
        for name, title, draw, caption in found
    )
    return f'<div class="plots">\n{drawn}\n</div>'


def _draw_lengths(axes: Axes, histogram: Sequence[Sequence[int]]) -> None:
    edges = [(first, last + 1) for first, last, _ in histogram]
    axes.bar(
        [start for start, _ in edges],
        [users for *_, users in histogram],
        [end - start for start, end in edges],
        align="edge",
        color=markup.TRAIN,
    )
    axes.set_xscale("log")
    axes.set(xlabel="interactions", ylabel="users")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_ranks(axes: Axes, curve: Sequence[Sequence[int]]) -> None:
    ranks, counts = zip(*curve, strict=True)
    axes.plot(ranks, counts, color=markup.TRAIN, marker=".")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="rank of the item", ylabel="interactions")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_periods(axes: Axes, over_time: Mapping[str, Any], unit: str) -> None:
    edges = _moments(over_time, unit)
    below = [0] * (len(edges) - 1)
    for part, colour in _PARTS.items():
        heights = [a + b for a, b in zip(below, over_time[part], strict=True)]
        axes.stairs(heights, edges, baseline=below, fill=True, color=colour, label=part)
        below = heights
    axes.set(ylabel="interactions")
    _space_dates(axes, edges)
    axes.legend(frameon=False)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_future(axes: Axes, over_time: Mapping[str, Any], unit: str) -> None:
    edges = _moments(over_time, unit)
    for part, colour in _PARTS.items():
        total = sum(over_time[part])
        left = [sum(over_time[part][period:]) for period in range(len(edges))]
        if total:
            axes.plot(edges, [100 * count / total for count in left], color=colour, label=part)
    axes.set(ylabel="still to come, %")
    _space_dates(axes, edges)
    axes.legend(frameon=False)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _space_dates(axes: Axes, moments: Sequence[Any]) -> None:
    """Keeps the dates below the axes, if they are dates, from running into each other."""
    from matplotlib.dates import AutoDateLocator

    if isinstance(moments[0], datetime):
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6))  # type: ignore[no-untyped-call]


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
