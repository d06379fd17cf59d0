"""RecTools' side of ``benches/train.py``, run by the interpreter that has RecTools.

It trains SASRecModel by RecTools' own data preparator and Lightning module, tells what it is going
to train as a line of JSON, and for every line on stdin trains an epoch and answers with the
seconds it took and the validation NDCG@10. Validation is not in the seconds: it ranks by RecTools'
scores as blin ranks, the history left out. An item without a training interaction has no score and
is missed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

ROWS = 512
EPOCHS = 1_000


def main() -> None:
    warnings.simplefilter("ignore")
    directory, threads, batch_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sizes = json.loads((directory / "sizes.json").read_text())
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    clock = time.process_time if threads == 1 else time.perf_counter
    log = np.load(directory / "training.npz")
    table = pd.DataFrame(
        {
            Columns.User: log["users"],
            Columns.Item: log["items"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp(2020, 1, 1) + pd.to_timedelta(log["times"], unit="s"),
        }
    )

    def trainer() -> Any:
        return Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
            callbacks=[Turns(directory, sizes["max_len"], clock)],
        )

    model = SASRecModel(
        n_blocks=sizes["num_blocks"],
        n_heads=sizes["num_heads"],
        n_factors=sizes["dim"],
        dropout_rate=sizes["dropout"],
        session_max_len=sizes["max_len"],
        loss="softmax",
        lr=0.001,
        batch_size=batch_size,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(table))


class Turns(Callback):
    """Lets an epoch begin when a line comes on stdin, and answers when it is over."""

    def __init__(self, directory: Path, max_len: int, clock: Any) -> None:
        self.directory = directory
        self.max_len = max_len
        self.clock = clock
        self.begin = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        items = pl_module.item_external_ids
        known = {int(item): number for number, item in enumerate(items) if str(item).isdigit()}
        histories = np.load(self.directory / "histories.npy")
        most = int(max(histories.max(), max(known)))
        numbers = np.array([known.get(item, 0) for item in range(most + 1)])
        targets = np.load(self.directory / "targets.npy")
        self.targets = torch.from_numpy(numbers[targets])
        rows = [numbers[row[row > 0]] for row in histories]
        self.histories = [torch.from_numpy(row[row > 0]) for row in rows]
        batches = trainer.train_dataloader
        facts = {
            "rectools": version("rectools"),
            "torch": torch.__version__,
            "targets": int(sum((batch["y"] > 0).sum() for batch in batches)),
            "steps": len(batches),
            "parameters": sum(p.numel() for p in pl_module.torch_model.parameters()),
        }
        print(json.dumps(facts), flush=True)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if not sys.stdin.readline():
            # Lightning would train the epoch to its end first.
            sys.exit()
        self.begin = self.clock()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        seconds = self.clock() - self.begin
        model = pl_module.torch_model
        model.eval()
        with torch.no_grad():
            ndcg = self.ndcg(model)
        model.train()
        print(json.dumps({"seconds": seconds, "ndcg": ndcg}), flush=True)

    def ndcg(self, model: Any) -> float:
        """Returns NDCG@10 of all users."""
        embeddings = model.item_model.get_all_embeddings()
        gain = 0.0
        for start in range(0, len(self.targets), ROWS):
            histories, targets = (
                whole[start : start + ROWS] for whole in (self.histories, self.targets)
            )
            rows = torch.zeros(len(targets), self.max_len, dtype=torch.long)
            for row, history in zip(rows, histories, strict=True):
                newest = history[-self.max_len :]
                row[self.max_len - len(newest) :] = newest
            states = model.encode_sessions({"x": rows}, embeddings)[:, -1]
            scores = states @ embeddings.T
            own = scores.gather(1, targets.unsqueeze(1)).clone()
            for line, history in zip(scores, histories, strict=True):
                line[history] = -torch.inf
            scores[:, 0] = -torch.inf
            ranks = 1 + (scores > own).sum(1)
            hits = (ranks <= 10) & (targets > 0)
            gain += float((hits / torch.log2(ranks + 1)).sum())
        return gain / len(self.targets)


if __name__ == "__main__":
    main()
