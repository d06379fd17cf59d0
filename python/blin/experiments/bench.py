"""What attention costs: softmax against linear, by the length of the histories (Blin, Figure 6).

Each case is a process of its own, so that the memory of one is not in the next. It makes the very
training steps that ``blin train`` makes, on drawn histories that fill their rows. A model's
attention is exchanged in place: the projections around it, and so all parameters, stay.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from blin.checkpoint import resolve_device
from blin.config import build
from blin.data.dataset import load_dataset
from blin.data.memory import peak_memory_bytes
from blin.data.prepare import preprocess
from blin.errors import BlinError, ConfigError
from blin.experiments.pictures import picture
from blin.models import MODELS
from blin.nn.attention.heads import MultiHeadAttention
from blin.nn.attention.linear import LinearAttention
from blin.nn.attention.softmax import SoftmaxAttention
from blin.training.trainer import check_settings, new_trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS = (50, 100, 200, 500, 1000, 2000)
COMPARED = ("sasrec", "bert4rec", "blin")
ATTENTIONS = ("softmax", "linear")
EPOCHS = 10
"""The figure's unit of time."""

_HELD_OUT = 3
"""Items of a history that fill no position: the first has nothing to be predicted from, two are
held out."""

_LONGEST = 1_000_000
"""Seconds that a case may take at most: what no system waits for is no limit."""

_PROCESS = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from blin.experiments.bench import main; main()"
)
"""Its modules are found where those of this process are, and nowhere else."""

_TAIL = 300
"""Characters of what a process that failed said last."""


@dataclass(frozen=True)
class Work:
    """What is alike in all cases.

    Attributes:
        users: in an epoch; the seconds of an epoch are those of its steps, as measured on a few.
        items: that histories are drawn from.
        batch_size: histories in a step.
        steps: that are timed, after one that is not.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch; None for its default.
        seed: of the histories and the training.
        limit: seconds that a case may take, its start included.
        settings: of the models and their training.
    """

    users: int = 1024
    items: int = 1000
    batch_size: int = 32
    steps: int = 3
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    limit: float = 120.0
    settings: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Case:
    """What is measured: a model with an attention, on histories of a length."""

    model: str
    attention: str
    length: int


@dataclass(frozen=True)
class Cost:
    """What a case took.

    Attributes:
        seconds: of each timed step.
        memory: the most bytes at once: of a GPU by its tensors; of a CPU's memory by the process,
            with Python and its libraries.
        before: of them, those that were taken before there was a model.
        parameters: numbers that the model learns.
        shapes: of what its attentions gave in the first step.
        device: where it was computed.
        threads: of torch.
        rows: that a history is in an epoch: one, or one for each of its prefixes.
    """

    seconds: tuple[float, ...]
    memory: int
    before: int
    parameters: int
    shapes: tuple[tuple[int, ...], ...]
    device: str
    threads: int
    rows: int = 1

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Cost:
        """Returns one that went through JSON."""
        lists = {
            "seconds": tuple(told["seconds"]),
            "shapes": tuple(tuple(shape) for shape in told["shapes"]),
        }
        return cls(**{**told, **lists})

    @property
    def step(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def taken(self) -> int:
        """The bytes of the training alone: the most at once, less those from before."""
        return self.memory - self.before


@dataclass(frozen=True)
class Outcome:
    """A case with what it took, or why that is not known."""

    case: Case
    cost: Cost | None
    reason: str = ""


def measure(
    models: Sequence[str] = COMPARED,
    lengths: Sequence[int] = LENGTHS,
    *,
    work: Work,
    known: Sequence[Outcome] = (),
    on_outcome: Callable[[Outcome, int, int], None] | None = None,
) -> list[Outcome]:
    """Measures each model with both attentions at each length.

    A case that takes too long, or too much memory, ends; longer ones of the same model and
    attention are then not tried.

    Args:
        models: keys of ``MODELS`` whose blocks have an attention that can be exchanged.
        lengths: positions of a row.
        work: what is alike in all cases.
        known: outcomes of the same work, which are not measured again.
        on_outcome: called with each outcome, the cases done and the cases to do.

    Raises:
        ConfigError: A model or a setting is unknown or does not fit.
        BlinError: A case failed, or the two attentions differ in more than they should.
    """
    lengths = sorted(set(lengths))
    _check(models, lengths, work)
    outcomes: list[Outcome] = []
    before = {each.case: each for each in known}
    total = len(models) * len(lengths) * len(ATTENTIONS)
    with tempfile.TemporaryDirectory(prefix="blin-bench-") as scratch:
        for length in lengths:
            data: Path | None = None
            for model in models:
                for attention in ATTENTIONS:
                    case = Case(model, attention, length)
                    outcome = before.get(case) or _given_up(case, outcomes)
                    if outcome is None:
                        data = data or _histories(Path(scratch), length, work)
                        outcome = _run(case, data, work)
                    outcomes.append(outcome)
                    if on_outcome is not None:
                        on_outcome(outcome, len(outcomes), total)
                _check_alike(*outcomes[-len(ATTENTIONS) :])
    return outcomes


def cases_left(lengths: Sequence[int], known: Sequence[Outcome]) -> int:
    """Returns how many cases of the figure are not known yet."""
    every = {
        Case(model, attention, length)
        for length in lengths
        for model in COMPARED
        for attention in ATTENTIONS
    }
    return len(every - {each.case for each in known})


def exchange_attention(module: nn.Module, attention: str) -> int:
    """Gives a model the other attention wherever it has one of the two, and returns how often.

    The projections and the local branch stay what they are, so the parameters do. Softmax attention
    drops weights as the model has it; there is nothing to drop in the linear one, and nothing is
    dropped where the softmax one takes its place.

    Args:
        module: the model.
        attention: ``softmax`` or ``linear``.
    """
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, LinearAttention | SoftmaxAttention)
    ]
    kind = {"softmax": SoftmaxAttention, "linear": LinearAttention}[attention]
    for parent, name, child in found:
        if isinstance(child, kind):
            continue
        with torch.device("meta"):
            other = kind(
                child.out.in_features, child.num_heads, causal=child.causal, local=child.local
            )
        other.qkv, other.out = child.qkv, child.out
        setattr(parent, name, other.train(child.training))
    return len(found)


def run_case(case: Case, data: Path, work: Work) -> Cost:
    """Measures a case in this process.

    Args:
        case: what to measure.
        data: the directory of a prepared dataset of full rows.
        work: how much.
    """
    dataset = load_dataset(data)
    where = resolve_device(work.device)
    on_gpu = where.type == "cuda"
    if on_gpu:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the next call may find it undone
        torch.cuda.reset_peak_memory_stats(where)
    before = torch.cuda.memory_allocated(where) if on_gpu else peak_memory_bytes()
    trainer = new_trainer(
        dataset,
        model=case.model,
        settings=_settings(case, work),
        device=work.device,
        threads=work.threads,
    )
    module = trainer.module
    exchange_attention(module, case.attention)
    shapes: list[tuple[int, ...]] = []
    hooks = [
        each.register_forward_hook(lambda _, given, out: shapes.append(tuple(out.shape)))
        for each in module.modules()
        if isinstance(each, MultiHeadAttention)
    ]
    batches = (batch for epoch in count() for batch in trainer.loader.epoch(epoch))
    seconds = []
    for number in range(work.steps + 1):
        begin = time.perf_counter()
        trainer.step(next(batches).to(where))
        if on_gpu:
            torch.cuda.synchronize(where)
        if number == 0:
            for hook in hooks:
                hook.remove()
        else:
            seconds.append(time.perf_counter() - begin)
    return Cost(
        seconds=tuple(seconds),
        memory=torch.cuda.max_memory_allocated(where) if on_gpu else peak_memory_bytes(),
        before=before,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        shapes=tuple(shapes),
        device=str(where),
        threads=torch.get_num_threads(),
        rows=len(trainer.loader.users) // dataset.num_users,
    )


def draw(outcomes: Sequence[Outcome], path: Path, *, work: Work) -> None:
    """Draws time and memory over the length, one line for each model and attention.

    Args:
        outcomes: what :func:`measure` returned.
        path: an SVG, PNG or PDF file; written whole or not at all.
        work: what was measured with.
    """
    measured = [(each.case, each.cost) for each in outcomes if each.cost is not None]
    with picture(path) as figure:
        left, right = figure.subplots(1, 2)
        _draw_lines(left, measured, lambda cost: epoch_seconds(cost, work) * EPOCHS)
        left.set(ylabel=f"seconds of {EPOCHS} epochs")
        _draw_lines(right, measured, lambda cost: cost.taken / 1e6)
        right.set(ylabel="peak memory beyond the start, MB")
        left.legend(frameon=False, fontsize=8)


def epoch_seconds(cost: Cost, work: Work) -> float:
    """Returns the seconds of an epoch, by those of a step; the last may be smaller."""
    return cost.step * -(-work.users * cost.rows // work.batch_size)


def _draw_lines(
    axes: Axes, measured: Iterable[tuple[Case, Cost]], value: Callable[[Cost], float]
) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for case, cost in measured:
        lines.setdefault((case.model, case.attention), []).append((case.length, value(cost)))
    models = list(dict.fromkeys(model for model, _ in lines))
    for (model, attention), places in lines.items():
        axes.plot(
            [length for length, _ in places],
            [height for _, height in places],
            "--" if attention == "softmax" else "-",
            color=f"C{models.index(model) % 10}",
            marker="o",
            markersize=3,
            label=f"{model}, {attention}",
        )
    lengths = sorted({length for places in lines.values() for length, _ in places})
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_xticks([], minor=True)
    # Short cases may take no more memory than the process had before.
    if any(height > 0 for places in lines.values() for _, height in places):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="length of the histories")
    axes.grid(alpha=0.3)


def _check(models: Sequence[str], lengths: Sequence[int], work: Work) -> None:
    """Raises ConfigError for what could not be measured, before anything is."""
    for name in ("users", "items", "batch_size", "steps"):
        if getattr(work, name) < 1:
            raise ConfigError(f"{name}: expected at least 1, found {getattr(work, name)}")
    if not 0 < work.limit <= _LONGEST:
        raise ConfigError(f"limit: expected 0 to {_LONGEST:,} seconds, found {work.limit}")
    for name, option in (("max_len", "lengths"), ("batch_size", "batch_size"), ("seed", "seed")):
        if name in (work.settings or {}):
            raise ConfigError(f"{name}: it is no setting of a bench: {option} says what it is")
    if not models or not lengths or lengths[0] < 1:
        raise ConfigError("expected models, and lengths of at least 1")
    resolve_device(work.device)
    least = _users_drawn(work) * (lengths[0] + _HELD_OUT)
    if work.items > least:
        raise ConfigError(f"items: expected at most the {least} that are drawn, found {work.items}")
    for name in models:
        if name in MODELS and MODELS[name].counted:
            raise ConfigError(f"{name} learns by counting: it has no attention")
        settings = _settings(Case(name, ATTENTIONS[0], lengths[0]), work)
        check_settings(name, settings)
        config = build(MODELS[name].config, {**MODELS[name].defaults, **settings})
        with torch.device("meta"):
            module = MODELS[name].module(1, config)
        if exchange_attention(module, "linear") == 0:
            raise ConfigError(
                f"{name}: expected a model with softmax or linear attention, found neither in it"
            )


def _settings(case: Case, work: Work) -> dict[str, object]:
    own = {"max_len": case.length, "batch_size": work.batch_size, "seed": work.seed}
    return {**(work.settings or {}), **own}


def _users_drawn(work: Work) -> int:
    """Returns how many histories are drawn: no step is measured twice."""
    return work.batch_size * (work.steps + 1)


def _histories(directory: Path, length: int, work: Work) -> Path:
    """Prepares a dataset of histories that fill rows of a length, and returns its directory."""
    import pyarrow as pa

    generator = np.random.default_rng((work.seed, length))
    users, each = _users_drawn(work), length + _HELD_OUT
    items = generator.integers(work.items, size=users * each)
    # All items occur, so that models are of one size at every length.
    items[generator.permutation(len(items))[: work.items]] = np.arange(work.items)
    table = pa.table(
        {
            "user": np.repeat(np.arange(users), each),
            "item": items,
            "timestamp": np.tile(np.arange(each), users),
        }
    )
    name = f"length-{length}"
    return preprocess(table, data_dir=directory, name=name, min_interactions=1).path


def _given_up(case: Case, outcomes: Iterable[Outcome]) -> Outcome | None:
    """Returns the outcome of a case that is not tried, for a shorter one has not come through."""
    for before in outcomes:
        alike = (before.case.model, before.case.attention) == (case.model, case.attention)
        if alike and before.cost is None:
            return Outcome(case, None, f"not tried: {before.reason} at {before.case.length}")
    return None


def _run(case: Case, data: Path, work: Work) -> Outcome:
    """Measures a case in a process of its own."""
    request = {"case": asdict(case), "data": str(data), "work": asdict(work)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROCESS, json.dumps(sys.path)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=work.limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(case, None, f"too long (over {work.limit:g} s)")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        # The system ends a process that takes all memory without asking it.
        if done.returncode == -9:
            return Outcome(case, None, "out of memory")
        said = " ".join(done.stderr.split())[-_TAIL:]
        raise BlinError(
            f"{case.model}, {case.attention} attention, length {case.length}: its process ended "
            f"with code {done.returncode}: {said}"
        ) from None
    if "reason" in answer:
        return Outcome(case, None, answer["reason"])
    return Outcome(case, Cost.of(answer))


def _check_alike(softmax: Outcome, linear: Outcome) -> None:
    """Raises BlinError unless two outcomes are of models that differ in their attention alone."""
    if softmax.cost is None or linear.cost is None:
        return
    for name in ("parameters", "shapes"):
        here, there = getattr(softmax.cost, name), getattr(linear.cost, name)
        if here != there:
            raise BlinError(
                f"{linear.case.model}, length {linear.case.length}: {name}: expected {here} with "
                f"linear attention, as with softmax, found {there}"
            )


def main() -> None:
    """Measures what stdin asks for, and answers on stdout."""
    print(json.dumps(_answer(json.load(sys.stdin))))


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the process of a case has to say: its cost, or why there is none."""
    work = Work(**request["work"])
    if resolve_device(work.device).type == "cpu":
        _leave_others_their_memory()
    try:
        return asdict(run_case(Case(**request["case"]), Path(request["data"]), work))
    except (MemoryError, RuntimeError) as error:
        # torch has an exception for a GPU's memory; a CPU's is told by its message alone.
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return {"reason": "out of memory"}


def _leave_others_their_memory() -> None:
    """Lets the process fail, rather than fill the machine, where Linux says what is left of it."""
    try:
        import resource

        left = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(left) * 1024, most))
    except (ImportError, OSError, IndexError, ValueError):
        return
