"""Trained models and runs on disk: safetensors and JSON, nothing that could execute.

A model directory holds ``config.json``, ``model.safetensors`` and ``items.parquet``; a run
directory holds one as ``model/``, and around it what the training wrote.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec
from blin.config import build, check_known, whole_number, with_earlier
from blin.data.dataset import Dataset, is_dataset, load_dataset
from blin.errors import CheckpointError, ConfigError, DataError, reason_of
from blin.files import parse_json, read_bounded, replacing
from blin.models import MODELS
from blin.nn.sparse import SparseRows
from blin.tensors import (
    FORMAT_VERSION,
    Header,
    check_finite,
    check_tensors,
    check_version,
    read_header,
    read_tensors,
    tensors_of,
    write_tensors,
    written_by,
)
from blin.vocabulary import Vocabulary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DESCRIPTION_LIMIT = 1 << 20
"""Bytes of a ``config.json`` or ``config.toml``."""

WEIGHTS_FILE = "model.safetensors"

TIMES = "times"
"""Of ``config.toml``, what tells the times that were learned from."""


class TrainedModel:
    """A module with its item ids, ready to score; always in evaluation mode.

    Args:
        name: the model's key in ``MODELS``.
        module: the module.
        item_ids: the raw ids of items 1…V.
    """

    def __init__(self, name: str, module: nn.Module, item_ids: Vocabulary) -> None:
        self.name = name
        self.module = module
        self.item_ids = item_ids

    @property
    def num_items(self) -> int:
        """V; items are 1…V."""
        return len(self.item_ids)

    @property
    def batch_spec(self) -> BatchSpec:
        """What its batches must be."""
        return self.module.batch_spec  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        some: Tensor = next(iter(self.module.state_dict().values()))
        return some.device

    def score(self, batch: Batch, candidates: Tensor | None = None) -> Tensor:
        """Returns (B, V + 1) scores of the next item, or (B, K) for the candidates."""
        training = self.module.training
        if training:
            self.module.eval()
        try:
            with torch.no_grad():
                device = self.device
                if candidates is not None:
                    candidates = candidates.to(device)
                return self.module.score(batch.to(device), candidates)  # type: ignore[no-any-return, operator]
        finally:
            if training:
                self.module.train()

    @property
    def description(self) -> dict[str, Any]:
        """What weights belong to: the model, its items and its config."""
        return {
            "model": self.name,
            "num_items": self.num_items,
            "items": self.item_ids.fingerprint,
            "config": asdict(self.module.config),  # type: ignore[call-overload]
        }

    def save(self, path: Path) -> None:
        """Writes the model directory."""
        path.mkdir(parents=True, exist_ok=True)
        self.save_description(path)
        self.save_weights(path / WEIGHTS_FILE)

    def save_description(self, path: Path) -> None:
        """Writes all of the model directory but the weights."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        description = {**written_by(), **self.description}
        with replacing(path / "items.parquet") as temporary:
            table = pa.table({"id": self.item_ids.ids})
            pq.write_table(table, temporary, write_page_checksum=True)
        with replacing(path / "config.json") as temporary:
            temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def save_weights(self, file: Path, *, epoch: int | None = None) -> None:
        """Writes the weights, with what they belong to and the epoch they are of."""
        about: dict[str, Any] = {"description": self.description}
        if epoch is not None:
            about["epoch"] = epoch
        write_tensors(file, self.module.state_dict(), about)

    @classmethod
    def load(cls, path: Path, *, device: torch.device | str = "cpu") -> TrainedModel:
        """Reads a model directory.

        What the files say is held against each other before memory is taken for it.

        Raises:
            CheckpointError: A file is missing, damaged, or belongs to another model.
        """
        file, weights = path / "config.json", path / WEIGHTS_FILE
        description, module, header = _outlined(path)
        name, num_items = description["model"], description["num_items"]
        sparse = _make_room(module, header)
        check_tensors(weights, header, tensors_of(module))
        # The description may be older than the weights, and know less of the settings.
        description["config"] = asdict(module.config)  # type: ignore[call-overload]
        _check_description(file, description, header)
        ids = path / "items.parquet"
        item_ids = Vocabulary.read(ids, first=1, error=CheckpointError, expected=num_items)
        if description.get("items", item_ids.fingerprint) != item_ids.fingerprint:
            raise CheckpointError(f"{ids}: expected the items of {file.name}, found other ids")
        tensors = read_tensors(weights, header)
        check_finite(weights, tensors)
        module.load_state_dict(tensors, assign=True)
        for prefix, part in sparse.items():
            try:
                part.check()
            except ValueError as cause:
                raise CheckpointError(f"{weights}: tensor {prefix}.{cause}") from cause
        return cls(name, module.to(device).eval(), item_ids)


@dataclass(frozen=True)
class Run:
    """A run directory: the best model of a training, and what it was trained on."""

    path: Path
    config: Mapping[str, Any]
    model: TrainedModel

    def dataset(self, *, data_dir: str | Path | None = None) -> Dataset:
        """Opens the dataset the run was trained on.

        Raises:
            CheckpointError: The dataset of that name has other sequences now.
        """
        where = None if data_dir is None else Path(data_dir)
        return open_run_dataset(self.path, self.config, data_dir=where)


def open_run_dataset(
    run: Path, config: Mapping[str, Any], *, data_dir: Path | None = None
) -> Dataset:
    """Opens the dataset that a run names and checks that it is still the same."""
    places = [Path(config["dataset_path"])]
    if data_dir is not None:
        places.insert(0, data_dir / config["dataset"])
    for place in places:
        if is_dataset(place):
            break
    else:
        raise DataError(
            f'{run}: its dataset "{config["dataset"]}" is not in '
            f"{' or '.join(str(place.parent) for place in places)}: prepare it again, "
            "or say with --data-dir where it is"
        )
    dataset = load_dataset(place)
    if dataset.fingerprint != config["fingerprint"]:
        raise CheckpointError(
            f"{run}: expected the dataset it was trained on, found other sequences in "
            f"{dataset.path}"
        )
    check_times(run, config.get(TIMES), dataset)
    known = Vocabulary.read(run / "model" / "items.parquet", first=1, error=CheckpointError)
    if not known.equals(dataset.item_ids):
        raise CheckpointError(
            f"{run}: expected the items it was trained on, found other ids in {dataset.path}"
        )
    return dataset


def times_read(dataset: Dataset, *models: str) -> dict[str, str]:
    """Returns what tells trainings on other times apart, for a ``config.toml`` and the like.

    The fingerprint is of the sequences alone.

    Args:
        dataset: what is learned from.
        models: whose training it is; of models that read no times nothing is returned.
    """
    return {TIMES: _times_of(dataset)} if any(MODELS[name].reads_times for name in models) else {}


def has_times(dataset: Dataset, recorded: object) -> bool:
    """Returns whether a dataset has the times that :func:`times_read` returned.

    None is of a training that reads none, or that an older version wrote down: any will do.
    """
    return recorded is None or recorded == _times_of(dataset)


def check_times(place: Path | str, recorded: object, dataset: Dataset) -> None:
    """Raises CheckpointError unless a dataset has the times that a place has recorded."""
    if not has_times(dataset, recorded):
        raise CheckpointError(
            f"{place}: expected the times it was trained with, {recorded!s:.100}, found "
            f"{_times_of(dataset)} in {dataset.path}"
        )


def _times_of(dataset: Dataset) -> str:
    found = dataset.times_checksum
    return "none" if found is None else f"crc32:{found:08x}"


def find_run(runs_dir: Path, run: str | Path | None = None, *, unsaved: bool = False) -> Path:
    """Returns a run directory: the named one, or the latest.

    Args:
        runs_dir: where runs live.
        run: a run directory, or its path below ``runs_dir``; None for the latest run.
        unsaved: let the latest be a run that was killed before it finished an epoch.

    Raises:
        CheckpointError: There is none.
    """
    if run is None:
        latest = runs_dir / "latest"
        if unsaved and (begun := _unsaved_since(runs_dir, latest)):
            return begun.resolve()
        if (latest / "config.toml").exists():
            return latest.resolve()
        if latest.is_symlink():
            raise CheckpointError(
                f"{latest}: expected a link to a run, found one to {latest.readlink()}, where none "
                "is: name the directory of a run"
            )
        raise CheckpointError(
            f"no run in {runs_dir}: train a model with blin train --dataset NAME, "
            "or name its directory"
        )
    for path in (Path(run), runs_dir / run):
        if (path / "config.toml").exists():
            return path.resolve()
    what = "a directory that is no run" if Path(run).is_dir() else "no such directory"
    raise CheckpointError(f"{run}: expected a run directory with a config.toml, found {what}")


def _unsaved_since(runs_dir: Path, latest: Path) -> Path | None:
    """Returns the last run that began after the latest was saved, and has finished no epoch.

    The link is moved when a run has saved for the first time, and a run may be killed before.
    """
    state = Path("checkpoints", "last.safetensors")
    try:
        saved = (latest / state).stat().st_mtime_ns
    except OSError:
        saved = 0
    begun = {
        file.stat().st_mtime_ns: file.parent
        for file in runs_dir.glob("[!.]*/[!.]*/config.toml")
        if not (file.parent / "history.jsonl").exists()
    }
    return begun[max(begun)] if begun and max(begun) > saved else None


def read_run_config(path: Path) -> dict[str, Any]:
    """Reads and checks the ``config.toml`` of a run.

    Raises:
        CheckpointError: It is damaged, or of another version.
    """
    file = path / "config.toml"
    try:
        config = tomllib.loads(read_bounded(file, limit=DESCRIPTION_LIMIT).decode())
    except (OSError, ValueError, RecursionError) as cause:
        raise CheckpointError(f"{file}: expected TOML, found: {reason_of(cause)}") from cause
    check_version(file, {"format_version": FORMAT_VERSION, **config})
    kinds = {"model": str, "dataset": str, "dataset_path": str, "fingerprint": str}
    config.setdefault("threads", 1)
    for name, kind in {**kinds, "settings": dict, "threads": int}.items():
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"{file}: expected {name}, found {config.get(name)!r:.100}")
    if not 1 <= config["threads"] <= 4096:
        raise CheckpointError(f"{file}: expected threads from 1 on, found {config['threads']}")
    config["settings"] = run_settings(config["model"], config["settings"])
    return config


def run_settings(model: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Returns the settings that a run's ``config.toml`` means, whatever version wrote it.

    Args:
        model: of the run; of one that blin does not know nothing is said.
        settings: as they stand in the file.
    """
    return with_earlier(settings, MODELS[model].config) if model in MODELS else dict(settings)


def load_run(
    path: str | Path, *, device: torch.device | str = "cpu", threads: int | None = None
) -> Run:
    """Loads the best model of a run.

    Args:
        path: the run directory.
        device: where its model computes.
        threads: of torch, from then on; None for as many as it has.

    Raises:
        CheckpointError: The run has no model yet, or one that does not fit.
    """
    path = Path(path)
    config = read_run_config(path)
    file = path / "model" / WEIGHTS_FILE
    if not file.exists():
        if (path / "history.jsonl").exists():
            raise CheckpointError(f"{file}: missing: copy it back, or train a new run")
        raise CheckpointError(
            f"{path}: it was stopped before its first validation: continue it with "
            f"blin train --resume {path}"
        )
    model = TrainedModel.load(path / "model", device=resolve_device(device))
    if threads is not None:
        torch.set_num_threads(whole_number("threads", threads, least=1))
    return Run(path, config, model)


def resolve_device(device: torch.device | str) -> torch.device:
    """Returns a device: ``auto`` is the first GPU if there is one, otherwise the CPU.

    Raises:
        ConfigError: There is no such device, or it is neither a CPU nor a GPU of CUDA.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, found {str(device)!r}")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device: expected auto or cpu, found {device} and no usable GPU")
        if (found.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device: expected cuda:N below {torch.cuda.device_count()}, found {device}"
            )
    return found


def count_parameters(path: Path) -> int:
    """Returns how many numbers the model of a directory learns, by its description alone.

    Raises:
        CheckpointError: There is no such model.
    """
    return sum(parameter.numel() for parameter in _outlined(path)[1].parameters())


def _outlined(path: Path) -> tuple[dict[str, Any], nn.Module, Header]:
    """Returns what a model directory says of its model, without taking memory for the weights."""
    file = path / "config.json"
    description = _read_json(file, {"format_version", "model", "num_items", "config"})
    check_version(file, description)
    name, num_items = description["model"], description["num_items"]
    config = model_config(file, name, description["config"])
    header = read_header(path / WEIGHTS_FILE)
    return description, outline(file, name, num_items, config, most=len(header.tensors)), header


def _make_room(module: nn.Module, header: Header) -> dict[str, SparseRows]:
    """Gives the sparse parts of a module as many entries as were saved, and returns them."""
    sparse = {name: part for name, part in module.named_modules() if isinstance(part, SparseRows)}
    for name, part in sparse.items():
        _, shape = header.tensors.get(f"{name}.targets", ("", (0,)))
        entries = math.prod(shape)
        part.make_room(entries if 0 <= entries < 1 << 40 else 0)
    return sparse


def model_config(file: Path, name: object, settings: object) -> Any:
    """Returns the config of a model as a file has it.

    Raises:
        CheckpointError: There is no such model, or it has no such config.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise CheckpointError(f"{file}: expected a model blin knows, found {name!r:.100}")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file}: expected a table of settings, found {settings!r:.100}")
    try:
        check_known(settings, MODELS[name].config)
        return build(MODELS[name].config, settings)
    except ConfigError as cause:
        raise CheckpointError(f"{file}: {cause}") from cause


def outline(file: Path, name: str, num_items: object, config: Any, *, most: int) -> nn.Module:
    """Returns a module without memory for its weights.

    Args:
        file: that describes it, for messages.
        name: a key of ``MODELS``.
        num_items: V.
        config: of the model.
        most: parts of a kind that it may have; each takes time to build, also without memory.

    Raises:
        CheckpointError: There can be no such module.
    """
    if not isinstance(num_items, int) or not 1 <= num_items < 2**32:
        raise CheckpointError(f"{file}: expected a number of items, found {num_items!r:.100}")
    for setting in getattr(config, "repeated", ()):
        if (found := getattr(config, setting)) > most:
            raise CheckpointError(
                f"{file}: {setting}: expected at most as many as there are tensors, {most}, "
                f"found {found}"
            )
    try:
        with torch.device("meta"):
            return MODELS[name].module(num_items, config)
    except (RuntimeError, TypeError, OverflowError) as cause:
        raise CheckpointError(f"{file}: it describes no model: {reason_of(cause)}") from cause


def _check_description(file: Path, description: Mapping[str, Any], header: Header) -> None:
    """Raises CheckpointError if the weights say that they belong to another description."""
    if "description" not in header.about:
        return
    try:
        wanted = dict(header.about["description"])
        wanted |= wanted.pop("config")
        found = description | description["config"]
        for name in wanted:
            if wanted[name] != found.get(name):
                raise CheckpointError(
                    f"{file}: {name}: expected {wanted[name]!r:.100} as in {WEIGHTS_FILE}, "
                    f"found {found.get(name)!r:.100}"
                )
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise CheckpointError(f"{file}: {WEIGHTS_FILE} describes no model") from cause


def _read_json(file: Path, needed: set[str]) -> dict[str, Any]:
    try:
        content = parse_json(read_bounded(file, limit=DESCRIPTION_LIMIT))
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{file}: expected JSON, found: {reason_of(cause)}") from cause
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object, found {content!r:.100}")
    if missing := needed - content.keys():
        raise CheckpointError(f"{file}: expected {', '.join(sorted(missing))}, found none")
    return content
