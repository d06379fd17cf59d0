"""RecBole's side of ``benches/evaluate.py``, run by the interpreter that has RecBole.

It reads what the bench wrote into a directory and, for every line on stdin, evaluates once and
answers with a line of JSON on stdout. What is timed is what RecBole's trainer does for a
sequential model: padding masked, the collector batch by batch, and the evaluator at the end. The
scores come with the histories masked already. A second time, its SASRec scores first.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import Collector
from recbole.evaluator.evaluator import Evaluator
from recbole.model.sequential_recommender.sasrec import SASRec

# RecBole 1.2.1 uses a name that NumPy has dropped; its own entry points put it back, too.
np.__dict__["float"] = float

CONFIG = {
    "metrics": ["Hit", "NDCG"],
    "topk": [10, 20],
    "metric_decimal_place": 12,
    "eval_args": {"mode": "full"},
    "device": torch.device("cpu"),
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "length",
    "NEG_PREFIX": "neg_",
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 64,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "loss_type": "CE",
}


def main() -> None:
    directory, threads, batch_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    scores, targets, histories, lengths = (
        np.load(directory / f"{name}.npy", mmap_mode="r")
        for name in ("scores", "targets", "histories", "lengths")
    )
    config = {**CONFIG, "MAX_ITEM_LIST_LENGTH": histories.shape[1]}
    model = SASRec(config, SimpleNamespace(num=lambda field: scores.shape[1])).eval()
    print(json.dumps({"recbole": version("recbole"), "torch": torch.__version__}), flush=True)

    def evaluate(scored: bool) -> tuple[float, dict[str, float]]:
        """Returns the seconds and the metrics; scored tells whether the scores are given."""
        collector, evaluator = Collector(config), Evaluator(config)
        seconds = 0.0
        for start in range(0, len(targets), batch_size):
            part = slice(start, start + batch_size)
            positives = torch.from_numpy(np.array(targets[part]))
            batch: Any = {
                "item_list": torch.from_numpy(np.array(histories[part])),
                "length": torch.from_numpy(np.array(lengths[part])),
            }
            given = torch.from_numpy(np.array(scores[part])) if scored else None
            begin = clock()
            found = model.full_sort_predict(batch) if given is None else given
            found[:, 0] = -np.inf
            collector.eval_batch_collect(found, batch, torch.arange(len(found)), positives)
            seconds += clock() - begin
        begin = clock()
        metrics = evaluator.evaluate(collector.get_data_struct())
        return seconds + clock() - begin, dict(metrics)

    for _ in sys.stdin:
        with torch.no_grad():
            ranking, metrics = evaluate(scored=True)
            whole, _ = evaluate(scored=False)
        print(json.dumps({"ranking": ranking, "whole": whole, "metrics": metrics}), flush=True)


if __name__ == "__main__":
    main()
