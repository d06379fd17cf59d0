"""``blin doctor``: whether all that blin needs is there, and what mends it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from blin.cli import options
from blin.cli.output import Output


@click.command(short_help="Check the installation and say what mends it.")
@partial(options.data_dir, may_be_broken=True)
@partial(options.runs_dir, may_be_broken=True)
@options.output
def doctor(data_dir: Path, runs_dir: Path, output: Output) -> None:
    """Check all that blin needs, and say how to mend what is broken.

    Packages and their versions, the compiled extension, GPUs, threads and memory with the limits
    on this process, the directories of datasets and runs, and whether each prepared dataset opens.
    The exit code is 1 if something needed is broken; what is optional is only noted.
    """
    from blin.cli.checks import BROKEN, all_checks

    checks = list(all_checks(data_dir, runs_dir))
    broken = [check for check in checks if check.state == BROKEN]
    output.result({"good": not broken, "checks": [asdict(check) for check in checks]})
    to_do = any(check.fix for check in checks)
    output.table(
        ("state", "what", "found", *(["to do"] if to_do else [])),
        [
            (check.state, check.name, check.found, *([check.fix or ""] if to_do else []))
            for check in checks
        ],
    )
    if broken:
        output.note(f"Broken: {', '.join(check.name for check in broken)}.")
        click.get_current_context().exit(1)
    output.note("All that is needed is there.")
