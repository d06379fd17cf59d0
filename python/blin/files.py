"""Files that are there in full or not at all, that one process holds, or that are read in part."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from blin.errors import LockedError

_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)")
_BEGIN = time.time()


def temporary_beside(path: Path) -> Path:
    """Returns the name under which this process prepares what becomes ``path``."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``; what is written there becomes ``path`` at the end.

    The file is synced before it is renamed. If the block raises, nothing is left behind and an
    older file stays as it was.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            # A write that fails names no file, and nobody knows the temporary name.
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def sync(path: Path) -> None:
    """Waits until a file or a directory is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Removes from a directory what processes that died had begun under a temporary name."""
    with suppress(OSError):
        for path in directory.iterdir():
            name = _TEMPORARY.fullmatch(path.name)
            if name is None or _may_be_in_use(path, int(name[1])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Returns whether a process of this machine, other than this one, has the number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _may_be_in_use(path: Path, pid: int) -> bool:
    if pid != os.getpid():
        return is_alive(pid)
    # In a container a process often has the number that the one before it had.
    return path.lstat().st_mtime >= _BEGIN


def lock(path: Path, *, what: str, use: str = "is training it") -> IO[str]:
    """Returns a file, open and locked for this process until it is closed.

    The system takes the lock back when its process ends, however it ends: a file that a killed
    process left locks nothing. Where the file system or the system has no such locks, there is
    none.

    Args:
        path: the file; it is made if need be, and stays.
        what: is locked, for the message.
        use: what a process does that holds it, likewise.

    Raises:
        LockedError: Another process holds it.
    """
    file = path.open("a+", encoding="utf-8")
    if sys.platform == "win32":
        return file
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            file.seek(0)
            holder = file.read(20).strip()
        by = f"process {holder}" if holder.isdecimal() else "another process"
        raise LockedError(f"{what}: {by} {use}: wait until it ends, or stop it") from error
    except OSError:
        return file
    with suppress(OSError):  # a full disk locks as well
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file


def read_bounded(path: Path, *, limit: int) -> bytes:
    """Returns the content of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger than ``limit`` bytes.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than the {limit >> 20} MiB that such a file may have")
    return content


def parse_json(content: bytes | str) -> Any:
    """Returns what JSON says.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("lists within lists without end") from error
