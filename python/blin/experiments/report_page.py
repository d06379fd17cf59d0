"""Runs as one HTML page: tables, curves, costs, groups, data health and passports.

What comes from a run, a dataset or a log is escaped; plots hold the letters of runs and the names
of metrics and groups only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from blin import markup
from blin.data import health_page
from blin.experiments.points import text_of
from blin.experiments.report import (
    AGREEMENT,
    LEVEL,
    DatasetReport,
    Epoch,
    ReportedRun,
    Sweep,
    Table,
    seeds_of,
    sweeps_of,
)
from blin.experiments.seeds import CONFIDENCE, Interval, interval_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[ReportedRun, list[float], list[float]]
"""A run with the x and the y of its points."""

PASSPORT = ("blin", "torch", "numpy", "python", "device", "threads", "platform")
"""What a sitting is trained by, so that its numbers may differ from those of another."""

_DASHES = ("-", "--", "-.", ":")
_METRICS = ("NDCG@10", "HR@10")
_KINDS = {
    "history": ("Length of the history", "items that the user had before the target"),
    "popularity": ("Popularity of the target", "training interactions of the target; 0 is cold"),
    "repeats": ("New items and repeats", "whether the user had the target before"),
}
_LOSS = ("loss", "num_negatives", "negatives_per", "sampling", "log_q", "calibration")
"""The settings that say what a value of the loss means."""


def page(reports: Sequence[DatasetReport]) -> str:
    """Returns the page of one dataset or several, each with its runs."""
    names = list(dict.fromkeys(report.name for report in reports))
    body = "\n".join(
        _dataset(report, f"d{place}" if len(reports) > 1 else "")
        for place, report in enumerate(reports, 1)
    )
    return markup.document(f"Runs on {', '.join(names)}", body)


def _dataset(report: DatasetReport, prefix: str) -> str:
    """Returns all of a dataset; its ids begin with the prefix."""
    sections = [
        ("runs", "Runs", _runs(report)),
        ("metrics", "Metrics", _metrics(report)),
        ("curves", "Learning curves", _curves(report, prefix)),
        ("agreement", "Weight of the agreement (λ)", _agreement(report, prefix)),
        ("cost", "Cost", _cost(report, prefix)),
        ("groups", "Groups of users and items", _groups(report, prefix)),
        ("data", "Data health", _health(report, prefix)),
        ("passports", "Passports", _passports(report)),
    ]
    shown = [(prefix + name, title, content) for name, title, content in sections if content]
    links = " · ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in shown)
    heading = f"<h2>{escape(report.name)}</h2>\n" if prefix else ""
    return "\n".join(
        [
            f"{heading}<p>{_summary(report)}</p>\n<nav>{links}</nav>",
            *(
                f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'
                for name, title, content in shown
            ),
        ]
    )


def _summary(report: DatasetReport) -> str:
    models = ", ".join(dict.fromkeys(run.label for run in report.runs))
    runs = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    text = f"{runs} of {models} on {report.name}."
    size = "" if report.metadata is None else f" {health_page.summary(report.metadata)}"
    return escape(text) + size


def _runs(report: DatasetReport) -> str:
    rows = [
        (
            _name(run),
            escape(run.label),
            escape(report.differences[run.letter] or "–"),
            escape(str(run.settings.get("seed", "–"))),
            f"{run.epochs or '–'}",
            f"{run.best_epoch or '–'}",
            escape(run.name),
        )
        for run in report.runs
    ]
    return markup.table(
        ("run", "model", "settings", "seed", "epochs", "best", "directory"),
        rows,
        caption="What each run is called below, the settings that are not the defaults of its "
        "model (without those in which all runs are alike), and the epoch that did best on the "
        "validation items.",
        numbers=frozenset({3, 4, 5}),
        texts=frozenset({2, 6}),
    )


def _metrics(report: DatasetReport) -> str:
    if not report.tables:
        return "<p>No run has been evaluated.</p>"
    return "\n".join(_metric_table(report, table) for table in report.tables)


def _metric_table(report: DatasetReport, table: Table) -> str:
    metrics = table.metrics
    rows = [
        (
            _name(run),
            escape(_label(report, run)),
            *(
                _value(
                    found.metrics.get(metric),
                    found.intervals.get(metric),
                    best=table.best.get(metric) == run.letter,
                )
                for metric in metrics
            ),
        )
        for run, found in table.rows
    ]
    parts = [
        f"<h3>{escape(_title(report, table))}</h3>",
        markup.table(
            ("run", "", *map(_breakable, metrics)),
            rows,
            caption=f"{_count(table.protocol.get('users'))} users. Below each value its 95 % "
            "interval over users.",
            numbers=frozenset(range(2, 2 + len(metrics))),
            texts=frozenset({1}),
        ),
        f"<p>{escape(_marking(table))}</p>",
    ]
    groups = seeds_of(table)
    if any(len(group.runs) > 1 for group in groups):
        parts.append(
            markup.table(
                ("runs", "", "seeds", *map(_breakable, metrics)),
                [
                    (
                        escape(", ".join(run.letter for run in group.runs)),
                        escape(_label(report, group.runs[0], seed=False)),
                        str(group.seeds),
                        *(_interval(group.intervals.get(metric)) for metric in metrics),
                    )
                    for group in groups
                ],
                caption=f"Runs that differ in their seed alone. {interval_note(CONFIDENCE)}.",
                numbers=frozenset(range(2, 3 + len(metrics))),
                texts=frozenset({1}),
            )
        )
    return "\n".join(parts)


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else "?"


def _breakable(metric: str) -> str:
    """Returns the name of a metric with a place to break the line at, if it is a long one."""
    return metric.replace("[", " [")


def _marking(table: Table) -> str:
    """Returns what a mark means, or why there is none."""
    if len(table.rows) < 2:
        return "One run alone is compared with nothing."
    if table.untested is not None:
        return f"Nothing is marked, for nothing could be tested: {table.untested}"
    rule = (
        "is better than each other run of its table by more than chance: paired permutation "
        f"tests over users, p at most {LEVEL} after Holm's correction. The tests know nothing of "
        "other seeds."
    )
    if not table.best:
        return f"No value is marked: no run {rule}"
    return f"★ marks a run that {rule}"


def _value(value: float | None, interval: tuple[float, float] | None, *, best: bool) -> str:
    if value is None:
        return "–"
    shown = f"<strong>★ {value:.4f}</strong>" if best else f"{value:.4f}"
    if interval is None:
        return shown
    return f"{shown}<small>{interval[0]:.4f}–{interval[1]:.4f}</small>"


def _interval(found: Interval | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:.4f}" + (
        "" if found.half is None else f"<small>± {found.half:.4f}</small>"
    )


def _curves(report: DatasetReport, prefix: str) -> str:
    runs = [run for run in report.runs if run.epochs > 0]
    plots: list[str] = []
    for number, alike in enumerate(_alike(runs)):
        for part in dict.fromkeys(name for run in alike for name in run.history[0].losses):
            if "@" in part:  # the hit rate of a copy
                continue
            lines = [
                line for run in alike if (line := _line(run, lambda epoch: epoch.losses, part))
            ]
            of = ", ".join(_settings(alike[0], _LOSS))
            plots.append(
                _lines_figure(
                    f"{prefix}loss{number}-{len(plots)}",
                    lines,
                    title=f"Training loss ({part}) by epoch",
                    caption=f"Training loss, {part}, by epoch; {_letters(alike)}"
                    + (f" ({of})." if of else ".")
                    + " Losses of other kinds are not drawn together.",
                    ylabel=f"{part} loss",
                )
            )
    for metric in _METRICS:
        found = [line for run in runs if (line := _line(run, lambda epoch: epoch.valid, metric))]
        if found:
            plots.append(
                _lines_figure(
                    f"{prefix}valid-{len(plots)}",
                    found,
                    title=f"Validation {metric} by epoch",
                    caption=f"{metric} of the validation items by epoch. A dot is the best epoch, "
                    "whose model was kept.",
                    ylabel=metric,
                    dots={run.letter: run.best_epoch for run, *_ in found},
                )
            )
    return _plots(plots)


def _alike(runs: Iterable[ReportedRun]) -> list[list[ReportedRun]]:
    """Returns the runs by what their losses mean."""
    found: dict[tuple[str, ...], list[ReportedRun]] = {}
    for run in runs:
        found.setdefault(tuple(_settings(run, _LOSS)), []).append(run)
    return list(found.values())


def _line(
    run: ReportedRun, values: Callable[[Epoch], Mapping[str, float]], name: str
) -> Line | None:
    known = [epoch for epoch in run.history if name in values(epoch)]
    if not known:
        return None
    return run, [float(epoch.number) for epoch in known], [values(e)[name] for e in known]


def _agreement(report: DatasetReport, prefix: str) -> str:
    plots: list[str] = []
    for table in report.tables:
        for metric in _METRICS:
            for sweep in sweeps_of(table, metric):
                plots.append(
                    markup.figure(
                        f"{prefix}agreement-{len(plots)}",
                        _sweep_drawer(sweep),
                        title=f"{sweep.metric} by the weight of the agreement, λ",
                        caption=f"{sweep.metric} ({_title(report, table)}) by λ, the setting "
                        f"{AGREEMENT}; {_letters(sweep.runs)} differ in it alone, or in their "
                        "seed: a dot is a seed, the line goes through their means.",
                    )
                )
    return _plots(plots)


def _sweep_drawer(sweep: Sweep) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        weights = list(sweep.values)
        means = [sum(values) / len(values) for values in sweep.values.values()]
        axes.plot(weights, means, color=markup.SERIES[0])
        for weight, values in sweep.values.items():
            axes.plot([weight] * len(values), values, "o", color=markup.SERIES[0], markersize=4)
        axes.set(xlabel="λ", ylabel=sweep.metric)

    return draw


def _cost(report: DatasetReport, prefix: str) -> str:
    rows = [
        (
            _name(run),
            escape(_label(report, run)),
            _number(run.parameters or None, ",.0f"),
            f"{run.epochs or '–'}",
            _number(run.seconds_per_epoch, ",.1f"),
            _number(run.seconds, ",.1f"),
            escape(", ".join(run.trained_by("device"))),
            escape(", ".join(run.trained_by("threads"))),
        )
        for run in report.runs
    ]
    measures: list[tuple[str, str, Callable[[ReportedRun], float | None]]] = [
        ("epoch", "Seconds per epoch, its validation included", lambda run: run.seconds_per_epoch),
        ("seconds", "Seconds of the whole training", lambda run: run.seconds),
        ("parameters", "Numbers that the model learns", lambda run: run.parameters or None),
    ]
    plots = []
    for name, title, measure in measures:
        bars = [(run, value) for run in report.runs if (value := measure(run)) is not None]
        if bars:
            plots.append(
                markup.figure(
                    f"{prefix}cost-{name}",
                    _bar_drawer(bars),
                    title=f"{title}, by run",
                    caption=f"{title}.",
                    height=0.9 + 0.22 * len(bars),
                )
            )
    return "\n".join(
        [
            "<p>Seconds are as they were measured; what else the machine did is in them. Compare "
            "them only where device and threads are the same. Models that learn by counting have "
            "neither epochs nor parameters.</p>",
            _plots(plots),
            markup.table(
                (
                    *("run", "", "parameters", "epochs", "seconds per epoch", "seconds"),
                    *("device", "threads"),
                ),
                rows,
                caption="What each training took.",
                numbers=frozenset({2, 3, 4, 5, 7}),
                texts=frozenset({1}),
            ),
        ]
    )


def _bar_drawer(bars: Sequence[tuple[ReportedRun, float]]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        places = range(len(bars))
        values = [value for _, value in bars]
        drawn = axes.barh(places, values, color=markup.TRAIN, height=0.65)
        axes.bar_label(drawn, [f"{v:,.0f}" if v >= 100 else f"{v:,.1f}" for v in values], padding=3)
        axes.set_yticks(places, [run.letter for run, _ in bars])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter("{x:,.0f}" if max(values) >= 10 else "{x:,.1f}")
        axes.locator_params(axis="x", nbins=5)

    return draw


def _groups(report: DatasetReport, prefix: str) -> str:
    parts = []
    for number, table in enumerate(report.tables):
        metric = table.metric("NDCG@10") or next(iter(table.metrics), None)
        if metric is None:
            continue
        shown = [
            content
            for kind in _KINDS
            if (content := _group(table, kind, metric, f"{prefix}group{number}-{kind}"))
        ]
        if shown:
            plots, tables = zip(*shown, strict=True)
            parts += [f"<h3>{escape(_title(report, table))}</h3>", _plots(plots), *tables]
    return "\n".join(parts)


def _group(table: Table, kind: str, metric: str, figure: str) -> tuple[str, str] | None:
    """Returns the plot and the table of one kind of groups; None where there are not two."""
    rows = [(run, found.groups[kind]) for run, found in table.rows if found.groups.get(kind)]
    counts = {name: group["users"] for _, groups in rows for name, group in groups.items()}
    names = sorted(counts, key=_first_number)
    if len(names) < 2:
        return None
    title, meaning = _KINDS[kind]

    def value(groups: Mapping[str, Any], name: str) -> float | None:
        found: Mapping[str, float] = groups.get(name, {}).get("metrics", {})
        return found.get(metric)

    lines: list[Line] = []
    for run, groups in rows:
        known = {x: y for x, name in enumerate(names) if (y := value(groups, name)) is not None}
        if known:
            lines.append((run, [float(x) for x in known], list(known.values())))
    if not lines:
        return None
    shown = markup.table(
        (kind, "users", *(run.letter for run, _ in rows)),
        [
            (
                escape(name),
                f"{counts[name]:,}",
                *(_number(value(groups, name)) for _, groups in rows),
            )
            for name in names
        ],
        caption=f"{metric} by {title.lower()}: {meaning}. Groups of few users say little.",
        numbers=frozenset(range(1, 2 + len(rows))),
    )
    plot = _lines_figure(
        figure,
        lines,
        title=f"{metric} by {title.lower()}",
        caption=f"{metric} by {title.lower()}, and the users in each group.",
        ylabel=metric,
        places=[f"{name}\n{counts[name]:,}" for name in names],
    )
    return plot, shown


def _first_number(name: str) -> tuple[int, str]:
    digits = name.partition("-")[0].rstrip("+")
    return (int(digits) if digits.isdecimal() else 0, name)


def _health(report: DatasetReport, prefix: str) -> str:
    if report.metadata is None:
        return f"<p>{escape(f'The dataset cannot be shown: {report.missing}')}</p>"
    return "\n".join(
        (
            health_page.remarks(report.metadata),
            health_page.figures(report.metadata),
            "<h3>Plots</h3>",
            health_page.plots(report.metadata, prefix=f"{prefix}data-"),
        )
    )


def _passports(report: DatasetReport) -> str:
    protocols = [table.protocol for table in report.tables]
    keys = list(dict.fromkeys(key for protocol in protocols for key in protocol))
    parts = [
        "<h3>What measured them</h3>",
        markup.table(
            ("", *(_title(report, table) for table in report.tables)),
            [
                ("runs", *(", ".join(run.letter for run, _ in t.rows) for t in report.tables)),
                *(
                    (escape(key), *(escape(str(each.get(key, "–"))) for each in protocols))
                    for key in keys
                ),
            ],
            caption="The protocol of each table of metrics.",
            texts=frozenset(range(1, 1 + len(protocols))),
        ),
    ]
    columns = (*PASSPORT, "started")
    parts += [
        "<h3>What trained them</h3>",
        markup.table(
            ("run", *columns, "sequences"),
            [
                (
                    _name(run) + escape(since),
                    *(escape(str(sitting.get(name, "unknown"))) for name in columns),
                    escape(str(run.config["fingerprint"])),
                )
                for run in report.runs
                for since, sitting in _unlike_sittings(run)
            ],
            caption="Versions, machine and sequences of each training; where a run went on by "
            "others, they have a row of their own.",
            texts=frozenset({7}),
        ),
        "<h3>Commands</h3>",
        markup.table(
            ("run", "command"),
            [
                (run.letter, f"<code>{escape(command)}</code>")
                for run in report.runs
                for command in dict.fromkeys(map(_command, run.sittings))
            ],
            caption="What was typed, as far as it is known.",
            texts=frozenset({1}),
        ),
        "<h3>Settings</h3>",
        _setting_table(report),
    ]
    return "\n".join(parts)


def _setting_table(report: DatasetReport) -> str:
    names = list(dict.fromkeys(name for run in report.runs for name in run.settings))
    return markup.table(
        ("setting", *(run.letter for run in report.runs)),
        [
            (
                escape(name),
                *(escape(text_of(run.settings.get(name, "–"))) for run in report.runs),
            )
            for name in names
        ],
        caption="All settings of each run.",
    )


def _unlike_sittings(run: ReportedRun) -> list[tuple[str, dict[str, Any]]]:
    """Returns the first sitting of a run, and those by another passport than the one before.

    Each stands beside words that say when it began; there are none for the first.
    """
    found = [("", run.sittings[0])]
    for sitting in run.sittings[1:]:
        before = found[-1][1]
        if any(sitting.get(name) != before.get(name) for name in PASSPORT):
            epoch, step = sitting.get("epoch"), sitting.get("step")
            found.append((f" after epoch {epoch}" + (f", step {step}" if step else ""), sitting))
    return found


def _command(sitting: Mapping[str, Any]) -> str:
    command = sitting.get("command")
    if not isinstance(command, list) or not command:
        return "unknown"
    return " ".join(["blin", *map(str, command[1:])])


def _lines_figure(
    name: str,
    lines: Sequence[Line],
    *,
    title: str,
    caption: str,
    ylabel: str,
    places: Sequence[str] = (),
    dots: Mapping[str, int] | None = None,
) -> str:
    """Returns a figure of a line for each run, with the letter of the run at its end.

    Args:
        name: of the figure.
        lines: what to draw.
        title: for whoever does not see it.
        caption: below it.
        ylabel: of the y axis.
        places: what stands at x = 0, 1, …; x are epochs if it is empty.
        dots: letter → the x that is marked.
    """

    def draw(axes: Axes) -> None:
        for run, x, y in lines:
            colour, dash = _look(run)
            axes.plot(
                x, y, dash, color=colour, marker="o" if places else "", markersize=3, linewidth=1.3
            )
            best = (dots or {}).get(run.letter)
            if best in x:
                axes.plot([best], [y[x.index(best)]], "o", color=colour, markersize=4)
        if places:
            axes.set_xticks(range(len(places)), places)
        else:
            axes.set(xlabel="epoch")
            axes.locator_params(axis="x", integer=True)
        axes.set(ylabel=ylabel)
        _letter_ends(axes, lines)

    return markup.figure(
        name, draw, title=title, caption=caption, height=max(2.8, 0.8 + 0.14 * len(lines))
    )


def _letter_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Writes the letters of the lines right of the axes, at the heights of their ends or near."""
    low, high = axes.get_ylim()
    ends = sorted((y[-1], run.letter, _look(run)[0]) for run, _, y in lines)
    gap = min(0.055, 1.05 / len(ends))
    heights: list[float] = []
    for value, *_ in ends:
        height = (value - low) / ((high - low) or 1.0)
        heights.append(max(height, heights[-1] + gap) if heights else height)
    # What was pushed above the axes comes back down.
    top = 1.03
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], top)
        top = heights[place] - gap
    for height, (_, letter, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            letter,
            (1.01, height),
            xycoords="axes fraction",
            color=colour,
            fontsize=8,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _look(run: ReportedRun) -> tuple[str, str]:
    """Returns the colour and the dashes of a run's lines."""
    place = _place(run)
    turn, colour = divmod(place, len(markup.SERIES))
    return markup.SERIES[colour], _DASHES[turn % len(_DASHES)]


def _place(run: ReportedRun) -> int:
    return ord(run.letter[0]) - ord("A") + 26 * int(run.letter[1:] or 0)


def _name(run: ReportedRun) -> str:
    """Returns the letter of a run, as HTML, beside the colour of its lines."""
    return f"{markup.swatch(_place(run))}{run.letter}"


def _label(report: DatasetReport, run: ReportedRun, *, seed: bool = True) -> str:
    parts = [run.label, report.differences[run.letter]]
    if seed and "seed" in run.settings:
        parts.append(f"seed {run.settings['seed']}")
    return ", ".join(part for part in parts if part)


def _letters(runs: Sequence[ReportedRun]) -> str:
    letters = ", ".join(run.letter for run in runs)
    return f"run {letters}" if len(runs) == 1 else f"runs {letters}"


def _settings(run: ReportedRun, names: Iterable[str]) -> list[str]:
    return [f"{name} = {text_of(run.settings[name])}" for name in names if name in run.settings]


def _title(report: DatasetReport, table: Table) -> str:
    """Returns what a protocol is called in a heading: no two are called the same."""
    protocol = table.protocol
    named = ("split", "ranking", "history")
    alike = [
        each.protocol
        for each in report.tables
        if all(each.protocol.get(key) == protocol.get(key) for key in named)
    ]
    parts = [f"{str(protocol.get('split')).capitalize()} items, {protocol.get('ranking')} ranking"]
    if "history" in protocol:
        parts.append(f"history {protocol['history']}")
    for key in dict.fromkeys(key for each in alike for key in each):
        if any(each.get(key) != protocol.get(key) for each in alike):
            parts.append(f"{key} {protocol[key]}" if key in protocol else f"{key} not recorded")
    return ", ".join(parts)


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else f"{value:{form}}"


def _plots(plots: Sequence[str]) -> str:
    return '<div class="plots">\n' + "\n".join(plots) + "\n</div>" if plots else ""
