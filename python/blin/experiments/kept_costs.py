"""What attention costs, as JSON: for scripts, and to go on where measuring was stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blin.experiments.bench import Case, Cost, Outcome, Work, epoch_seconds
from blin.files import replacing


def costs_as_json(outcomes: Sequence[Outcome], work: Work) -> dict[str, Any]:
    """Returns outcomes, and what was measured with, as JSON has them."""
    return {
        "work": asdict(work),
        "cases": [
            {
                **asdict(each.case),
                "cost": None if each.cost is None else asdict(each.cost),
                "seconds_per_step": each.cost and each.cost.step,
                "seconds_per_epoch": each.cost and epoch_seconds(each.cost, work),
                "reason": each.reason or None,
            }
            for each in outcomes
        ],
    }


def write_costs(file: Path, outcomes: Sequence[Outcome], work: Work) -> None:
    """Keeps outcomes in a file, whose directory is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        content = json.dumps(costs_as_json(outcomes, work), indent=2) + "\n"
        temporary.write_text(content, encoding="utf-8")


def read_costs(file: Path, work: Work) -> list[Outcome]:
    """Returns the outcomes that are kept in a file; none of other work, or of a damaged file."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(file.read_text(encoding="utf-8"))
        if Work(**told["work"]) == work:
            return [
                Outcome(
                    Case(each["model"], each["attention"], each["length"]),
                    None if each["cost"] is None else Cost.of(each["cost"]),
                    each["reason"] or "",
                )
                for each in told["cases"]
            ]
    return []
