"""What an attention takes, forward and backward, as histories grow: memory and time.

    python benches/attention.py [--lengths 200,500,1000,2000,4000] [--repeats 5] [--json FILE]

    pairs     softmax attention by two matrix products, which keeps the weights of all pairs
    softmax   torch's scaled_dot_product_attention under the mask of the segments
    linear    causal linear attention, in chunks
    blossom   the sparse attention of BlossomRec, with the published block, choice and window

Each is a module of 64 channels and 4 heads (blossom: 2 of keys and values), its projections
included, over a batch of 4 full rows, one segment each. Every case has a process of its own: its
memory is the highest it held during one forward and backward less what it held before, and its time
the median of CPU time in one thread. Before anything is measured blossom must agree with the slow
twin of the tests, gradients included, and softmax with the weights of all pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from blin.nn.attention.blossom import BlossomAttention
from blin.nn.attention.heads import MultiHeadAttention, visibility
from blin.nn.attention.linear import LinearAttention
from blin.nn.attention.softmax import SoftmaxAttention

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from reference import blossom as reference

DIM, HEADS, KV_HEADS, ROWS = 64, 4, 2, 4
LENGTHS = (200, 500, 1_000, 2_000, 4_000)
STATUS = Path("/proc/self/status")


class PairsAttention(MultiHeadAttention):
    """Softmax attention that writes down the weights of all pairs."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        logits = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
        hidden = ~visibility(segments).unsqueeze(1)
        return logits.masked_fill(hidden, -torch.inf).softmax(-1) @ values


def module_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "pairs":
        return PairsAttention(DIM, HEADS)
    if name == "softmax":
        return SoftmaxAttention(DIM, HEADS)
    if name == "linear":
        return LinearAttention(DIM, HEADS)
    return BlossomAttention(DIM, HEADS, num_kv_heads=KV_HEADS)


NAMES = ("pairs", "softmax", "linear", "blossom")


def inputs(n: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(ROWS, n, DIM, generator=torch.Generator().manual_seed(1))
    return x.requires_grad_(), torch.ones(ROWS, n, dtype=torch.int64)


def check() -> None:
    """Stops unless blossom is its slow twin, in double precision, and softmax all pairs."""
    sizes = reference.Sizes(HEADS, KV_HEADS, block_size=4, chosen_blocks=2, window=3)
    module = BlossomAttention(
        16, HEADS, num_kv_heads=KV_HEADS, block_size=4, chosen_blocks=2, window=3
    ).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(2)).double()
    segments = torch.tensor([[0] * 3 + [1] * 37, [2] * 12 + [1] * 28])
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    weights = {f"it.{name}": value.detach() for name, value in module.named_parameters()}
    found = module(ours, segments)
    expected = reference.attended(theirs, segments, weights, "it", sizes)
    found.square().sum().backward()
    expected.square().sum().backward()
    same = torch.allclose(found, expected, rtol=1e-9, atol=1e-10)
    assert ours.grad is not None and theirs.grad is not None
    if not same or not torch.allclose(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9):
        raise SystemExit("blossom: not what the slow twin computes")
    pairs, softmax = module_of("pairs"), module_of("softmax")
    softmax.load_state_dict(pairs.state_dict())
    x, segments = inputs(200)
    if not torch.allclose(pairs(x, segments), softmax(x, segments), rtol=1e-4, atol=1e-5):
        raise SystemExit("softmax: not the weights of all pairs")


def memory(field: str) -> float:
    """Returns a line of the process's status, in MB: VmRSS for now, VmHWM for the highest."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{STATUS} has no {field}")


def measure(name: str, n: int, repeats: int) -> dict[str, float]:
    """Returns the memory, in MB, and the seconds of one forward and backward."""
    torch.set_num_threads(1)
    module = module_of(name)
    small, marks = inputs(32)  # what is loaded at first use is none of the attention's
    module(small, marks).sum().backward()
    x, segments = inputs(n)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest begins here
    module(x, segments).sum().backward()
    peak = memory("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        module(x, segments).sum().backward()
        seconds.append(time.process_time() - begin)
    return {"peak_mb": peak, "seconds": statistics.median(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.case, int(arguments.lengths), arguments.repeats)))
        return
    check()
    results = []
    lengths = [int(length) for length in arguments.lengths.split(",")]
    print(f"{'n':>6}", *(f"{name:>10} MB {'ms':>8}" for name in NAMES))
    for n in lengths:
        cells = []
        for name in NAMES:
            options = ["--case", name, "--lengths", str(n), "--repeats", str(arguments.repeats)]
            child = subprocess.run(
                [sys.executable, __file__, *options], capture_output=True, text=True, check=True
            )
            result = json.loads(child.stdout)
            results.append({"attention": name, "n": n, **result})
            cells.append(f"{result['peak_mb']:>13.1f} {1e3 * result['seconds']:>8.1f}")
        print(f"{n:>6}", *cells, flush=True)
    if arguments.json:
        record = {"torch": torch.__version__, "results": results}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
