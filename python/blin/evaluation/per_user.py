"""The rank of every target as a Parquet table, for whoever wants to look at single users.

``<name>.per_user.parquet`` is complete in itself: its metadata say by which protocol it was made.
``<name>.json`` beside it is written after it and holds its hash, so that metrics and ranks of two
evaluations, as a kill between the two files leaves them, are not taken for one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blin.errors import CheckpointError
from blin.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".per_user.parquet"

_PROTOCOL = b"blin.protocol"
_COLUMNS = {
    "user_id": ("string", "large_string"),
    "target_id": ("string", "large_string"),
    "rank": ("int32",),
    "history": ("int32",),
    "popularity": ("int64",),
}


@dataclass(frozen=True)
class PerUser:
    """One row a target, by user, then by time.

    Attributes:
        protocol: all that must be equal for two evaluations to be comparable.
        user_ids: (T,) raw ids.
        target_ids: (T,) raw ids.
        ranks: (T,) int32, 1 is the top; :data:`blin.evaluation.metrics.MISS` for a target that
            counts as a miss.
        history: (T,) int32, items before the target.
        popularity: (T,) int64, training interactions of the target; 0 if it is cold.
    """

    protocol: dict[str, Any]
    user_ids: pa.Array
    target_ids: pa.Array
    ranks: NDArray[np.int32]
    history: NDArray[np.int32]
    popularity: NDArray[np.int64]

    @cached_property
    def users(self) -> NDArray[np.int64]:
        """(T,) number of each target's user, in the order in which they come: 0, 1, …."""
        return self.user_ids.dictionary_encode().indices.to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def write_per_user(file: Path, per_user: PerUser) -> None:
    """Writes the table, all of it or nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "user_id": per_user.user_ids,
            "target_id": per_user.target_ids,
            "rank": pa.array(per_user.ranks, type=pa.int32()),
            "history": pa.array(per_user.history, type=pa.int32()),
            "popularity": pa.array(per_user.popularity, type=pa.int64()),
        },
        metadata={_PROTOCOL: json.dumps(per_user.protocol).encode()},
    )
    with replacing(file) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def read_per_user(file: Path) -> PerUser:
    """Reads what :func:`write_per_user` wrote.

    Raises:
        CheckpointError: The file is missing, damaged or of other columns, or the metrics in the
            JSON file beside it are of another evaluation.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.exists():
        raise CheckpointError(f"{file}: expected ranks by user, found no file: run blin evaluate")
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            table = opened.read()
        table.validate(full=True)
        names = table.column_names
    except (OSError, ValueError, MemoryError, pa.ArrowException) as cause:
        reason = (str(cause).splitlines() or ["no memory"])[0]
        raise CheckpointError(f"{file}: expected a Parquet file, found: {reason}") from cause
    if names != list(_COLUMNS):
        raise CheckpointError(f"{file}: expected the columns {list(_COLUMNS)}, found {names}")
    for name, types in _COLUMNS.items():
        column = table.column(name)
        if str(column.type) not in types:
            raise CheckpointError(f"{file}: {name}: expected {types[0]}, found {column.type}")
        if column.null_count:
            raise CheckpointError(f"{file}: {name}: expected a value in every row, found none")
    columns = {name: table.column(name).combine_chunks() for name in _COLUMNS}
    found = PerUser(
        _read_protocol(file, table.schema.metadata or {}),
        columns["user_id"],
        columns["target_id"],
        columns["rank"].to_numpy(),
        columns["history"].to_numpy(),
        columns["popularity"].to_numpy(),
    )
    _check_rows(file, found)
    _check_json(file)
    return found


def hash_of(file: Path) -> str:
    """Returns the SHA-256 of a file, as ``sha256sum`` prints it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read_protocol(file: Path, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        protocol = json.loads(metadata[_PROTOCOL])
        needed = {"dataset", "fingerprint", "split", "ranking", "users", "ranked"}
        missing = needed - protocol.keys()
    except (KeyError, ValueError, AttributeError, RecursionError) as cause:
        raise CheckpointError(
            f"{file}: expected metadata {_PROTOCOL.decode()}, found none that can be read"
        ) from cause
    if missing:
        raise CheckpointError(
            f"{file}: expected a protocol with {', '.join(sorted(missing))}, found none"
        )
    return protocol  # type: ignore[no-any-return]


def _check_rows(file: Path, found: PerUser) -> None:
    users = found.users
    counts = {"users": int(users.max(initial=-1)) + 1, "ranked": len(users)}
    for name, count in counts.items():
        if found.protocol[name] != count:
            raise CheckpointError(
                f"{file}: {name}: expected {found.protocol[name]}, as its protocol says, "
                f"found {count}"
            )
    if (np.diff(users) < 0).any():
        raise CheckpointError(f"{file}: expected the rows of a user together, found them apart")
    for name, column, least in (
        ("rank", found.ranks, 1),
        ("history", found.history, 1),
        ("popularity", found.popularity, 0),
    ):
        if (column < least).any():
            raise CheckpointError(f"{file}: {name}: expected {least} or more, found {column.min()}")


def _check_json(file: Path) -> None:
    """Refuses ranks whose metrics, if they are there, are those of another evaluation."""
    metrics = file.with_name(file.name.removesuffix(SUFFIX) + ".json")
    try:
        recorded = json.loads(metrics.read_text(encoding="utf-8"))["per_user"]["sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
        raise CheckpointError(
            f"{metrics}: expected metrics and the hash of {file.name}, found none that can be "
            "read: run blin evaluate again"
        ) from cause
    if recorded != hash_of(file):
        raise CheckpointError(
            f"{file}: expected the ranks that {metrics.name} was computed from, found others: "
            "run blin evaluate again"
        )
