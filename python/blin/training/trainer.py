"""One loop for every model: learn from batches, validate, keep the best, test it once.

Models that learn by counting need no loop: they are counted, validated and tested.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from blin.batch import Batch, BatchSpec, Losses
from blin.checkpoint import (
    WEIGHTS_FILE,
    TrainedModel,
    model_config,
    open_run_dataset,
    outline,
    read_run_config,
    resolve_device,
    times_read,
)
from blin.config import build, check_known
from blin.data.dataset import Dataset
from blin.data.loader import Rows, TrainingLoader, training_interactions
from blin.errors import BlinError, CheckpointError, ConfigError, DataError, did_you_mean
from blin.evaluation.evaluator import evaluate
from blin.files import lock, remove_leftovers, replacing, sync
from blin.models import MODELS, Informed
from blin.models.distillation import Distilled
from blin.tensors import read_header
from blin.training.cold import with_pieces
from blin.training.config import TrainingConfig
from blin.training.distillation import KNOWLEDGE_FILE, TABLE, Distillation
from blin.training.interrupts import deferred_interrupts
from blin.training.log import logged
from blin.training.run_directory import (
    add_sitting,
    create_run,
    point_latest,
    write_config,
)
from blin.training.state import Progress, State, load_state, open_state, save_state
from blin.training.tensorboard import Curves, curves, require_tensorboard
from blin.turns import Turn

METRIC = "NDCG@10"
"""The validation metric that chooses the best epoch."""

_TRAINING = Turn()

STATE_FILE = "checkpoints/last.safetensors"

BEST_FILE = "checkpoints/best.safetensors"
"""The weights of a best epoch, until the state that knows of it is saved and they are moved."""

LOCK_FILE = "checkpoints/lock"

SAVE_SECONDS = 600.0
"""The state is saved after this time, also in the middle of an epoch."""

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Started:
    """Training begins, or goes on after so many epochs and steps of the next.

    ``left_out`` is the share of the steps of all users that no row holds.
    """

    run: Path
    epoch: int
    step: int
    finished: bool
    epochs: int
    steps_per_epoch: int
    parameters: int
    left_out: float
    settings: dict[str, object]


@dataclass(frozen=True)
class Step:
    """A batch was learned from; ``losses`` are those of the batch.

    ``users_per_second`` is the share of the epoch's steps since it began or went on, as users.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    users_per_second: float


@dataclass(frozen=True)
class Validated:
    """An epoch is over; ``losses`` are its means, ``data_wait`` the seconds it had no batch."""

    epoch: int
    losses: dict[str, float]
    metrics: dict[str, float]
    best: bool
    seconds: float
    data_wait: float


@dataclass(frozen=True)
class RunResult:
    """What a training came to.

    Attributes:
        run: the run directory.
        epochs: epochs trained; 0 for a model that learns by counting.
        best_epoch: the epoch whose model was kept; 0 likewise.
        seconds: wall-clock time, all sittings together.
        metrics: of the kept model on the test items, full ranking.
        valid_metrics: of the kept model on the validation items.
        protocol: what ``metrics`` were measured by.
    """

    run: Path
    epochs: int
    best_epoch: int
    seconds: float
    metrics: dict[str, float]
    valid_metrics: dict[str, float]
    protocol: dict[str, object]


Event = Started | Step | Validated


def train(
    dataset: Dataset,
    *,
    model: str = "blin",
    settings: Mapping[str, object] | None = None,
    runs_dir: Path,
    device: str = "auto",
    threads: int | None = None,
    tensorboard: bool = False,
    distillation: Distillation | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Trains a model and writes a run directory.

    Args:
        dataset: a prepared dataset.
        model: a key of ``MODELS``.
        settings: fields of the model's config and, unless it learns by counting, of
            :class:`TrainingConfig`, for which ``max_len`` is chosen by :func:`fitting_max_len` if
            it is not given.
        runs_dir: the run becomes ``<runs_dir>/<dataset>/<time>-<model>-s<seed>``, without the seed
            where nothing is drawn by chance.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch; None for its default.
        tensorboard: write curves for TensorBoard, to ``tb`` in the run.
        distillation: what the model is to learn from beside the data; None for nothing.
        on_event: told what happens.

    Raises:
        BlinError: TensorBoard is wanted and not installed.
        CheckpointError: The teacher has changed.
        ConfigError: A setting is unknown or out of range.
        KeyboardInterrupt: A stop was asked for; the state is saved, :func:`resume` goes on.
    """
    settings = dict(settings or {})
    check_settings(model, settings)
    if tensorboard:
        require_tensorboard()
    with _alone():
        if MODELS[model].counted and distillation is None and not tensorboard:
            return _count(dataset, model, settings, runs_dir, device, threads)
        trainer = new_trainer(
            dataset,
            model=model,
            settings=settings,
            device=device,
            threads=threads,
            distillation=distillation,
            on_event=on_event,
        )
        trainer.tensorboard = tensorboard
        with trainer.create_run(runs_dir):
            return trainer.fit()


@contextmanager
def _alone() -> Iterator[None]:
    """Lets one thread of the process train at a time, and gives torch back its number of threads.

    All threads draw from one generator of torch: two trainings at once would not be those of their
    seeds.
    """
    with _TRAINING:
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def new_trainer(
    dataset: Dataset,
    *,
    model: str,
    settings: Mapping[str, object] | None,
    device: str,
    threads: int | None,
    distillation: Distillation | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trainer:
    """Returns what :func:`train` trains with, for checked settings; no run is made yet."""
    if MODELS[model].counted:
        raise ConfigError(f"{model} learns by counting, in one go: it has no epochs")
    settings = resolved_settings(dataset, model, settings or {})
    return Trainer(dataset, model, settings, device, threads, on_event, distillation)


def resolved_settings(
    dataset: Dataset, model: str, settings: Mapping[str, object]
) -> dict[str, object]:
    """Returns all settings that a model is trained with on a dataset, those not given included.

    Two trainings of equal ones, on the same sequences, come to the same model.

    Args:
        dataset: what is learned from; ``max_len`` is chosen by it if it is not given.
        model: a key of ``MODELS``.
        settings: those that were given, checked.
    """
    merged = {**MODELS[model].defaults, **settings}
    if not MODELS[model].counted:
        merged.setdefault("max_len", fitting_max_len(dataset))
    return all_settings(model, merged)


def all_settings(model: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Returns settings with, for those that are missing, the defaults of their classes.

    Raises:
        ConfigError: There is no such model, or a value is out of range.
    """
    built = [asdict(build(cls, settings)) for cls in setting_classes(model)]
    return {name: value for part in built for name, value in part.items()}


def check_settings(
    model: str, settings: Mapping[str, object], *, other_keys: Iterable[str] = ()
) -> None:
    """Raises ConfigError unless there is a model of this name, with such settings.

    Args:
        model: a key of ``MODELS``.
        settings: fields of the classes that :func:`setting_classes` returns.
        other_keys: what may have been meant by a setting that there is not.
    """
    classes = setting_classes(model)
    check_known(settings, *classes, other_keys=other_keys)
    settings = {**MODELS[model].defaults, **settings}
    for cls in classes:
        build(cls, settings)


def resume(
    run: Path,
    *,
    data_dir: Path | None = None,
    settings: Mapping[str, object] | None = None,
    device: str = "auto",
    threads: int | None = None,
    tensorboard: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Goes on with a run that was stopped, as if it had not been.

    Args:
        run: the run directory.
        data_dir: where its dataset is, if it has moved.
        settings: ``epochs`` and ``patience`` may differ from before, nothing else.
        device: as for :func:`train`.
        threads: of torch; None for as many as the run had before.
        tensorboard: write curves for TensorBoard; a run that has some goes on with them.
        on_event: as for :func:`train`.

    Raises:
        CheckpointError: The run is damaged, or its dataset has changed.
        ConfigError: Another setting is to change.
    """
    config = read_run_config(run)
    if (model := MODELS.get(config["model"])) is not None and model.counted:
        raise CheckpointError(f"{run}: {config['model']} learns in one go: its run is complete")
    tensorboard = tensorboard or (run / "tb").is_dir()
    if tensorboard:
        require_tensorboard()
    # Sums split among another number of threads round differently.
    threads = config["threads"] if threads is None else threads
    changes = dict(settings or {})
    for name in changes:
        if name not in ("epochs", "patience"):
            raise ConfigError(f"{name}: a resumed run keeps its settings; train a new one instead")
    (run / LOCK_FILE).parent.mkdir(exist_ok=True)
    with _alone(), lock(run / LOCK_FILE, what=str(run)):
        dataset = open_run_dataset(run, config, data_dir=data_dir)
        _check_settings(run, config)
        distillation = Distillation.of_config(run / "config.toml", config)
        merged = {**config["settings"], **changes}
        build(TrainingConfig, merged)
        if (
            merged["epochs"] != config["settings"]["epochs"]
            and merged.get("schedule", "constant") != "constant"
        ):
            raise ConfigError(
                f"epochs: the schedule of this run ends at epoch "
                f"{config['settings']['epochs']}; train a new one instead"
            )
        state = _open_state(run, config, dataset, distillation)
        if state is not None and state.progress.epoch > merged["epochs"]:
            raise ConfigError(
                f"epochs: expected at least the {state.progress.epoch} that {run} has trained "
                f"already, found {merged['epochs']}"
            )
        waited = 0 if state is None else _longest_wait(state.progress)
        if "patience" in changes and waited >= merged["patience"]:
            raise ConfigError(
                f"patience: expected more than the {waited} epochs without a better one after "
                f"which {run} went on, found {merged['patience']}"
            )
        trainer = Trainer(dataset, config["model"], merged, device, threads, on_event, distillation)
        trainer.tensorboard = tensorboard
        if distillation is not None:
            progress = Progress() if state is None else state.progress
            if not _is_finished(progress, trainer.config):
                distillation.require(run / KNOWLEDGE_FILE)
        trainer.open_run(run, state)
        if changes:
            write_config(run, {**config, "settings": merged})
        return trainer.fit()


def _is_finished(progress: Progress, config: TrainingConfig) -> bool:
    out_of_patience = progress.epoch - progress.best_epoch >= config.patience
    return progress.epoch >= config.epochs or out_of_patience


def _longest_wait(progress: Progress) -> int:
    """Returns after how many epochs without a better one a training went on, at the most."""
    best, best_epoch, longest = float("-inf"), 0, 0
    for epoch, record in enumerate(progress.history[:-1], start=1):
        if record["valid"][METRIC] > best:
            best, best_epoch = record["valid"][METRIC], epoch
        longest = max(longest, epoch - best_epoch)
    return longest


def _check_settings(run: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless a model can be built and trained by a run's settings."""
    file, settings = run / "config.toml", config["settings"]
    own = {field.name for field in fields(TrainingConfig)}
    model_config(file, config["model"], {k: v for k, v in settings.items() if k not in own})
    try:
        build(TrainingConfig, settings)
        if missing := {"epochs", "patience", "seed"} - settings.keys():
            raise ConfigError(f"settings: expected {', '.join(sorted(missing))}, found none")
    except ConfigError as cause:
        raise CheckpointError(f"{file}: {cause}") from cause


def _open_state(
    run: Path, config: Mapping[str, Any], dataset: Dataset, distillation: Distillation | None
) -> State | None:
    """Returns the state that a run was left in, checked before memory is taken for its model.

    A run that was killed before it saved any has none, and begins anew.
    """
    path = run / STATE_FILE
    if not path.exists():
        if (run / "history.jsonl").exists():
            raise CheckpointError(f"{path}: missing: train a new run instead")
        return None
    header = read_header(path)
    name, settings = config["model"], config["settings"]
    built = build(MODELS[name].config, settings)
    most = len(header.tensors)
    module = outline(run / "config.toml", name, dataset.num_items, built, most=most)
    if distillation is not None:
        with torch.device("meta"):
            module = distillation.around(module)
    return open_state(path, header, module, _identity(name, dataset, settings, distillation))


def _identity(
    model: str,
    dataset: Dataset,
    settings: Mapping[str, object],
    distillation: Distillation | None,
) -> dict[str, object]:
    """Returns what a state must have in common with the run that goes on with it."""
    free = ("epochs", "patience")
    kept = {name: value for name, value in settings.items() if name not in free}
    taught = {} if distillation is None else {TABLE: distillation.identity}
    times = times_read(dataset, model, *([] if distillation is None else [distillation.model]))
    return {"model": model, "fingerprint": dataset.fingerprint, **times, **kept, **taught}


def setting_classes(model: str) -> tuple[type, ...]:
    """Returns the dataclasses whose fields are the settings of a model and of its training.

    Raises:
        ConfigError: There is no such model.
    """
    if model not in MODELS:
        hint = did_you_mean(model, MODELS) or "; blin models lists them"
        raise ConfigError(f'unknown model "{model}"{hint}')
    config = MODELS[model].config
    return (config,) if MODELS[model].counted else (config, TrainingConfig)


def fitting_max_len(dataset: Dataset) -> int:
    """Returns the shortest of 50, 100 and 200 that holds three of four training sequences whole."""
    # The last item of a sequence is a target only.
    typical = np.quantile(dataset.splits[:, 0], 0.75) - 1
    return next((length for length in (50, 100) if typical <= length), 200)


class Trainer:
    """A module, its optimiser, its batches and how far it has come.

    The module that learns is the model or, where the model is a student, the model with all that it
    learns by; validated, kept and tested is the model alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: str,
        settings: Mapping[str, object],
        device: str,
        threads: int | None,
        on_event: Callable[[Event], None] | None,
        distillation: Distillation | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.dataset = dataset
        self.device = resolve_device(device)
        self.tell = on_event or (lambda event: None)
        self.config = build(TrainingConfig, settings)
        model_config = build(MODELS[model].config, settings)
        self.settings = {**asdict(model_config), **asdict(self.config)}
        torch.manual_seed(self.config.seed)
        module = MODELS[model].module(dataset.num_items, model_config).to(self.device)
        if isinstance(module, Informed) and module.needs_interactions:
            module.inform(training_interactions(dataset))
        self.spec: BatchSpec = module.batch_spec  # type: ignore[assignment]
        if self.config.cold_share > 0 and self.spec.loss_positions == "last":
            raise ConfigError(
                f"cold_share: expected 0 where a row is a prefix, as {model} learns "
                f"(loss_positions = last), found {self.config.cold_share}"
            )
        self.trained = TrainedModel(model, module, dataset.item_ids)
        self.distillation = distillation
        self.module: nn.Module = module
        if distillation is not None:
            self.module = distillation.around(module).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.loader = TrainingLoader(
            dataset,
            self.module.batch_spec,  # type: ignore[arg-type]
            build(Rows, self.settings),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            pin_memory=self.device.type == "cuda",
        )
        # Of fp16 the smallest gradients would be lost; bf16 has the range of fp32.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.config.precision == "fp16"
        )
        self.progress = Progress()
        self.saved = time.perf_counter()
        self.run = Path()
        self.tensorboard = False
        self._curves: Curves | None = None
        self._speed: float | None = None
        self._log: Callable[[str], None] = lambda line: None

    def create_run(self, runs_dir: Path) -> IO[str]:
        """Makes the run directory, complete but for what training adds, and names it.

        Returns:
            Its lock, which keeps other processes away until it is closed.
        """

        def fill(new: Path) -> IO[str]:
            (new / "checkpoints").mkdir()
            self.trained.save_description(new / "model")
            return lock(new / LOCK_FILE, what=str(new))

        label, more = self.trained.name, dict[str, object]()
        if self.distillation is not None:
            label = f"{label}-distilled"
            more.update(times_read(self.dataset, self.distillation.model))
            more[TABLE] = self.distillation.table
        self.run, held = create_run(
            runs_dir,
            self.dataset,
            self.trained,
            self.settings,
            label=f"{label}-s{self.config.seed}",
            fill=fill,
            more=more,
        )
        return held

    def take_knowledge(self, file: Path | None = None) -> None:
        """Makes what the teacher knows known to the module; without a teacher there is nothing.

        Args:
            file: where it is kept; None to compute and keep it in memory.
        """
        if self.distillation is None or not isinstance(self.module, Distilled):
            return
        begin = time.perf_counter()
        if file is None:
            found = self.distillation.knowledge(self.dataset, device=self.device)
        else:
            found = self.distillation.kept_knowledge(file, self.dataset, device=self.device)
        self.module.knowledge = found
        self.progress.seconds += time.perf_counter() - begin

    def open_run(self, run: Path, state: State | None) -> None:
        """Takes up the state that a run was left in, and removes what a killed process left."""
        self.run = run
        own = (run, run / "checkpoints", run / "model", run / "eval")
        around = (run.parent, run.parent.parent) if run.parent.name == self.dataset.name else ()
        for directory in (*own, *around):
            remove_leftovers(directory)
        if state is not None:
            load_state(state, self.module, self.optimizer)
            self.progress = state.progress
            try:
                self.scaler.load_state_dict(self.progress.scaler)
            except (KeyError, RuntimeError, TypeError) as cause:
                raise CheckpointError(f"{state.path}: its scaler does not fit this run") from cause
            if self.progress.step > self.loader.steps_per_epoch:
                raise CheckpointError(
                    f"{state.path}: expected at most {self.loader.steps_per_epoch} steps of an "
                    f"epoch, found {self.progress.step}"
                )
        self._take_best()
        if self.progress.best_epoch == 0:
            self.trained.save_description(run / "model")
        else:
            self._check_best()
        if state is not None:
            if not (run / "history.jsonl").exists():
                # Killed before it became the latest; with a history nobody would look for it.
                self._become_latest()
            self._write_history()
        if not self._is_finished():
            add_sitting(run, self.device, epoch=self.progress.epoch, step=self.progress.step)

    def _take_best(self) -> None:
        """Moves the weights of the best epoch to the model, now that the state knows of it.

        What the run had been evaluated by before is of another model then, and goes first.

        Weights of an epoch that the state does not know of are of no use: the process was killed
        before it saved that epoch, which will be trained again.
        """
        staged = self.run / BEST_FILE
        if not staged.exists():
            return
        if read_header(staged).about.get("epoch") == self.progress.best_epoch:
            for stale in (self.run / "eval").glob("[!.]*"):
                stale.unlink()
            staged.replace(self.run / "model" / WEIGHTS_FILE)
            sync(self.run / "model")
        else:
            staged.unlink()
        sync(staged.parent)

    def _check_best(self) -> None:
        """Raises CheckpointError unless the model of the run is that of the state's best epoch."""
        path = self.run / "model"
        model = TrainedModel.load(path)
        if model.description != self.trained.description:
            raise CheckpointError(f"{path}: expected the model of this run, found another")
        expected = self.progress.best_epoch
        found = read_header(path / WEIGHTS_FILE).about.get("epoch", expected)
        if found != expected:
            raise CheckpointError(
                f"{path / WEIGHTS_FILE}: expected the weights of epoch {expected}, the best of "
                f"{STATE_FILE}, found those of epoch {found!s:.20}"
            )

    def fit(self) -> RunResult:
        """Trains to the end and tests the best model."""
        with logged(self.run) as self._log:
            self._begin()
            if not self._is_finished():
                self.take_knowledge(self.run / KNOWLEDGE_FILE)
            self._train()
            return self._test()

    def _begin(self) -> None:
        """Tells what is about to be trained, or to go on."""
        progress, config = self.progress, self.config
        started = Started(
            run=self.run,
            epoch=progress.epoch,
            step=progress.step,
            finished=self._is_finished(),
            epochs=config.epochs,
            steps_per_epoch=self.loader.steps_per_epoch,
            parameters=sum(p.numel() for p in self.trained.module.parameters()),
            left_out=self.loader.left_out,
            settings=self.settings,
        )
        if started.finished:
            self._log(f"nothing is left to train after epoch {started.epoch}: tested again")
        elif started.epoch or started.step:
            self._log(f"goes on after epoch {started.epoch}, step {started.step} of the next")
        else:
            self._log(
                f"begins: {started.parameters:,} parameters, {started.steps_per_epoch:,} steps "
                f"an epoch, up to {started.epochs} epochs, on {self.device}"
            )
        self.tell(started)

    def _train(self) -> None:
        """Trains to the last epoch, or until a signal asks for a stop."""
        progress = self.progress
        # Also where nothing is left to train: the curves of a finished run may be missing.
        with self._open_curves() as self._curves, deferred_interrupts() as stop:
            while not self._is_finished():
                begin, before = time.perf_counter(), progress.seconds
                self.loader.waited, self._speed = 0.0, None
                first = progress.step
                for batch in self.loader.epoch(progress.epoch, first_step=first):
                    losses = self.step(batch.to(self.device))
                    # In windows or prefixes a user is learned from several times an epoch.
                    share = (progress.step - first) / self.loader.steps_per_epoch
                    users = share * self.dataset.num_users
                    speed = users / max(1e-9, time.perf_counter() - begin)
                    self._speed = round(speed, 1)
                    self.tell(Step(progress.epoch + 1, progress.step, losses, speed))
                    if stop or time.perf_counter() - self.saved > SAVE_SECONDS:
                        progress.seconds = before + time.perf_counter() - begin
                        self._save()
                    if stop:
                        raise stop.exception()
                self._finish_epoch(begin, before)
                if stop:
                    raise stop.exception()

    def _is_finished(self) -> bool:
        return _is_finished(self.progress, self.config)

    def _open_curves(self) -> AbstractContextManager[Curves | None]:
        if not self.tensorboard:
            return nullcontext()
        return curves(self.run / "tb", self.progress.history)

    def step(self, batch: Batch) -> dict[str, float]:
        """Learns from a batch and returns its losses."""
        progress, config = self.progress, self.config
        epoch = progress.epoch + (progress.step + 0.5) / self.loader.steps_per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        batch = with_pieces(batch, self.spec, share=config.cold_share, longest=config.cold_items)
        half = config.precision != "fp32"
        with torch.autocast(self.device.type, _PRECISIONS[config.precision], enabled=half):
            losses: Losses = self.module(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        if config.max_grad_norm > 0:
            self.scaler.unscale_(self.optimizer)
            model = dict.fromkeys(self.trained.module.parameters())
            others = [each for each in self.module.parameters() if each not in model]
            # Apart, so that what a student learns by has no part in its steps.
            for parameters in (model, others):
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        values = {name: float(value) for name, value in losses.parts.items()}
        if not all(abs(value) < float("inf") for value in values.values()):
            raise BlinError(
                f"{self.run}: the loss is no longer finite in epoch {progress.epoch + 1}, "
                f"step {progress.step + 1}: try a lower learning_rate"
            )
        progress.step += 1
        for name, value in values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.counts[name] = progress.counts.get(name, 0) + 1
        return values

    def _finish_epoch(self, begin: float, before: float) -> None:
        """Validates, keeps the model if it is the best yet, and saves the state."""
        progress = self.progress
        steps = self.loader.steps_per_epoch
        means = {name: total / progress.counts[name] for name, total in progress.sums.items()}
        metrics = evaluate(self.trained, self.dataset, k=(10, 20), split="valid").metrics
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.counts = {}, {}
        best = metrics[METRIC] > progress.best_metric
        if best:
            progress.best_epoch, progress.best_metric = progress.epoch, metrics[METRIC]
            self.trained.save_weights(self.run / BEST_FILE, epoch=progress.epoch)
        progress.seconds = before + time.perf_counter() - begin
        record = {
            "epoch": progress.epoch,
            "losses": means,
            "valid": metrics,
            "learning_rate": self.config.learning_rate_at(progress.epoch - 0.5 / steps),
            "users_per_second": self._speed,
            "seconds": round(progress.seconds, 3),
            "data_wait": round(self.loader.waited, 3),
        }
        progress.history.append(record)
        self._save()
        self._take_best()
        self._write_history()
        if self._curves is not None:
            self._curves.write(record)
        seconds = time.perf_counter() - begin
        parts = "".join(f"{name} {value:.4f}, " for name, value in means.items())
        self._log(
            f"epoch {progress.epoch}: {parts}validation {METRIC} {metrics[METRIC]:.4f}"
            f"{', the best' if best else ''}"
        )
        self.tell(Validated(progress.epoch, means, metrics, best, seconds, self.loader.waited))

    def _write_history(self) -> None:
        """Writes the history, always after the state: where it is, there is a state."""
        lines = "".join(json.dumps(record) + "\n" for record in self.progress.history)
        with replacing(self.run / "history.jsonl") as temporary:
            temporary.write_text(lines, encoding="utf-8")

    def _save(self) -> None:
        """Saves the state; from now on the run can be resumed, and is the latest."""
        self.progress.scaler = self.scaler.state_dict()
        identity = _identity(self.trained.name, self.dataset, self.settings, self.distillation)
        save_state(self.run / STATE_FILE, self.module, self.optimizer, self.progress, identity)
        self.saved = time.perf_counter()
        self._become_latest()

    def _become_latest(self) -> None:
        if self.run.parent.name == self.dataset.name:
            point_latest(self.run)

    def _test(self) -> RunResult:
        """Evaluates the kept model on the test items."""
        best = TrainedModel.load(self.run / "model", device=self.device)
        evaluation = evaluate(best, self.dataset, k=(10, 20), split="test")
        progress = self.progress
        evaluation.save(self.run / "eval")
        if isinstance(self.module, Distilled):
            self.module.knowledge = None
            (self.run / KNOWLEDGE_FILE).unlink(missing_ok=True)
        found = ", ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items())
        self._log(f"finished: epoch {progress.best_epoch} is the best; test {found}")
        return RunResult(
            run=self.run,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            seconds=progress.seconds,
            metrics=evaluation.metrics,
            valid_metrics=progress.history[progress.best_epoch - 1]["valid"],
            protocol=evaluation.protocol,
        )


def _count(
    dataset: Dataset,
    model: str,
    settings: Mapping[str, object],
    runs_dir: Path,
    device: str,
    threads: int | None,
) -> RunResult:
    """Trains a model that learns by counting; its run is there with the model or not at all."""
    begin = time.perf_counter()
    if threads is not None:
        torch.set_num_threads(threads)
    config, where = build(MODELS[model].config, settings), resolve_device(device)
    module = MODELS[model].module(dataset.num_items, config)
    interactions = training_interactions(dataset)
    try:
        module.count(interactions)  # type: ignore[operator]
    except DataError as cause:
        raise DataError(f"{dataset.path}: {cause}") from cause
    trained = TrainedModel(model, module.to(where), dataset.item_ids)
    valid = evaluate(trained, dataset, k=(10, 20), split="valid").metrics
    test = evaluate(trained, dataset, k=(10, 20), split="test")
    seconds = time.perf_counter() - begin
    record = {"epoch": 0, "losses": {}, "valid": valid, "seconds": round(seconds, 3)}

    def fill(new: Path) -> None:
        trained.save(new / "model")
        with replacing(new / "history.jsonl") as history:
            history.write_text(json.dumps(record) + "\n", encoding="utf-8")

    run, _ = create_run(runs_dir, dataset, trained, asdict(config), label=model, fill=fill)
    test.save(run / "eval")
    point_latest(run)
    return RunResult(run, 0, 0, seconds, test.metrics, valid, test.protocol)
