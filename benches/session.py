"""One more item: what a session takes for it after 10, 1,000 and 100,000 others.

    python benches/session.py [--repeats 300] [--json results.json]

The default model (64 wide, two blocks) with 10,000 items, in the recurrent form (no positions) and
in the window form (absolute positions, the newest 50 items), against a full pass over the history.
Before anything is timed, the session's scores must be those of the full pass to 1e-5. Times are
medians of CPU time in one thread, so that other work on the machine counts little, on random
weights.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from blin.batch import Batch
from blin.checkpoint import TrainedModel
from blin.data.loader import history_batch
from blin.inference.session import Session
from blin.models.blin import BlinConfig, BlinModel
from blin.vocabulary import Vocabulary

NUM_ITEMS = 10_000
LENGTHS = (10, 1_000, 100_000)
FORMS = {"recurrent": "none", "window": "absolute"}
IDS = [f"i{number}" for number in range(1, NUM_ITEMS + 1)]


def random_model(positions: str) -> TrainedModel:
    torch.manual_seed(0)
    module = BlinModel(NUM_ITEMS, BlinConfig(positions=positions))
    for parameter in module.parameters():  # scores of the size that trained weights give
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    return TrainedModel("blin", module.eval(), Vocabulary(pa.array(IDS), first=1))


def batch_of(model: TrainedModel, items: list[str], *, whole: bool) -> Batch:
    """The row of a full pass: over all of the history, or what the model sees of it."""
    indices = np.array(model.item_ids.indices_of(items)[0], dtype=np.uint32)
    bounds = np.array([0, len(items)], dtype=np.int64)
    spec = model.batch_spec
    if whole:
        spec = replace(spec, max_len=max(spec.max_len, len(items)))
    return history_batch(indices, bounds[:1], bounds[1:], spec)


def check(ours: Tensor, expected: Tensor, what: str) -> float:
    """Returns the largest difference; stops unless it is within 1e-5."""
    if not torch.allclose(ours, expected, rtol=1e-5, atol=1e-5):
        raise SystemExit(f"{what}: the scores differ by {(ours - expected).abs().max():.1e}")
    return float((ours - expected).abs().max())


def median_ms(job: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        job()
        seconds.append(time.process_time() - begin)
    return 1e3 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(0)
    results = []
    columns = ("push", "push, top", "full pass")
    print(f"{'form':>10} {'history':>8}", *(f"{name:>13}" for name in columns), f"{'off by':>8}")
    for form, positions in FORMS.items():
        model = random_model(positions)
        for length in LENGTHS:
            items = draw.choices(IDS, k=length)
            session = Session(model, form=form)
            session.push(*items[: length // 2])
            session.push(*items[length // 2 :])
            batch = batch_of(model, items, whole=form == "recurrent")
            off = check(session.scores(), model.score(batch)[0], f"{form}, {length} items")

            def push_and_top(session: Session = session) -> None:
                session.push(draw.choice(IDS))
                session.top(10)

            result = {
                "form": form,
                "history": length,
                "push_ms": median_ms(lambda s=session: s.push(draw.choice(IDS)), arguments.repeats),
                "push_and_top_ms": median_ms(push_and_top, arguments.repeats),
                "full_pass_ms": median_ms(
                    lambda m=model, b=batch: m.score(b), 3 if length > 1_000 else 30
                ),
                "off_by": off,
            }
            results.append(result)
            times = (
                f"{result[f'{name}_ms']:>10.3f} ms"
                for name in ("push", "push_and_top", "full_pass")
            )
            print(f"{form:>10} {length:>8,}", *times, f"{off:>8.0e}")
    if arguments.json:
        record = {"torch": torch.__version__, "results": results}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
