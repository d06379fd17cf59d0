"""Logs that would fill the memory: one clear line each, in bounded memory and time.

Run with ``pytest -m slow``. What is written to the pipe is made on the way and never on the disk.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pyarrow as pa
import pytest

pytestmark = pytest.mark.slow

MEBI = 1 << 20
HEADER = b"user,item,time\n"
MOST_MEMORY = 600 * MEBI
MOST_SECONDS = 120

MEASURED = """
import sys
from pathlib import Path
from blin.cli import main
try:
    main(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text()
    print("peak", status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def times(count: int, piece: bytes) -> Iterator[bytes]:
    return repeat(piece, count)


def members(count: int, content: bytes) -> Iterator[bytes]:
    return times(count, gzip.compress(content))


def zstd_of_one_byte(byte: bytes, gibi: int, *, window: int) -> bytes:
    """One frame whose blocks, of 128 KiB each, are a byte and how often it comes."""
    block = (1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + byte
    end = b"\1\0\0"
    return b"\x28\xb5\x2f\xfd\0" + bytes([window]) + block * (gibi << 13) + end


LINE = ": expected lines of at most 16 MiB, found a longer one"
BOMB = ": expected beyond 128 MiB at most 250 bytes for each packed one"
ROWS = b"".join(b"u%d,i%d,%d\n" % (n, n, n) for n in range(16)) * (1 << 15)

LOGS: dict[str, tuple[Iterable[bytes], str]] = {
    "1 GB without a newline": (times(1000, b"x" * MEBI), LINE),
    "10 million columns": (
        chain((b"column-%d," % n for n in range(10_000_000)), [b"\n"]),
        LINE,
    ),
    "10 million columns without names": (
        [b"," * 10_000_000 + b"\n"],
        ": expected at most 10000 columns",
    ),
    "10 million keys": (
        [b"{" + b",".join(b'"%x":1' % n for n in range(1_200_000)) + b"}\n"],
        ": expected objects of at most 10000 keys",
    ),
    "4 GB id": (chain([HEADER], times(4000, b"u" * MEBI)), LINE),
    "4 GB id in quotes": (chain([HEADER, b'"'], times(4000, b"u" * MEBI)), LINE),
    "4 GB id in JSON": (chain([b'{"user": "'], times(4000, b"u" * MEBI)), LINE),
    "100 MB id": (chain([HEADER], times(100, b"u" * MEBI), [b",a,1\n"]), LINE),
    "100 MB of lines in quotes": (
        chain([HEADER, b'"'], times(100, b"u,a,1\n" * (MEBI // 6)), [b'",a,1\n']),
        ":2: expected a closing quote, found none within 1 MiB",
    ),
    "10 GB of zeros in gzip": (members(640, bytes(16 * MEBI)), LINE),
    "10 GB of newlines in gzip": (
        chain([gzip.compress(HEADER)], members(640, b"\n" * (16 * MEBI))),
        BOMB,
    ),
    "10 GB of one row in gzip": (
        chain([gzip.compress(HEADER)], members(640, b"u,a,1\n" * (16 * MEBI // 6))),
        BOMB,
    ),
    "10 GB of rows in gzip": (
        chain([gzip.compress(HEADER)], members(1500, ROWS)),
        BOMB,
    ),
    "10 GB of rows in zstd": (
        times(1500, pa.Codec("zstd").compress(ROWS, asbytes=True)),
        BOMB,
    ),
    "10 GB of zeros in zstd": ([zstd_of_one_byte(b"\0", 10, window=0x40)], LINE),
    "10 GB of newlines in zstd": (
        chain(
            [pa.Codec("zstd").compress(HEADER, asbytes=True)],
            [zstd_of_one_byte(b"\n", 10, window=0x40)],
        ),
        BOMB,
    ),
    "zstd with a window of 1 TiB": (
        [zstd_of_one_byte(b"\n", 10, window=0xF0)],
        ": expected zstd with a window of at most 100 MiB, found 1048576 MiB",
    ),
    "gzip with a name of 1 GB": (
        chain([b"\x1f\x8b\x08\x08" + bytes(6)], times(1000, b"x" * MEBI)),
        ": gzip header field too long",
    ),
    "zstd that skips more than there is": (
        chain([b"\x50\x2a\x4d\x18\xff\xff\xff\xff"], times(400, bytes(MEBI))),
        ": the compressed data ends too early",
    ),
    "a million stray quotes": (
        chain([HEADER], times(100, b'x","a,1\n' * (MEBI // 8))),
        ": expected a closing quote",
    ),
}


def feed(pipe: Path, pieces: Iterable[bytes]) -> None:
    try:
        with pipe.open("wb") as file:
            file.writelines(pieces)
    except BrokenPipeError:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")
@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_would_fill_the_memory(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces, message = LOGS[name]
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    writer = threading.Thread(target=feed, args=(pipe, pieces), daemon=True)
    writer.start()
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", MEASURED, "preprocess", str(pipe), "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    seconds = time.perf_counter() - start
    error, peak = process.stderr.splitlines()
    memory = int(peak.split()[1]) * 1024
    with capsys.disabled():
        print(f"\n{name}: {seconds:.1f} s, {memory / MEBI:.0f} MiB: {error[-100:]}")
    assert process.returncode == 3
    assert message.removeprefix(":2") in error
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert memory < MOST_MEMORY
    assert seconds < MOST_SECONDS
