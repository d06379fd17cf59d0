"""A directory that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from blin.errors import BlinError, DataError
from blin.files import is_alive
from blin.turns import Turn

#: What writes into a file once it is open, or a file put aside that is moved.
Content = Callable[[IO[bytes]], Any] | Path

#: Writes one file, given its name and content.
Write = Callable[[str, Content], None]

PREPARING = Turn()
"""Of the thread that prepares: temporary names tell processes apart, not their threads."""

SWAPPING = Turn()
"""Of the thread that puts a directory in the place of another, or opens one."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Directory:
    """A dataset's directory, and the temporary ones beside it that belong to this process.

    New content is written to ``.<name>.tmp-<pid>`` and renamed into place. Content that was there
    before waits as ``.<name>.old-<pid>`` for the moment between two renames. What does not fit into
    memory on the way is put into ``.<name>.spill-<pid>``.
    """

    def __init__(self, path: Path) -> None:
        """Names the directory and touches nothing."""
        self.path = path
        self._new = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        self._old = path.with_name(f".{path.name}.old-{os.getpid()}")
        self._aside = path.with_name(f".{path.name}.spill-{os.getpid()}")

    def recover(self) -> None:
        """Removes what processes that died have left, and restores what they had put aside."""
        self.restore()
        for kind in ("old", "tmp", "spill"):
            for leftover in self._leftovers(kind):
                if kind != "old" or self.path.exists():
                    shutil.rmtree(leftover, ignore_errors=True)

    def restore(self) -> None:
        """Puts back what a process that died between two renames had put aside."""
        for leftover in self._leftovers("old"):
            if not self.path.exists():
                with suppress(OSError):
                    leftover.rename(self.path)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """Yields an empty directory on the same disk, which is removed when the block ends.

        Raises:
            BlinError: It cannot be made.
        """
        try:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside.mkdir(parents=True)
        except OSError as error:
            raise self._explain(error) from error
        try:
            yield self._aside
        finally:
            _remove(self._aside)

    @contextmanager
    def replacing(self) -> Iterator[Write]:
        """Yields what writes new files; they replace the directory if the block ends well.

        Raises:
            BlinError: The files cannot be written, for example because the disk is full.
            DataError: There is a directory of this name that holds something else.
        """
        self._refuse_foreign_content()
        try:
            self._new.mkdir(parents=True)
            yield self._write
            _sync(self._new)
            with SWAPPING:
                self._swap()
            _sync(self.path.parent)
        except OSError as error:
            raise self._explain(error) from error
        finally:
            shutil.rmtree(self._new, ignore_errors=True)

    def _write(self, name: str, content: Content) -> None:
        if isinstance(content, Path):
            content.replace(self._new / name)
            _sync(self._new / name)
            return
        with (self._new / name).open("wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())

    def _swap(self) -> None:
        if not self.path.exists():
            self._new.rename(self.path)
            return
        try:
            self.path.rename(self._old)
            self._new.rename(self.path)
        finally:
            if self._old.exists() and not self.path.exists():
                self._old.rename(self.path)
        shutil.rmtree(self._old, ignore_errors=True)

    def _refuse_foreign_content(self) -> None:
        is_ours = (self.path / "dataset.json").is_file()
        if self.path.exists() and not is_ours and not _is_empty_directory(self.path):
            raise DataError(
                f"{self.path}: expected a prepared dataset or nothing, found something else; "
                "choose another --name or --data-dir"
            )

    def _explain(self, error: OSError) -> BlinError:
        if error.errno in _NO_SPACE:
            return BlinError(f"{self.path}: not written: the disk is full")
        return BlinError(f"{self.path}: not written: {error.strerror or error}")

    def _leftovers(self, kind: str) -> Iterator[Path]:
        prefix = f".{self.path.name}.{kind}-"
        with suppress(OSError):
            for path in self.path.parent.iterdir():
                pid = path.name.removeprefix(prefix)
                if pid != path.name and pid.isdecimal() and not is_alive(int(pid)):
                    yield path


def _remove(path: Path) -> None:
    """Removes a directory in which a thread that was told to stop may still make files."""
    for _ in range(100):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.01)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sync(path: Path) -> None:
    """Makes a file or a directory's entries durable, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
