"""Finds the dataset a user names: prepared, or fetched from the catalogue and prepared now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blin.cli.output import Output, size_of
from blin.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blin.data.catalog import CatalogEntry
    from blin.data.dataset import Dataset


def prepared_names(data_dir: Path) -> list[str]:
    """Returns the names of the prepared datasets in ``data_dir``, sorted."""
    return sorted(file.parent.name for file in data_dir.glob("[!.]*/dataset.json"))


def open_dataset(name: str, *, data_dir: Path, output: Output, may_fetch: bool = True) -> Dataset:
    """Opens a prepared dataset by name or path; one of the catalogue is fetched if need be.

    Raises:
        DataError: There is none, or only in the catalogue and it may not be fetched.
    """
    from blin.data.catalog import DATASETS
    from blin.data.dataset import is_dataset, load_dataset

    if is_dataset(data_dir / name) or is_dataset(Path(name)):
        return load_dataset(name, data_dir=data_dir)
    if Path(name).is_file():
        raise DataError(f"{name} is a log, not a prepared dataset: run blin preprocess {name}")
    if name not in ("", ".", "..") and (data_dir / name).exists():
        return load_dataset(name, data_dir=data_dir)
    if name not in DATASETS:
        raise DataError(_unknown(name, prepared_names(data_dir), list(DATASETS), data_dir))
    if not may_fetch:
        raise DataError(
            f"{name}: expected a prepared dataset, found one to download: run blin preprocess "
            f"{name} first"
        )
    _fetch_and_prepare(DATASETS[name], data_dir, output)
    return load_dataset(name, data_dir=data_dir)


def catalogued(logs: Sequence[Path]) -> CatalogEntry | None:
    """Returns what the catalogue has under the name that stands where a log is expected."""
    from blin.data.catalog import DATASETS

    return DATASETS.get(str(logs[0])) if len(logs) == 1 and not logs[0].exists() else None


def fetch_log(entry: CatalogEntry, data_dir: Path, output: Output) -> Path:
    """Returns the log of a dataset of the catalogue, downloaded unless it is there.

    Raises:
        DataError: It cannot be had; the message says how to get it by hand.
    """
    from blin.data.download import fetch

    with output.bar(f"fetch {entry.file_name}", of_bytes=True) as advance:
        log = fetch(entry, data_dir / "downloads", on_progress=advance)
    output.note(f"{entry.name}: from {entry.url} ({size_of(entry.num_bytes)})")
    output.note(f"Terms of use: {entry.terms}")
    return log


def _fetch_and_prepare(entry: CatalogEntry, data_dir: Path, output: Output) -> None:
    from blin.data.prepare import preprocess

    log = fetch_log(entry, data_dir, output)
    with output.bar(f"read {log.name}", of_bytes=True) as advance:
        report = preprocess(log, data_dir=data_dir, name=entry.name, on_progress=advance)
    output.note(
        f"{entry.name}: {report.users:,} users, {report.items:,} items, "
        f"{report.interactions:,} interactions"
    )


def _unknown(name: str, prepared: list[str], catalogue: list[str], data_dir: Path) -> str:
    hint = did_you_mean(name, [*prepared, *catalogue])
    ready = f"prepared in {data_dir}: {', '.join(prepared) or 'none'}"
    return (
        f'no dataset "{name}"{hint} ({ready}; in the catalogue: {", ".join(catalogue)}; '
        "your own log: blin preprocess FILE)"
    )
