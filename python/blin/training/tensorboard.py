"""The curves of a training for TensorBoard, in the directory ``tb`` of its run.

They are what ``history.jsonl`` says, in TensorBoard's format: whenever a training begins or goes
on, the file is written anew from the history. So no epoch is in it twice, whatever has happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blin.errors import BlinError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_NUMBERS = ("learning_rate", "users_per_second", "data_wait")


class Curves:
    """Takes up the records of the history as they come, one an epoch.

    Args:
        writer: TensorBoard's.
        began: when the training would have begun had it never paused, in seconds since 1970.
    """

    def __init__(self, writer: SummaryWriter, began: float) -> None:
        self._writer = writer
        self._began = began

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of an epoch; its number is the step."""
        scalars = {f"training/{name}": value for name, value in record["losses"].items()}
        scalars |= {f"valid/{name}": value for name, value in record["valid"].items()}
        scalars |= {name: record[name] for name in _NUMBERS if record.get(name) is not None}
        for name, value in scalars.items():
            when = self._began + record["seconds"]
            self._writer.add_scalar(name, value, record["epoch"], walltime=when)
        self._writer.flush()


@contextmanager
def curves(directory: Path, history: Sequence[Mapping[str, Any]]) -> Iterator[Curves]:
    """Yields what writes the epochs to come; those of the history are written at once."""
    from torch.utils.tensorboard import SummaryWriter

    before = list(directory.glob("events.out.tfevents.*"))
    began = time.time() - (history[-1]["seconds"] if history else 0.0)
    # A TensorBoard that is looking on forgets what it has read from the files before.
    with SummaryWriter(str(directory), purge_step=0) as writer:
        written = Curves(writer, began)
        for record in history:
            written.write(record)
        for file in before:
            file.unlink()
        yield written


def require_tensorboard() -> None:
    """Raises BlinError unless TensorBoard's package is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise BlinError(
            "the curves need TensorBoard: pip install 'blin-rec[tensorboard]'"
        ) from error
