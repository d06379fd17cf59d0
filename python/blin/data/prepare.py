"""From a raw log to a prepared dataset: the directory that ``docs/data-format.md`` describes.

The core reads, filters, indexes and sorts; this module decides where the result lies, whether it
is there already, and that it appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blin import _core
from blin.config import is_finite, whole_number
from blin.data import columnar
from blin.data.dataset import FORMAT_VERSION, Dataset
from blin.data.directory import PREPARING, Directory, Write
from blin.data.health import data_health
from blin.data.memory import MemoryLimit, peak_memory_bytes
from blin.errors import ConfigError, DataError

_NAME = re.compile(r"[\w+-][\w.+-]*")
_COMPRESSIONS = {".gz", ".zst"}
_FORMATS = {
    ".csv",
    ".tsv",
    ".txt",
    ".dat",
    ".data",
    ".inter",
    ".log",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".arrow",
    ".feather",
}
_SUFFIXES = _COMPRESSIONS | _FORMATS
_WRITTEN_BYTES = 32 << 20
_WRITTEN_ROWS = 1 << 20
_NUMBERS = re.compile(r"(?<=\[)\n[-+.\de,\s]+\n\s*(?=\])")
_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FILES = ("items.npy", "offsets.npy", "splits.npy", "users.parquet", "items.parquet")


@runtime_checkable
class SupportsArrow(Protocol):
    """A table that Arrow can read: of pandas, polars, pyarrow and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Exports the table by the Arrow PyCapsule interface."""


@dataclass(frozen=True)
class PrepareReport:
    """What was read, what was left out, and where the result lies."""

    dataset: str
    path: Path
    reused: bool
    #: The files that a dataset of this name was prepared from before, if they were other ones.
    replaced: tuple[str, ...]
    seconds: float
    peak_memory_bytes: int
    #: The content of ``dataset.json``.
    metadata: Mapping[str, Any]

    @property
    def users(self) -> int:
        """Users in the dataset."""
        return int(self.metadata["users"])

    @property
    def items(self) -> int:
        """Items in the dataset."""
        return int(self.metadata["items"])

    @property
    def interactions(self) -> int:
        """Interactions in the dataset."""
        return int(self.metadata["interactions"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of sequences and splits."""
        return str(self.metadata["fingerprint"])

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as one flat object that JSON can hold."""
        facts = {key: value for key, value in self.metadata.items() if key != "name"}
        return {
            "dataset": self.dataset,
            "path": str(self.path),
            **facts,
            "reused": self.reused,
            "replaced": list(self.replaced),
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def preprocess(
    paths: str | Path | Sequence[str | Path] | SupportsArrow,
    *,
    data_dir: str | Path,
    name: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    user_column: str | int | None = None,
    item_column: str | int | None = None,
    time_column: str | int | None = None,
    rating_column: str | int | None = None,
    min_rating: float | None = None,
    min_interactions: int = 5,
    min_user_interactions: int | None = None,
    min_item_interactions: int | None = None,
    duplicates: str = "keep",
    split: str = "leave-one-out",
    valid_from: str | float | None = None,
    test_from: str | float | None = None,
    on_bad_row: str = "fail",
    log_format: str | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    r"""Prepares a log and writes the result to ``<data_dir>/<name>/``.

    What is not said is recognised. If the same bytes were prepared with the same options under
    this name before, nothing is done.

    Args:
        paths: The log, or its parts in order: tables, sequence files or JSON lines, plain,
            gzip or zstd, or Parquet or Arrow. A directory stands for the files in it and below,
            sorted by name, without those whose name begins with ``.`` or ``_``. Or a table of
            pandas (2.2 or newer), polars, pyarrow or anything else with the Arrow PyCapsule
            interface; it needs a name.
        data_dir: Where prepared datasets live.
        name: The dataset's name; by default that of the first file or directory without suffixes,
            in lower case.
        delimiter: What separates two fields, for example ``"::"``.
        header: Whether the first line names the columns.
        user_column: The users' column by name or, counted from 1, by number; so for the others.
        item_column: The items' column.
        time_column: The times' column; ``"day,moment"`` is two columns, of which the second orders
            what has the same time in the first.
        rating_column: The ratings' column, used only with ``min_rating``.
        min_rating: Rows with a lower rating are left out.
        min_interactions: Users and items with fewer interactions are removed until none is left.
        min_user_interactions: The same for users only, in place of ``min_interactions``.
        min_item_interactions: The same for items only, in place of ``min_interactions``.
        duplicates: Which of a user's interactions with one item stay: ``"keep"`` all, the
            ``"first"`` or the ``"last"``.
        split: ``"leave-one-out"`` tests with each user's last interaction and validates with the
            one before; ``"temporal"`` with what all users do from two points in time on.
        valid_from: Where the validation of a temporal split begins: a time such as ``"2024-05-31"``
            or the share of interactions before it, such as 0.8; by default it takes as many
            interactions as the test.
        test_from: Where the test of a temporal split begins; by default at 0.9.
        on_bad_row: ``"fail"`` at the first row that cannot be read, or ``"skip"`` and count it.
        log_format: ``"table"``, ``"sequences"`` (``user item item …``, oldest first) or ``"jsonl"``
            (one object of JSON a line).
        memory_limit: The most memory that the process may take, in bytes or as ``"4GB"`` or
            ``"512MiB"``. Beyond it the interactions go to the disk, beside the dataset; the ids
            of users and items stay in memory. The result does not depend on it.
        threads: Threads to use; the result does not depend on it.
        on_progress: Called with the bytes read and the bytes there are.

    Raises:
        DataError: The log cannot be used; the message says where and why.
        ConfigError: An option is out of its range.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> log = folder / "visits.csv"
        >>> _ = log.write_text("user,item,time\nann,tea,2\nann,milk,1\nbob,tea,1\n")
        >>> report = preprocess(log, data_dir=folder, min_interactions=1)
        >>> report.users, report.items, report.interactions
        (2, 2, 3)
    """
    start = time.perf_counter()
    name = _optional_text("name", name)
    table = paths if isinstance(paths, SupportsArrow) else None
    given: list[Path] = []
    if isinstance(paths, SupportsArrow):
        if name is None:
            raise ConfigError("name: expected one for the dataset of a table, found none")
        name = _dataset_name(name, Path(name))
    else:
        try:
            given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        except TypeError as cause:
            found = type(paths).__name__
            raise ConfigError(f"paths: expected a log or a table, found {found}") from cause
        if not given:
            raise ConfigError("paths: expected at least one file, found none")
        name = _dataset_name(name, given[0])
    options: dict[str, Any] = {
        "delimiter": "\t" if delimiter == r"\t" else _optional_text("delimiter", delimiter),
        "header": _truth("header", header),
        "user_column": _column("user_column", user_column),
        "item_column": _column("item_column", item_column),
        "time_column": _column("time_column", time_column),
        "rating_column": _column("rating_column", rating_column),
        "min_rating": min_rating,
        "min_interactions": min_interactions,
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "duplicates": _text("duplicates", duplicates),
        "split": _text("split", split),
        "valid_from": None if valid_from is None else str(valid_from),
        "test_from": None if test_from is None else str(test_from),
        "on_bad_row": _text("on_bad_row", on_bad_row),
        "log_format": _optional_text("log_format", log_format),
    }
    options |= _numbers(options)
    threads = None if threads is None else whole_number("threads", threads, least=1)
    sources = [part for path in given for part in log_parts(path)]
    limit = None if memory_limit is None else MemoryLimit.parse(memory_limit)
    directory = Directory(Path(data_dir) / name)
    with PREPARING:
        directory.recover()
        metadata = None
        if table is None:
            metadata = _reusable_metadata(directory.path, sources, options)
        reused = metadata is not None
        replaced: tuple[str, ...] = ()
        if metadata is None:
            replaced = _other_sources(directory.path, sources)
            how: dict[str, Any] = {"threads": threads, "on_progress": on_progress}
            with ExitStack() as stack:
                if limit is not None:
                    how["spill"] = (
                        limit.total,
                        limit.reserved,
                        stack.enter_context(directory.aside()),
                    )
                result = _read(table, name, sources, options, **how)
                health = data_health(result, threads=threads)
                metadata = {**_metadata(name, result, options), "health": health}
                with directory.replacing() as write:
                    _write_arrays(write, result)
                    write("dataset.json", lambda file: file.write(_to_json_bytes(metadata)))
    if on_progress is not None:
        total = sum(source["bytes"] for source in metadata["sources"])
        on_progress(total, total)
    return PrepareReport(
        dataset=name,
        path=directory.path,
        reused=reused,
        replaced=replaced,
        seconds=time.perf_counter() - start,
        peak_memory_bytes=peak_memory_bytes(),
        metadata=metadata,
    )


def _numbers(options: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns those of the options that are numbers, checked, as Python's."""
    numbers: dict[str, int | float] = {
        option: whole_number(option, value, below=2**32)
        for option, value in options.items()
        if option.endswith("interactions") and value is not None
    }
    least = options["min_rating"]
    if least is not None:
        if isinstance(least, bool) or not isinstance(least, Real) or not is_finite(least):
            raise ConfigError(f"min_rating: expected a number, found {least!r:.100}")
        numbers["min_rating"] = float(least)
    return numbers


def _column(option: str, value: object) -> str | None:
    """Returns a column's name, or its number as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    raise ConfigError(f"{option}: expected a column by name or by number, found {value!r:.100}")


def _truth(option: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{option}: expected true or false, found {value!r:.100}")
    return None if value is None else bool(value)


def _optional_text(option: str, value: object) -> str | None:
    return None if value is None else _text(option, value)


def _text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{option}: expected text, found {value!r:.100}")
    return value


def _other_sources(path: Path, sources: Sequence[Path]) -> tuple[str, ...]:
    """Returns the files that are replaced, unless they have the names of the new ones."""
    try:
        before = json.loads((path / "dataset.json").read_text(encoding="utf-8"))["sources"]
        files = tuple(str(source["file"]) for source in before)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return () if {Path(file).name for file in files} == {file.name for file in sources} else files


def _dataset_name(name: str | None, source: Path) -> str:
    if name is None:
        stem = Path(source.resolve().name if source.name in ("", "..") else source.name)
        while stem.suffix.lower() in _SUFFIXES:
            stem = stem.with_suffix("")
        name = re.sub(r"[^\w.+-]+", "-", stem.name.lower()).strip("-.") or "log"
        name = "latest-log" if name == "latest" else name
    if name == "latest":
        raise ConfigError("name: expected any but latest, which is a link to the latest run")
    if not _NAME.fullmatch(name):
        raise ConfigError(f'name: expected letters, digits, ".", "+", "_" and "-", found "{name}"')
    return name


def _read(
    table: SupportsArrow | None,
    name: str,
    sources: Sequence[Path],
    options: Mapping[str, Any],
    *,
    threads: int | None,
    on_progress: Callable[[int, int], None] | None,
    spill: tuple[int, int, Path] | None = None,
) -> dict[str, Any]:
    how: dict[str, Any] = {"threads": threads, "spill": spill}
    is_columnar = table is not None or any(map(columnar.is_columnar, sources))
    if is_columnar:
        columnar.refuse_options_of_text(options)
    if table is not None:
        result = columnar.read_table(table, name, options, **how)
    elif is_columnar:
        result = columnar.read_files(sources, options, _sha256, **how, on_progress=on_progress)
    else:
        paths = [str(path) for path in sources]
        result = _core.read_log(paths, **options, **how, on_progress=on_progress)
    for key, path in result["files"].items():
        result[key] = np.lib.format.open_memmap(path, mode="r")
    return result


def log_parts(path: Path) -> list[Path]:
    """Returns the file itself, or a directory's files as engines such as Spark leave them there."""
    parts = sorted(_files_below(path, frozenset())) if path.is_dir() else [path]
    if not parts:
        raise DataError(f"{path}: expected a directory of log files, found none in it")
    missing = next((part for part in parts if not part.exists()), None)
    if missing is not None:
        raise DataError(f"{missing}: no such file")
    return parts


def _files_below(directory: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yields the files in a directory and below, also where links lead to directories."""
    above |= {directory.resolve()}
    for path in directory.iterdir():
        if path.name.startswith((".", "_")):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() in above:
            raise DataError(f"{path}: expected log files, found a link to a directory above it")
        else:
            yield from _files_below(path, above)


def _reusable_metadata(
    path: Path, sources: Sequence[Path], options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what ``dataset.json`` says if it is about these bytes and options."""
    try:
        metadata: dict[str, Any] = json.loads((path / "dataset.json").read_bytes())
        same_kind = (
            metadata["format_version"] == FORMAT_VERSION
            and "health" in metadata
            and metadata["options"] == options
            and [source["bytes"] for source in metadata["sources"]]
            == [source.stat().st_size for source in sources]
            and all((path / file).is_file() for file in _FILES)
            and (path / "timestamps.npy").is_file() == (metadata["time"] is not None)
        )
        if not same_kind:
            return None
        hashes = [_sha256(source) for source in sources]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if hashes != [source["sha256"] for source in metadata["sources"]]:
        return None
    try:
        prepared = Dataset(path)
        _ = prepared.user_ids, prepared.item_ids
    except DataError:
        return None  # preparing it again is what mends a damaged one
    return metadata


def _sha256(path: Path, is_stopped: Callable[[], bool] = lambda: False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while not is_stopped() and (block := file.read(1 << 20)):
            digest.update(block)
    return digest.hexdigest()


def _metadata(name: str, result: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the content of ``dataset.json``."""
    report = result["report"]
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "sources": [
            {
                "file": Path(source["path"]).name,
                "sha256": source["sha256"],
                "bytes": source["bytes"],
            }
            for source in report["sources"]
        ],
        "options": dict(options),
        "layout": {**report["layout"], "time_unit": (report["time"] or {}).get("unit")},
        "users": report["users"],
        "items": report["items"],
        "interactions": report["interactions"],
        "rows_read": report["rows_read"],
        "rows_skipped": report["rows_skipped"],
        "rows_without_user": report["rows_without_user"],
        "rows_without_item": report["rows_without_item"],
        "rows_below_rating": report["rows_below_rating"],
        "rows_duplicate": report["rows_duplicate"],
        "skipped_messages": report["skipped_messages"],
        "k_core_rounds": [report["before_k_core"], *report["k_core_rounds"]],
        "time": time_range(report["time"]),
        "time_warning": report["time_warning"],
        "split": {"rule": options["split"], **_cuts(report), **_parts_of_split(result)},
        "fingerprint": report["fingerprint"],
        "blin_version": version("blin-rec"),
    }


def time_range(time: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Adds to the ends of a range of times what dates they are."""
    if time is None:
        return None
    dates = {end + "_date": _date(time[end], time["unit"]) for end in ("first", "last")}
    return {**time, **dates}


def _cuts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Says where a temporal split cuts; nothing of another."""
    if report["cuts"] is None:
        return {}
    cuts = dict(zip(("valid_from", "test_from"), report["cuts"], strict=True))
    return cuts | {f"{cut}_date": _date(cuts[cut], report["time"]["unit"]) for cut in cuts}


def _parts_of_split(result: Mapping[str, Any]) -> dict[str, int]:
    """Counts the interactions that train, validate and test."""
    train, valid = (int(ends.sum()) for ends in result["splits"].T)
    return {"train": train, "valid": valid - train, "test": len(result["items"]) - valid}


def _date(timestamp: int, unit: str) -> str | None:
    """Returns a time in ISO-8601, to the second, or nothing if it is no date."""
    if unit not in _SECOND:
        return None
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        date = epoch + timedelta(seconds=timestamp // _SECOND[unit])
    except OverflowError:
        return None
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_arrays(write: Write, result: Mapping[str, Any]) -> None:
    for key in ("items", "offsets", "timestamps", "splits"):
        if (array := result[key]) is not None:
            file = result["files"].get(key)
            write(f"{key}.npy", Path(file) if file else partial(_write_array, array))
    counts = {"user": np.diff(result["offsets"]), "item": result["item_counts"]}
    for side, count in counts.items():
        table = pa.table({"id": _string_array(*result[f"{side}_ids"]), "count": count})
        write(f"{side}s.parquet", partial(_write_table, table))


def _write_table(table: pa.Table, file: IO[bytes]) -> None:
    """Writes Parquet in pieces, between which Ctrl-C is heard."""
    how: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(file, table.schema, **how) as writer:
        for start in range(0, len(table), _WRITTEN_ROWS):
            writer.write_table(table[start : start + _WRITTEN_ROWS])


def _write_array(array: np.ndarray[Any, Any], file: IO[bytes]) -> None:
    """Writes the .npy format in pieces, between which Ctrl-C is heard.

    Each piece is brought to the disk, so that no later one waits long for it. Unlike ``np.save``
    this tells a full disk from other failures.
    """
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, header)
    content = array.data.cast("B")
    for start in range(0, len(content), _WRITTEN_BYTES):
        file.write(content[start : start + _WRITTEN_BYTES])
        file.flush()
        os.fsync(file.fileno())


def _string_array(
    text: np.ndarray[Any, np.dtype[np.uint8]], offsets: np.ndarray[Any, np.dtype[np.int64]]
) -> pa.LargeStringArray:
    buffers = pa.py_buffer(offsets), pa.py_buffer(text)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)


def _to_json_bytes(metadata: Mapping[str, Any]) -> bytes:
    text = json.dumps(metadata, indent=2, ensure_ascii=False)
    # Lists of numbers take one line, for people; no string of JSON holds a line's end.
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text)
    # A file's name need not be UTF-8: Python has surrogates in it, and JSON can write these.
    return f"{text}\n".encode(errors="backslashreplace")
