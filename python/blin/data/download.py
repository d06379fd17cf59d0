"""Fetches a file of the catalogue; the only module that uses the network.

A file appears under its own name only when it is complete, is on the disk and has the expected
SHA-256, so an interrupted download leaves nothing that could be mistaken for data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO

from blin.data.catalog import CatalogEntry
from blin.errors import DataError

TIMEOUT_SECONDS = 15.0
"""How long a silent server is waited for."""

_BLOCK = 1 << 16


def fetch(
    entry: CatalogEntry,
    directory: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns the path of the entry's log in ``directory``, downloaded unless it is there already.

    Raises:
        DataError: The file cannot be had; the message says where to fetch it and what to run then.
    """
    log = directory / f"{entry.name}-{entry.sha256[:8]}" / entry.log_name
    if log.exists():
        return log
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        if entry.member is None:
            download(entry.url, log, sha256=entry.sha256, on_progress=on_progress)
        else:
            # Its name is this process's own: another one may fetch the same dataset.
            archive = log.parent / f"{entry.file_name}.{os.getpid()}"
            try:
                download(entry.url, archive, sha256=entry.sha256, on_progress=on_progress)
                extract(archive, entry.member, log)
            finally:
                archive.unlink(missing_ok=True)
    except DataError as error:
        raise DataError(f"{error}; {by_hand(entry)}") from error
    finally:
        _remove_empty(log.parent)
        _remove_empty(directory)
    return log


def by_hand(entry: CatalogEntry) -> str:
    """Says how to get the dataset without blin's help, after a message that names its address."""
    unpacking = f", take {entry.member} out of it" if entry.member else ""
    command = f"blin preprocess {entry.log_name} --name {entry.name}"
    return f"fetch it by hand{unpacking} and run: {command}"


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    on_progress: Callable[[int, int], None] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> None:
    """Saves what ``url`` holds as ``target`` if its SHA-256 is the expected one."""
    digest = hashlib.sha256()
    with (
        _replacing(target) as file,
        _named_failures(url),
        urllib.request.urlopen(url, timeout=timeout) as response,
    ):
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(_BLOCK):
            file.write(block)
            digest.update(block)
            if on_progress is not None:
                on_progress(file.tell(), total)
        if file.tell() < total:
            raise DataError(f"{url}: expected {total} bytes, received {file.tell()}")
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{url}: expected SHA-256 {sha256}, found {digest.hexdigest()}: "
                "the file was damaged on its way or has changed"
            )


def extract(archive: Path, member: str, target: Path) -> None:
    """Saves one member of a zip archive as ``target``."""
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            _replacing(target) as file,
        ):
            shutil.copyfileobj(source, file)
    except KeyError:
        raise DataError(f"{archive}: expected a member {member}, found none") from None
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive}: not a zip archive: {error}") from None


@contextmanager
def _named_failures(url: str) -> Iterator[None]:
    """Turns what the network raises into a DataError that names the address."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise DataError(f"{url}: cannot be reached ({_reason(error)})") from None
    except (TimeoutError, ConnectionError, HTTPException) as error:
        raise DataError(f"{url}: the connection broke off ({error})") from None


def _reason(error: urllib.error.URLError) -> str:
    return getattr(error.reason, "strerror", None) or str(error.reason)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the name ``target`` only if the block ends well."""
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_empty(directory: Path) -> None:
    if not any(directory.iterdir()):
        directory.rmdir()
