"""``blin demo``: everything once, on a log that blin makes itself."""

from __future__ import annotations

from pathlib import Path

import click

from blin.cli import options
from blin.cli.output import Output
from blin.cli.preprocess import show_report
from blin.cli.recommend import show_rows
from blin.cli.training_display import training_display

SETTINGS = {"epochs": 15, "batch_size": 64, "learning_rate": 3e-3, "dropout": 0.2}
"""The sample log is small: few users a step and a fast start, so that it takes a minute."""


@click.command(short_help="Show blin at work on a sample log.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default="blin-demo",
    show_default=True,
    help="Where the sample log, the dataset and the run go.",
)
@options.seed
@options.device
@options.threads
@options.output
def demo(directory: Path, seed: int, device: str, threads: int | None, output: Output) -> None:
    """Show blin at work on its built-in sample log, in a minute or two.

    A made-up shop's log is written as a CSV file, prepared, learned from, evaluated and used for
    recommendations; a table compares blin with the baselines.
    """
    from blin.data.dataset import load_dataset
    from blin.data.prepare import preprocess
    from blin.data.sample import write_sample_log

    directory.mkdir(parents=True, exist_ok=True)
    log, data_dir, runs_dir = directory / "sample.csv", directory / "data", directory / "runs"
    rows = write_sample_log(log, seed=seed)
    output.note(f"A made-up shop's log, {rows:,} purchases: {log}")
    with log.open(encoding="utf-8") as lines:
        for _ in range(4):
            output.note(f"  {lines.readline().rstrip()}")

    announce(output, f"blin preprocess {log} --data-dir {data_dir}")
    show_report(preprocess(log, data_dir=data_dir), output)
    dataset = load_dataset(log.stem, data_dir=data_dir)

    from blin.checkpoint import load_run
    from blin.inference.recommend import recommend_users
    from blin.training.baselines import measure_baselines
    from blin.training.trainer import train

    announce(output, f"blin train --dataset {log.stem}, with settings for so small a log")
    with training_display(output) as display:
        result = train(
            dataset,
            settings={**SETTINGS, "seed": seed},
            runs_dir=runs_dir,
            device=device,
            threads=threads,
            on_event=display.show,
        )
    model = load_run(result.run, device=device, threads=threads).model

    somebody = dataset.user_ids.raw(0)
    announce(output, f"blin recommend --user {somebody} --k 5 --runs-dir {runs_dir}")
    bought = [dataset.item_ids.raw(int(item)) for item in dataset.sequence(0)]
    output.note(f"{somebody} bought, newest last: {' '.join(bought[-8:])}")
    show_rows(recommend_users(model, dataset, [somebody], k=5).rows(), output)

    announce(output, f"blin evaluate --k 10 20 --runs-dir {runs_dir}, and the baselines")
    baselines = measure_baselines(
        dataset, protocol=result.protocol, directory=result.run.parent, device=device
    )
    metrics = {"blin": result.metrics, **baselines}
    output.result({"run": str(result.run), "metrics": metrics})
    output.table(
        ("model", *metrics["blin"]), [(name, *found.values()) for name, found in metrics.items()]
    )
    output.note(f"Everybody's last purchase, ranked among all {dataset.num_items:,} products.")
    output.next_commands(
        {
            f"blin recommend --all --out recs.parquet --runs-dir {runs_dir}": "for everybody",
            "blin preprocess YOUR.csv": "your own log",
            "blin train --dataset ml-1m": "a public dataset",
            "blin --help": "all commands",
        }
    )


def announce(output: Output, step: str) -> None:
    """Shows what happens next as a command to type."""
    if not output.quiet:
        output.notes.print(f"\n$ {step}", style="bold")
