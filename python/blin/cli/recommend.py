"""``blin recommend``: what users may want next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blin.cli import options
from blin.cli.output import Output
from blin.cli.recommendation_file import write_tables
from blin.files import parse_json

if TYPE_CHECKING:
    import pyarrow as pa


@click.command(short_help="Recommend items to users.")
@options.run
@click.option(
    "--user", "users", metavar="ID", multiple=True, help="A user of the dataset; repeatable."
)
@click.option(
    "--history",
    "histories",
    metavar="ID,ID,...",
    multiple=True,
    help="Items somebody had, oldest first; a JSON list if ids contain commas; repeatable.",
)
@click.option("--all", "everybody", is_flag=True, help="All users of the dataset; needs --out.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this .parquet or .csv file.")
@options.count("--k", default=10, help="Items per user.")
@click.option("--include-seen", is_flag=True, help="Also recommend what a user has had already.")
@options.threads
@options.device
@options.moved_data_dir
@options.runs_dir
@options.output
def recommend(
    run: str | None,
    users: tuple[str, ...],
    histories: tuple[str, ...],
    everybody: bool,
    out: Path | None,
    k: int,
    include_seen: bool,
    threads: int | None,
    device: str,
    data_dir: Path | None,
    runs_dir: Path,
    output: Output,
) -> None:
    """Recommend items to users of the dataset, or to anybody by their history.

    Give one of --user, --history and --all. The rows are user_id, item_id, score and rank.
    """
    chosen = [bool(users), bool(histories), everybody]
    if sum(chosen) != 1:
        raise click.UsageError("give one of --user ID, --history ID,ID,... and --all")
    if everybody and out is None:
        raise click.UsageError("--all needs --out FILE.parquet or --out FILE.csv")
    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise click.UsageError(f"--out: expected a .parquet or .csv file, found {out}")
    parsed = [parsed_history(text) for text in histories]
    from blin.checkpoint import find_run, load_run
    from blin.inference import recommend as inference

    found = load_run(find_run(runs_dir, run), device=device, threads=threads)
    tables: Iterable[pa.Table]
    if everybody:
        tables = inference.recommend_all(
            found.model, found.dataset(data_dir=data_dir), k=k, include_seen=include_seen
        )
    elif users:
        dataset = found.dataset(data_dir=data_dir)
        tables = [
            inference.recommend_users(
                found.model, dataset, users, k=k, include_seen=include_seen
            ).table
        ]
    else:
        recommendations = inference.recommend_histories(
            found.model, parsed, k=k, include_seen=include_seen
        )
        warn_of_unknown(recommendations.unknown_items, parsed, output)
        tables = [recommendations.table]
    if out is not None:
        num_rows = write_tables(tables, out)
        output.result({"out": str(out), "rows": num_rows})
        output.note(f"{out}: {num_rows:,} rows")
        return
    rows = [row for table in tables for row in table.to_pylist()]
    output.result(rows)
    show_rows(rows, output)


def show_rows(rows: Sequence[Mapping[str, object]], output: Output) -> None:
    """Prints recommendations as a table."""
    columns = ("user_id", "item_id", "score", "rank")
    output.table(columns, [[row[column] for column in columns] for row in rows])


def warn_of_unknown(
    unknown: Sequence[str], histories: Sequence[Sequence[str]], output: Output
) -> None:
    """Names the items of the histories that the model has never seen."""
    if not unknown:
        return
    named = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    what = "1 item is" if len(unknown) == 1 else f"{len(unknown)} items are"
    left = "" if len(unknown) < sum(map(len, histories)) else "; nothing is left of it"
    output.warn(f"{what} unknown to the model and left out of the history: {named}{left}")


def parsed_history(text: str) -> list[str]:
    """Returns the raw ids of ``a,b,c`` or of a JSON list."""
    ids = [item.strip() for item in text.split(",")]
    if text.startswith("["):
        with suppress(ValueError):
            ids = [str(item) for item in parse_json(text)]
    if not all(item.strip() for item in ids):
        raise click.UsageError(f'--history: expected item ids, found "{text}"')
    return ids
