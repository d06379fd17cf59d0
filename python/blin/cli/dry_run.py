"""``--dry-run`` of ``train`` and ``distill``: the forecast, as people read it and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blin.cli.output import Output, duration_of, size_of
from blin.cli.training_display import told_of_left_out

if TYPE_CHECKING:
    from blin.data.dataset import Dataset
    from blin.training.distillation import Distillation
    from blin.training.forecast import Forecast


def forecast_training(
    dataset: Dataset,
    output: Output,
    *,
    model: str,
    settings: Mapping[str, object],
    device: str,
    threads: int | None,
    tensorboard: bool,
    distillation: Distillation | None = None,
) -> None:
    """Prints what a training will take; the arguments are those of the training."""
    from blin.training.forecast import forecast

    if tensorboard:
        from blin.training.tensorboard import require_tensorboard

        require_tensorboard()
    found = forecast(
        dataset,
        model=model,
        settings=settings,
        device=device,
        threads=threads,
        distillation=distillation,
    )
    _show(found, output)


def _show(forecast: Forecast, output: Output) -> None:
    """Prints what a training will take."""
    memory = forecast.memory
    output.result(
        {
            "model": forecast.model,
            "settings": forecast.settings,
            "device": forecast.device,
            "threads": forecast.threads,
            "parameters": forecast.parameters,
            "users": forecast.users,
            "batches_per_epoch": forecast.batches,
            "rows_per_batch": forecast.rows,
            "views": forecast.views,
            "memory_bytes": {
                "weights": memory.weights,
                "gradients": memory.gradients,
                "optimizer": memory.optimizer,
                "activations": memory.activations,
                "validation_scores": memory.scores,
                "measured_peak": memory.measured,
            },
            "run_bytes": forecast.run_bytes,
            "seconds_per_batch": forecast.seconds_per_batch,
            "seconds_per_epoch": forecast.epoch_seconds,
            "seconds_per_validation": forecast.validation_seconds,
            "epochs": {"fewest": forecast.fewest_epochs, "most": forecast.epochs},
            "seconds": {
                "fewest": forecast.training_seconds(forecast.fewest_epochs),
                "most": forecast.training_seconds(forecast.epochs),
            },
        }
    )
    views = "" if forecast.views == 1 else f", in {forecast.views} views"
    of_what = "the process" if forecast.device == "cpu" else forecast.device
    fewest, most = (
        duration_of(forecast.training_seconds(epochs))
        for epochs in (forecast.fewest_epochs, forecast.epochs)
    )
    batches = "1 batch" if forecast.batches == 1 else f"{forecast.batches:,} batches, each"
    threads = "1 thread" if forecast.threads == 1 else f"{forecast.threads} threads"
    output.facts(
        {
            "model": f"{forecast.model}, {forecast.parameters:,} parameters",
            "computes on": f"{forecast.device}, {threads}",
            "an epoch": f"{forecast.users:,} {forecast.unit} in {batches} of "
            f"{forecast.rows:,.0f} rows of {forecast.settings['max_len']} positions{views}",
            "weights": f"{size_of(memory.weights)}; gradients {size_of(memory.gradients)}, "
            f"optimiser {size_of(memory.optimizer)}",
            "activations": f"{size_of(memory.activations)} kept for the backward pass; scores of "
            f"the validation {size_of(memory.scores)}",
            "peak memory": f"{size_of(memory.measured)}, measured, of {of_what}",
            "run on disk": size_of(forecast.run_bytes),
            "time": f"{1000 * forecast.seconds_per_batch:,.0f} ms a batch, "
            f"{duration_of(forecast.epoch_seconds)} an epoch, and "
            f"{duration_of(forecast.validation_seconds)} to validate "
            f"{forecast.validated_users:,} users",
            "in all": f"{fewest} ({forecast.fewest_epochs} epochs) to {most} ({forecast.epochs})",
        }
    )
    if told := told_of_left_out(forecast.left_out):
        output.note(told)
    output.note(
        "Nothing was written. When the best epoch comes cannot be known; training ends "
        f"{forecast.settings['patience']} epochs after it."
    )
