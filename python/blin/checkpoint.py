"""Trained models and runs on disk: safetensors and JSON, nothing that could execute.

A model directory holds ``config.json``, ``model.safetensors`` and ``items.parquet``; a run
directory holds one as ``model/``, and around it what the training wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from blin.batch import Batch, BatchSpec
from blin.config import build
from blin.data.dataset import Dataset, load_dataset
from blin.errors import BlinError, CheckpointError, ConfigError, DataError
from blin.files import replacing
from blin.models import MODELS
from blin.nn.sparse import SparseRows
from blin.vocabulary import Vocabulary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT_VERSION = 1


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
        self.module.eval()
        try:
            with torch.no_grad():
                device = self.device
                if candidates is not None:
                    candidates = candidates.to(device)
                return self.module.score(batch.to(device), candidates)  # type: ignore[no-any-return, operator]
        finally:
            self.module.train(training)

    def save(self, path: Path) -> None:
        """Writes the model directory."""
        path.mkdir(parents=True, exist_ok=True)
        self.save_description(path)
        self.save_weights(path)

    def save_description(self, path: Path) -> None:
        """Writes all of the model directory but the weights."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        description = {
            "format_version": FORMAT_VERSION,
            "model": self.name,
            "num_items": self.num_items,
            "config": asdict(self.module.config),  # type: ignore[call-overload]
        }
        with replacing(path / "items.parquet") as temporary:
            pq.write_table(pa.table({"id": self.item_ids.ids}), temporary)
        with replacing(path / "config.json") as temporary:
            temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def save_weights(self, path: Path) -> None:
        """Writes the weights into the model directory."""
        write_tensors(path / "model.safetensors", self.module.state_dict())

    @classmethod
    def load(cls, path: Path, *, device: torch.device | str = "cpu") -> TrainedModel:
        """Reads a model directory.

        Raises:
            CheckpointError: A file is missing, damaged, or belongs to another model.
        """
        file = path / "config.json"
        description = _read_json(file, {"format_version", "model", "num_items", "config"})
        if description["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{file}: expected format version {FORMAT_VERSION}, "
                f"found {description['format_version']}: use the version of blin that wrote it"
            )
        name = description["model"]
        if name not in MODELS:
            raise CheckpointError(f'{file}: expected a model blin knows, found "{name}"')
        item_ids = Vocabulary.read(path / "items.parquet", first=1, error=CheckpointError)
        if len(item_ids) != description["num_items"]:
            raise CheckpointError(
                f"{path / 'items.parquet'}: expected {description['num_items']} items, "
                f"found {len(item_ids)}"
            )
        try:
            config = build(MODELS[name].config, description["config"])
        except (ConfigError, TypeError) as cause:
            raise CheckpointError(f"{file}: {cause}") from cause
        tensors, _ = read_tensors(path / "model.safetensors")
        with torch.device("meta"):
            module = MODELS[name].module(len(item_ids), config)
        sparse = _make_room(module, tensors)
        _check_shapes(path / "model.safetensors", module, tensors)
        module.load_state_dict(tensors, assign=True)
        for prefix, part in sparse.items():
            try:
                part.check()
            except ValueError as cause:
                file = path / "model.safetensors"
                raise CheckpointError(f"{file}: tensor {prefix}.{cause}") from cause
        return cls(name, module.to(device).eval(), item_ids)


@dataclass(frozen=True)
class Run:
    """A run directory: the best model of a training, and what it was trained on."""

    path: Path
    config: Mapping[str, Any]
    model: TrainedModel

    def dataset(self, *, data_dir: Path | None = None) -> Dataset:
        """Opens the dataset the run was trained on.

        Raises:
            CheckpointError: The dataset of that name has other sequences now.
        """
        return open_run_dataset(self.path, self.config, data_dir=data_dir)


def open_run_dataset(
    run: Path, config: Mapping[str, Any], *, data_dir: Path | None = None
) -> Dataset:
    """Opens the dataset that a run names and checks that it is still the same."""
    places = [Path(config["dataset_path"])]
    if data_dir is not None:
        places.insert(0, data_dir / config["dataset"])
    for place in places:
        if (place / "dataset.json").exists():
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
    known = Vocabulary.read(run / "model" / "items.parquet", first=1, error=CheckpointError)
    if not known.equals(dataset.item_ids):
        raise CheckpointError(
            f"{run}: expected the items it was trained on, found other ids in {dataset.path}"
        )
    return dataset


def find_run(runs_dir: Path, run: str | Path | None = None) -> Path:
    """Returns a run directory: the named one, or the latest.

    Args:
        runs_dir: where runs live.
        run: a run directory, or its path below ``runs_dir``; None for the latest run.

    Raises:
        CheckpointError: There is none.
    """
    if run is None:
        latest = runs_dir / "latest"
        if not (latest / "config.toml").exists():
            raise CheckpointError(
                f"no run in {runs_dir}: train a model with blin train --dataset NAME, "
                "or name its directory"
            )
        return latest.resolve()
    for path in (Path(run), runs_dir / run):
        if (path / "config.toml").exists():
            return path.resolve()
    what = "a directory that is no run" if Path(run).is_dir() else "no such directory"
    raise CheckpointError(f"{run}: expected a run directory with a config.toml, found {what}")


def read_run_config(path: Path) -> dict[str, Any]:
    """Reads and checks the ``config.toml`` of a run."""
    file = path / "config.toml"
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{file}: {str(cause).splitlines()[0]}") from cause
    needed = {"model", "dataset", "dataset_path", "fingerprint", "settings"}
    if missing := needed - config.keys():
        raise CheckpointError(f"{file}: expected {', '.join(sorted(missing))}, found none")
    return config


def load_run(path: Path, *, device: torch.device | str = "cpu") -> Run:
    """Loads the best model of a run.

    Raises:
        CheckpointError: The run has no model yet, or one that does not fit.
    """
    config = read_run_config(path)
    if not (path / "model" / "model.safetensors").exists():
        raise CheckpointError(
            f"{path}: it was stopped before its first validation: continue it with "
            f"blin train --resume {path}"
        )
    return Run(path, config, TrainedModel.load(path / "model", device=resolve_device(device)))


def resolve_device(device: torch.device | str) -> torch.device:
    """Returns a device: ``auto`` is the first GPU if there is one, otherwise the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as cause:
        raise ConfigError(
            f"device: expected auto, cpu, cuda or cuda:N, found {str(device)!r}"
        ) from cause
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: expected auto or cpu, found {device} and no usable GPU")
    return found


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: It is missing, truncated or no such file.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except (OSError, SafetensorError) as cause:
        reason = str(cause).splitlines()[0]
        raise CheckpointError(f"{file}: expected a safetensors file, found: {reason}") from cause


def write_tensors(
    file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Raises:
        BlinError: It cannot be written, for example because the disk is full.
    """
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(file) as temporary:
            save_file(owned, temporary, metadata)
    except (OSError, SafetensorError) as cause:
        reason = str(cause).splitlines()[0]
        raise BlinError(f"{file}: not written: {reason}") from cause


def _make_room(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, SparseRows]:
    """Gives the sparse parts of a module as many entries as were saved, and returns them."""
    sparse = {name: part for name, part in module.named_modules() if isinstance(part, SparseRows)}
    for name, part in sparse.items():
        part.make_room(tensors.get(f"{name}.targets", torch.empty(0)).numel())
    return sparse


def _check_shapes(file: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{file}: tensor {name}: expected shape {wanted.get(name)}, found {found.get(name)}"
            )


def _read_json(file: Path, needed: set[str]) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        missing = needed - content.keys()
    except (OSError, ValueError, AttributeError) as cause:
        raise CheckpointError(f"{file}: {str(cause).splitlines()[0]}") from cause
    if missing:
        raise CheckpointError(f"{file}: expected {', '.join(sorted(missing))}, found none")
    return content  # type: ignore[no-any-return]
