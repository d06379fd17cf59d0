"""``blin preprocess``: from a raw log to a prepared dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blin.cli import options
from blin.cli.lookup import catalogued, fetch_log
from blin.cli.output import Output, duration_of, format_of, size_of

if TYPE_CHECKING:
    from blin.data.prepare import PrepareReport


def _checked_report(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuses what cannot become a page, before anything is read."""
    if value is not None:
        from blin import markup

        markup.check(Path(value) if value else None)
    return value


@click.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the dataset.  [default: the log's name]")
@options.log_layout
@click.option("--min-rating", type=float, help="Leave out rows rated lower than this.")
@options.count(
    "--min-interactions",
    default=5,
    help="Keep users and items with at least this many interactions, repeatedly.",
)
@options.count(
    "--min-user-interactions",
    help="The same for users only.  [default: --min-interactions]",
)
@options.count(
    "--min-item-interactions",
    help="The same for items only.  [default: --min-interactions]",
)
@click.option(
    "--duplicates",
    type=click.Choice(["keep", "first", "last"]),
    default="keep",
    show_default=True,
    help="Which of several rows of one user and one item to keep.",
)
@click.option(
    "--split",
    type=click.Choice(["leave-one-out", "temporal"]),
    default="leave-one-out",
    show_default=True,
    help="Hold out each user's last two, or what all users do from two points in time on.",
)
@click.option(
    "--valid-from",
    metavar="TIME|SHARE",
    help="Where a temporal split's validation begins.  [default: as long as the test]",
)
@click.option(
    "--test-from",
    metavar="TIME|SHARE",
    help="Where its test begins, e.g. 2024-05-31, or 0.9 of the log.  [default: 0.9]",
)
@click.option(
    "--on-bad-row",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do at a row that cannot be read; skipped rows are counted and shown.",
)
@click.option(
    "--report",
    is_flag=False,
    flag_value="",
    metavar="[FILE.html]",
    callback=_checked_report,
    help="Write a page on the data's health, with plots.  [default: report.html in the dataset]",
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Most memory to take, e.g. 4GB or 512MiB; beyond it interactions go to the disk.",
)
@options.data_dir
@options.threads
@options.output
def preprocess(
    logs: tuple[Path, ...], report: str | None, data_dir: Path, output: Output, **layout: Any
) -> None:
    """Turn a raw log into a prepared dataset.

    LOG is a CSV or TSV file with any delimiter, with or without a header, a file of sequences (user
    item item ...) or JSON lines, plain, gzip or zstd, or Parquet or Arrow. Delimiter, columns and
    time unit are recognised; the options are for logs where that goes wrong. Several files, or a
    directory of them, are read as one log. The name of a dataset of the catalogue (see `blin
    datasets`) stands for its log, which is downloaded.
    """
    from blin.data import health_page, prepare

    entry = catalogued(logs)
    if entry is not None:
        logs = (fetch_log(entry, data_dir, output),)
        layout["name"] = layout["name"] or entry.name
    with output.bar("read", of_bytes=True) as advance:
        done = prepare.preprocess(logs, data_dir=data_dir, on_progress=advance, **layout)
    page = None
    if report is not None:
        page = health_page.write(done.metadata, report or done.path / "report.html")
    output.result({**done.to_json(), "report": page and str(page)})
    show_report(done, output)
    if page is not None:
        output.note(f"report: {page}")
    output.next_commands(
        {f"blin train --dataset {done.dataset}{options.data_dir_flag(data_dir)}": "learn from it"}
    )


def show_report(report: PrepareReport, output: Output) -> None:
    """Prints what was understood of the log and what became of it."""
    from blin.cli.health import show_health

    for message in report.metadata["skipped_messages"]:
        output.warn(f"skipped: {message}")
    if report.metadata.get("time_warning") is not None:
        output.warn(report.metadata["time_warning"])
    if report.replaced:
        output.warn(
            f"{report.path} was prepared from {', '.join(report.replaced)} before and is replaced; "
            "--name keeps both"
        )
    if report.metadata["time"] is None and report.metadata["layout"]["format"] != "sequences":
        output.warn(
            "no column of times was found: the order of the file is taken for the order in time; "
            "name the column with --time-column if there is one"
        )
    output.facts(_understood(report.metadata))
    rounds = report.metadata["k_core_rounds"]
    names = ["as read", *(f"round {number}" for number in range(1, len(rounds)))]
    output.table(
        (
            _core_name(report.metadata["options"]),
            "users",
            "items",
            "interactions",
        ),
        [
            (name, kept["users"], kept["items"], kept["interactions"])
            for name, kept in zip(names, rounds, strict=True)
        ],
    )
    density = report.interactions / report.users / report.items
    output.facts(
        {
            "dataset": report.path,
            "users": report.users,
            "items": report.items,
            "interactions": report.interactions,
            "density": f"{density:.3%}",
            "split": _split(report.metadata["split"]),
            "fingerprint": report.fingerprint,
            "took": f"{duration_of(report.seconds)}{', reused' if report.reused else ''}",
            "peak memory": size_of(report.peak_memory_bytes),
        }
    )
    show_health(report.metadata, output)


def _core_name(options: Mapping[str, Any]) -> str:
    both = options["min_interactions"]
    users, items = (options[f"min_{side}_interactions"] or both for side in ("user", "item"))
    return f"{users}-core" if users == items else f"core {users}/{items}"


def _split(split: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{split[part]:,} {part}" for part in ("train", "valid", "test"))
    if split["rule"] != "temporal":
        return f"{split['rule']}: {parts}"
    valid, test = (split[f"{cut}_date"] or split[cut] for cut in ("valid_from", "test_from"))
    return f"temporal: {parts}; valid from {valid}, test from {test}"


def _times(time: Mapping[str, Any] | None) -> str:
    if time is None:
        return "none: in the order of the file"
    if time["first_date"] is None:
        return f"{time['first']:,} to {time['last']:,}, plain numbers"
    return f"{time['first_date']} to {time['last_date']}, in {time['unit']}"


def _understood(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """Says how the log was read; what does not apply is None."""
    layout, time = metadata["layout"], metadata["time"]
    size = sum(source["bytes"] for source in metadata["sources"])
    columns = [
        f"{role.replace('_', '-')} {layout[role + '_column']}"
        for role in ("user", "item", "time", "tie_break", "rating")
        if layout[role + "_column"] is not None
    ]
    left_out = {
        "unreadable": metadata["rows_skipped"],
        "without a user": metadata["rows_without_user"],
        "without an item": metadata["rows_without_item"],
        "rated too low": metadata["rows_below_rating"],
        "repeated": metadata["rows_duplicate"],
    }
    return {
        "log": f"{_files(metadata['sources'])} ({size_of(size)})",
        "format": format_of(layout),
        "columns": ", ".join(columns) or None,
        "times": _times(time),
        "rows": f"{metadata['rows_read']:,}"
        + "".join(f", {rows:,} {why}" for why, rows in left_out.items() if rows),
    }


def _files(sources: Sequence[Mapping[str, Any]]) -> str:
    names = [source["file"] for source in sources]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}, {len(names)} files"
