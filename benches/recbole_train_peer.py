"""RecBole's side of ``benches/train.py``, run by the interpreter that has RecBole.

It trains SASRec by RecBole's own data pipeline and trainer on the log that the bench wrote, tells
what it is going to train as a line of JSON, and for every line on stdin trains an epoch and answers
with the seconds it took and the validation NDCG@10. Validation is not in the seconds: it ranks by
RecBole's scores as blin ranks, the history left out.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# RecBole 1.2.1 uses names that NumPy has dropped; its own entry points put them back, too.
np.__dict__.update(float=float, int=int, bool=bool)

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender.sasrec import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

ROWS = 512


def main() -> None:
    directory, threads, batch_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sizes = json.loads((directory / "sizes.json").read_text())
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    config = Config(
        model="SASRec",
        dataset="log",
        config_dict={
            "data_path": str(directory),
            "checkpoint_dir": str(directory / "saved"),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": "full",
            },
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "MAX_ITEM_LIST_LENGTH": sizes["max_len"],
            "hidden_size": sizes["dim"],
            "inner_size": sizes["hidden_dim"],
            "n_layers": sizes["num_blocks"],
            "n_heads": sizes["num_heads"],
            "hidden_dropout_prob": sizes["dropout"],
            "attn_dropout_prob": sizes["dropout"],
            "hidden_act": "gelu",
            "train_batch_size": batch_size,
            "learning_rate": 0.001,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "seed": 0,
        },
    )
    # It sets the threads itself while it reads its configuration.
    torch.set_num_threads(threads)
    init_seed(0, True)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset)
    trainer: Any = Trainer(config, model)
    validation = Validation(directory, dataset, sizes["max_len"])
    facts = {
        "recbole": version("recbole"),
        "torch": torch.__version__,
        "targets": len(train_data.dataset),
        "steps": len(train_data),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    print(json.dumps(facts), flush=True)
    for epoch, _ in enumerate(sys.stdin):
        begin = clock()
        trainer._train_epoch(train_data, epoch)
        seconds = clock() - begin
        print(json.dumps({"seconds": seconds, "ndcg": validation.ndcg(model)}), flush=True)


class Validation:
    """The histories and items to rank, in RecBole's numbers."""

    def __init__(self, directory: Path, dataset: Any, max_len: int) -> None:
        histories = np.load(directory / "histories.npy")  # (U, longest), 0 at the right
        token = dataset.field2token_id["item_id"]
        known = [token.get(str(item), 0) for item in range(histories.max() + 1)]
        table = np.array([0, *known[1:]])
        self.targets = torch.from_numpy(table[np.load(directory / "targets.npy")])
        self.histories = torch.from_numpy(table[histories])
        self.lengths = torch.from_numpy((histories > 0).sum(1))
        self.max_len = max_len

    def ndcg(self, model: Any) -> float:
        """Returns NDCG@10 of all users."""
        gains = []
        model.eval()
        for start in range(0, len(self.targets), ROWS):
            part = slice(start, start + ROWS)
            histories, lengths, targets = (
                array[part] for array in (self.histories, self.lengths, self.targets)
            )
            kept = lengths.clamp(max=self.max_len)
            places = (lengths - kept).unsqueeze(1) + torch.arange(self.max_len)
            newest = histories.gather(1, places.clamp(max=histories.shape[1] - 1))
            newest = newest * (torch.arange(self.max_len) < kept.unsqueeze(1))
            with torch.no_grad():
                scores = model.full_sort_predict({"item_id_list": newest, "item_length": kept})
            own = scores.gather(1, targets.unsqueeze(1))
            scores.scatter_(1, histories, -torch.inf)
            scores[:, 0] = -torch.inf
            ranks = 1 + (scores > own).sum(1)
            gains.append(torch.where(ranks <= 10, 1 / torch.log2(ranks + 1), 0))
        return float(torch.cat(gains).mean())


if __name__ == "__main__":
    main()
