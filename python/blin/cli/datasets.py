"""``blin datasets``: what is prepared, and what the catalogue offers."""

from __future__ import annotations

from pathlib import Path

import click

from blin.cli import options
from blin.cli.lookup import prepared_names
from blin.cli.output import Output


@click.command(short_help="List prepared and public datasets.")
@options.data_dir
@options.output
def datasets(data_dir: Path, output: Output) -> None:
    """List the prepared datasets and those of the catalogue.

    A dataset of the catalogue is downloaded and prepared when `blin train --dataset NAME` or
    `blin preprocess NAME` first asks for it.
    """
    from blin.data.catalog import DATASETS

    prepared = prepared_names(data_dir)
    output.result(
        {
            "prepared": prepared,
            "catalogue": [
                {"name": entry.name, "url": entry.url, "sha256": entry.sha256, "terms": entry.terms}
                for entry in DATASETS.values()
            ],
        }
    )
    output.table(
        ("name", "prepared", "download", "what it is"),
        [
            *((name, True, "", str(data_dir / name)) for name in prepared if name not in DATASETS),
            *(
                (entry.name, entry.name in prepared, entry.host, entry.summary)
                for entry in DATASETS.values()
            ),
        ],
    )
