"""What the Blin paper prints beside what is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from blin.cli.output import Output

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.experiments.published import Counts
    from blin.experiments.results import Row


def show_counts(dataset: Dataset, output: Output) -> dict[str, object]:
    """Prints the paper's Table 1 beside what is counted here, and returns it."""
    from blin.experiments.published import TABLE_1, Counts

    paper, error = TABLE_1.get(dataset.name, (None, ""))
    ours = Counts.of(dataset.num_users, dataset.num_items, dataset.num_interactions)
    output.table(
        ("", "paper", "ours"),
        [
            (name, *("" if each is None else _count(each, name) for each in (paper, ours)))
            for name in ("users", "items", "interactions", "sparsity")
        ],
        title=f"{dataset.name}: the paper's Table 1 beside ours",
    )
    if error:
        output.note(f"The paper's: {error}.")
    return {
        "paper": None if paper is None else asdict(paper),
        "check": error,
        "ours": asdict(ours),
    }


def _count(counts: Counts, name: str) -> str:
    value = getattr(counts, name)
    if name == "sparsity":
        return "" if value is None else f"{value:.2f} %"
    return f"{value:,}"


def show_beside(
    dataset: Dataset, rows: Sequence[Row], negatives: int, device: str, output: Output
) -> list[dict[str, object]]:
    """Prints the paper's figures beside those of our rows, and returns them."""
    from blin.experiments.comparison import rank
    from blin.experiments.published import METRICS, PUBLISHED, TABLE_2, Figures

    ranked = (
        rank(rows, data_dir=dataset.path.parent, negatives=negatives, device=device)
        if negatives
        else []
    )
    ours = {
        each.name: {metric: each.interval(metric, 0.95).mean for metric in METRICS}
        for each in ranked
    }
    published = PUBLISHED.get(dataset.name, {})
    told: list[dict[str, object]] = []
    cells: list[list[str]] = []
    for model in TABLE_2:
        figures = published.get(model, Figures())
        verdict = figures.verdict()
        told.append(
            {
                "model": model,
                "paper": dict(figures.values),
                "check": verdict,
                "ours": ours.get(model, {}),
            }
        )
        pairs = ((figures.values.get(m), ours.get(model, {}).get(m)) for m in METRICS)
        texts = ("" if value is None else f"{value:.4f}" for pair in pairs for value in pair)
        cells.append([model, *texts, verdict])
    heads = (f"{metric} {whose}" for metric in METRICS for whose in ("paper", "ours"))
    protocol = f"beside ours, {negatives} uniform negatives"
    if not negatives:
        protocol = "without ours, for there are no negatives"
    output.table(
        ("model", *heads, "the paper's"),
        cells,
        title=f"{dataset.name}: the paper's Table 2 {protocol}",
    )
    if dataset.name in PUBLISHED:
        output.note("Empty: printed in the paper, but not known here; or not trained.")
    else:
        output.note("The paper has no such dataset.")
    return told
