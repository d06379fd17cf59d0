"""``blin models``: what can be trained, and where it comes from."""

from __future__ import annotations

import click

from blin.cli import options
from blin.cli.output import Output


@click.command(short_help="List the models and where each comes from.")
@options.output
def models(output: Output) -> None:
    """List what `blin train --model NAME` can train.

    A learned model is trained in epochs; a counted one is there in seconds, and is what every other
    has to beat.
    """
    from blin.models import MODELS
    from blin.models.sources import SOURCES

    rows = []
    for name, model in MODELS.items():
        source = SOURCES[name]
        rows.append(
            {
                "model": name,
                "kind": "counted" if model.counted else "learned",
                "about": source.about,
                "venue": source.venue,
                "paper": source.paper,
            }
        )
    output.result(rows)
    output.table(
        ("model", "kind", "what it is", "paper"),
        [
            (
                row["model"],
                row["kind"],
                row["about"],
                f"{row['paper']} ({row['venue']})" if row["paper"] else "",
            )
            for row in rows
        ],
    )
