"""Prepared datasets: opening, checking, looking inside."""

from __future__ import annotations

import hashlib
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blin.config import default_data_dir
from blin.data.directory import PREPARING, SWAPPING, Directory
from blin.errors import ConfigError, DataError, reason_of
from blin.files import parse_json, read_bounded
from blin.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa

    from blin.data.prepare import SupportsArrow

FORMAT_VERSION = 1

_METADATA_LIMIT = 16 << 20
"""Bytes of a ``dataset.json``, enough for a log of some 100,000 files."""

SPLITS = ("valid", "test")

TARGETS = ("first", "last", "all")
"""Which of the items that a user has in a split are ranked."""


class Dataset:
    """A prepared dataset, memory-mapped and read-only.

    It stays what it was when it was opened, also where its directory is prepared again.

    The sequence of user u is ``items[offsets[u]:offsets[u + 1]]``, oldest first; of its steps,
    ``[0, splits[u, 0])`` train, ``[splits[u, 0], splits[u, 1])`` validate and the rest test.

    Attributes:
        path: the directory.
        metadata: ``dataset.json``.
        items: (interactions,) uint32, 1…V.
        offsets: (U + 1,) int64.
        splits: (U, 2) int64.
        timestamps: (interactions,) int64, or None when the log has none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with SWAPPING:
            self.metadata = _read_metadata(path)
            self._ids = {table: self._opened(table) for table in ("users", "items")}
            self.items = self._array("items", np.uint32, 1)
            self.offsets = self._array("offsets", np.int64, 1)
            self.splits = self._array("splits", np.int64, 2)
            has_times = (path / "timestamps.npy").exists()
            self.timestamps = self._array("timestamps", np.int64, 1) if has_times else None
        self._check()

    def __repr__(self) -> str:
        """Says what it holds."""
        return (
            f"Dataset({self.name!r}, {self.num_users:,} users, {self.num_items:,} items, "
            f"{self.num_interactions:,} interactions)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy needs: the ids themselves in place of the open files."""
        _ = self.user_ids, self.item_ids
        return {name: value for name, value in vars(self).items() if name != "_ids"}

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.metadata["name"])

    @property
    def fingerprint(self) -> str:
        """The hash of the sequences and their split."""
        return str(self.metadata["fingerprint"])

    @cached_property
    def times_checksum(self) -> int | None:
        """The CRC-32 of the times, of which the fingerprint knows nothing; None without times."""
        return None if self.timestamps is None else zlib.crc32(self.timestamps.data)

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """V, the number of items."""
        return int(self.metadata["items"])

    @property
    def num_interactions(self) -> int:
        """The number of interactions."""
        return len(self.items)

    @cached_property
    def user_ids(self) -> Vocabulary:
        """The raw ids of the users; the first has index 0."""
        return self._vocabulary("users", first=0, expected=self.num_users)

    @cached_property
    def item_ids(self) -> Vocabulary:
        """The raw ids of the items; the first has index 1."""
        return self._vocabulary("items", first=1, expected=self.num_items)

    def sequence(self, user: int) -> NDArray[np.uint32]:
        """Returns the items of a user, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def held_out(
        self, split: str, targets: str = "first"
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the users with items held out for a split, and where in ``items`` these stand.

        Args:
            split: ``valid`` or ``test``.
            targets: the ``first`` item that a user has in the split, the ``last``, or ``all``;
                under leave-one-out there is one.

        Returns:
            (users, places): ``items[places[i]]`` is held out of user ``users[i]``; the history
            that may be used to predict it is all that comes before. By user, then by time. Items
            with nothing before them, as temporal splits have them, are left out.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if targets not in TARGETS:
            raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {targets!r}")
        starts = self.offsets[:-1]
        begin = self.splits[:, SPLITS.index(split)]
        end = self.splits[:, 1] if split == "valid" else np.diff(self.offsets)
        if targets == "first":
            end = np.minimum(end, begin + 1)
        elif targets == "last":
            begin = np.maximum(begin, end - 1)
        begin = np.maximum(begin, 1)
        counts = np.maximum(end - begin, 0)
        users = np.repeat(np.arange(self.num_users), counts)
        before = np.cumsum(counts) - counts
        return users, np.arange(len(users)) + (starts + begin - before)[users]

    def training_ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns where in ``items`` each user's training items begin and end, (U,) twice."""
        starts = np.ascontiguousarray(self.offsets[:-1])
        return starts, starts + self.splits[:, 0]

    def training_counts(self) -> NDArray[np.int64]:
        """Returns how often each item occurs in the training items, (V,): item 1 comes first."""
        lengths = np.diff(self.offsets)
        steps = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], lengths)
        trains = steps < np.repeat(self.splits[:, 0], lengths)
        counts = np.bincount(self.items[trains], minlength=self.num_items + 1)
        return counts[1:].astype(np.int64)

    def _array(self, name: str, dtype: type[np.generic], dimensions: int) -> NDArray[Any]:
        file = self.path / f"{name}.npy"
        try:
            # Unlike NumPy's load this reads arrays only, no archives and no pickles.
            array = np.lib.format.open_memmap(file, mode="r")
        except Exception as cause:  # the header is a piece of Python, and so are its faults
            raise DataError(f"{file}: expected an array, found: {reason_of(cause)}") from cause
        if array.dtype != np.dtype(dtype):
            raise DataError(f"{file}: expected {np.dtype(dtype)}, found {array.dtype!s:.100}")
        if array.ndim != dimensions or not array.flags.c_contiguous:
            raise DataError(
                f"{file}: expected {dimensions} dimensions in C order, found the shape "
                f"{array.shape!s:.100}"
            )
        return array

    def _check(self) -> None:
        """Raises DataError unless the arrays belong together and are those that were written."""
        total, users = len(self.items), len(self.offsets) - 1
        fits = (
            users == self.metadata["users"]
            and total == self.metadata["interactions"]
            and users >= 1
            and total > 0
            and self.offsets[0] == 0
            and self.offsets[-1] == total
            and (self.offsets[:-1] <= self.offsets[1:]).all()
            and self.splits.shape == (users, 2)
            and (self.splits[:, 0] >= 0).all()
            and (self.splits[:, 0] <= self.splits[:, 1]).all()
            and (self.splits[:, 1] <= np.diff(self.offsets)).all()
            and (self.timestamps is None or self.timestamps.shape == (total,))
            and int(self.items.min()) >= 1
            and int(self.items.max()) <= self.num_items == self._rows_of("items")
            and users == self._rows_of("users")
        )
        if not fits:
            raise DataError(
                f"{self.path}: its arrays do not belong together: prepare the dataset again"
            )
        digest = hashlib.sha256()
        for array in (self.offsets, self.items, self.splits):
            digest.update(array.data)
        if self.fingerprint != f"sha256:{digest.hexdigest()}":
            raise DataError(
                f"{self.path}: expected the sequences of {self.fingerprint[:80]}, found others: "
                "the files are damaged, prepare the dataset again"
            )

    def _opened(self, table: str) -> pa.NativeFile:
        import pyarrow as pa

        file = self.path / f"{table}.parquet"
        try:
            return pa.OSFile(str(file))
        except OSError as cause:
            raise _no_ids(file, cause) from cause

    def _rows_of(self, table: str) -> int:
        """Returns the number of users or items that have an id: memory is taken for each."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(self._ids[table]).num_rows)
        except (OSError, pa.ArrowException, ValueError) as cause:
            raise _no_ids(self.path / f"{table}.parquet", cause) from cause

    def _vocabulary(self, table: str, *, first: int, expected: int) -> Vocabulary:
        return Vocabulary.read(
            self.path / f"{table}.parquet",
            first=first,
            error=DataError,
            expected=expected,
            file=self._ids[table],
        )


def is_dataset(path: Path) -> bool:
    """Returns whether a directory holds a prepared dataset.

    One that a killed process had put aside, to replace it, is put back.
    """
    with SWAPPING:
        if not path.exists():
            Directory(path).restore()
        return (path / "dataset.json").exists()


def load_dataset(
    source: str | Path | SupportsArrow, *, data_dir: str | Path | None = None, **options: Any
) -> Dataset:
    """Opens a prepared dataset, by name or directory, or prepares a raw log first.

    Args:
        source: the name of a prepared dataset in ``data_dir``, its directory, a log
            file, a directory of its parts, or a table of pandas, polars or pyarrow (give a
            ``name`` for it).
        data_dir: where prepared datasets live; by default ``$BLIN_DATA_DIR`` or ``data``.
        options: for a log, the options of :func:`blin.data.prepare.preprocess`.

    Raises:
        DataError: There is no such dataset, or it is damaged.
        ConfigError: An option is out of its range, or stands beside a prepared dataset.
    """
    data_dir = default_data_dir() if data_dir is None else Path(data_dir)
    if not isinstance(source, str | Path):
        from blin.data.prepare import preprocess

        with PREPARING:
            return Dataset(preprocess(source, data_dir=data_dir, **options).path)
    for candidate in (data_dir / source, Path(source)):
        if is_dataset(candidate):
            if options:
                raise ConfigError(
                    f"{next(iter(options))}: expected nothing for the dataset {candidate}, which "
                    "is prepared: to prepare it again, give the log"
                )
            return Dataset(candidate)
    if Path(source).exists():
        from blin.data.prepare import preprocess

        with PREPARING:
            return Dataset(preprocess(source, data_dir=data_dir, **options).path)
    raise DataError(
        f'no dataset "{source}" in {data_dir}, and no log file of that name: '
        "prepare one with blin preprocess FILE"
    )


def _no_ids(file: Path, cause: Exception) -> DataError:
    return DataError(f"{file}: expected a Parquet file of ids, found: {reason_of(cause)}")


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / "dataset.json"
    try:
        metadata = parse_json(read_bounded(file, limit=_METADATA_LIMIT))
    except (OSError, ValueError) as cause:
        raise DataError(
            f"{file}: expected the description of a dataset, found: {reason_of(cause)}"
        ) from cause
    if not isinstance(metadata, dict):
        raise DataError(f"{file}: expected the description of a dataset, found {metadata!r:.100}")
    found = metadata.get("format_version")
    if found != FORMAT_VERSION:
        writer = metadata.get("blin_version")
        written = f", written by blin {writer:.30}" if isinstance(writer, str) else ""
        raise DataError(
            f"{file}: expected format version {FORMAT_VERSION}, found {found!r:.30}{written}: "
            "prepare the dataset again with this version of blin"
        )
    kinds = {"name": str, "users": int, "items": int, "interactions": int, "fingerprint": str}
    for name, kind in kinds.items():
        if not isinstance(metadata.get(name), kind):
            raise DataError(f"{file}: expected {name}, found {metadata.get(name)!r:.100}")
    return metadata
