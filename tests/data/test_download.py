"""Downloads, against a server on this machine: complete and checked, or not there at all."""

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blin.data.catalog import CatalogEntry
from blin.data.download import download, extract, fetch
from blin.errors import DataError

LOG = b"1 10 11 12\n2 10 12 13\n" * 5_000


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/README", "terms")
        archive.writestr("set/log.txt", content)
    return buffer.getvalue()


FILES = {"/log.txt": LOG, "/set.zip": zipped(LOG), "/short.txt": LOG}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path not in FILES:
            self.send_error(404, "Not Found")
            return
        body = FILES[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100] if self.path == "/short.txt" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def entry_of(url: str, *, member: str | None = None) -> CatalogEntry:
    content = FILES.get("/" + url.rpartition("/")[2], b"")
    return CatalogEntry(
        name="tiny",
        summary="a log",
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        terms="none",
        member=member,
    )


def test_a_file_is_saved_and_its_progress_told(server: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    log = fetch(
        entry_of(f"{server}/log.txt"),
        tmp_path,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert log.read_bytes() == LOG
    assert log.name == "log.txt"
    assert len(seen) > 1 and seen[-1] == (len(LOG), len(LOG))


def test_a_member_is_taken_out_of_its_archive(server: str, tmp_path: Path) -> None:
    log = fetch(entry_of(f"{server}/set.zip", member="set/log.txt"), tmp_path)
    assert log.read_bytes() == LOG
    assert [path.name for path in log.parent.iterdir()] == ["log.txt"]


def test_a_file_that_is_there_is_not_fetched_again(server: str, tmp_path: Path) -> None:
    entry = entry_of(f"{server}/log.txt")
    log = fetch(entry, tmp_path)
    assert fetch(replace(entry, url="http://127.0.0.1:1/log.txt"), tmp_path) == log


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/missing.txt", "the server answered 404 Not Found"),
        ("/short.txt", "expected 110000 bytes, received 100"),
    ],
)
def test_a_failed_download_leaves_nothing(
    server: str, tmp_path: Path, path: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as raised:
        fetch(entry_of(server + path), tmp_path / "downloads")
    assert str(raised.value).endswith(
        f"; fetch it by hand and run: blin preprocess {path[1:]} --name tiny"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected SHA-256 0000, found "):
        download(f"{server}/log.txt", tmp_path / "log.txt", sha256="0000")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.zip"
    with pytest.raises(DataError) as raised:
        fetch(entry_of(url, member="set/log.txt"), tmp_path)
    assert str(raised.value) == (
        f"{url}: cannot be reached (Connection refused); fetch it by hand, "
        "take set/log.txt out of it and run: blin preprocess log.txt --name tiny"
    )


def test_a_silent_server_is_not_waited_for_long(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/log.txt"
        with pytest.raises(DataError, match="log.txt"):
            download(url, tmp_path / "log.txt", sha256="", timeout=0.1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(server: str, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(entry_of(f"{server}/log.txt"), tmp_path / "downloads", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content, reason",
    [(zipped(LOG), "expected a member other.txt"), (LOG, "not a zip archive")],
)
def test_an_unfit_archive_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        extract(archive, "other.txt", tmp_path / "other.txt")
    assert not (tmp_path / "other.txt").exists()
