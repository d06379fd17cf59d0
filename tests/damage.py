"""Files that are not as they were written, and a watch on the memory that reading them takes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from torch import Tensor

from blin.errors import BlinError
from blin.tensors import read_header, read_tensors, write_tensors


@contextmanager
def little_memory(more: int = 400 << 20) -> Iterator[None]:
    """Lets the process take so many bytes more than it has, and no others."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not say how much memory a process has")
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(statm.read_text().split()[0]) * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content with a byte changed, cut off, or followed by others."""
    places = st.integers(0, len(content) - 1)
    changed = st.builds(
        lambda place, mask: content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :],
        places,
        st.integers(1, 255),
    )
    return changed | places.map(lambda place: content[:place]) | st.just(content + b"\0")


def message_of(error: type[BlinError], do: Callable[[], object]) -> str:
    """What is said when it is done, in one line, with little memory."""
    with little_memory(), pytest.raises(error) as caught:
        do()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800
    return message


def rewrite(
    file: Path,
    *,
    about: Callable[[dict[str, Any]], object] = lambda about: None,
    tensors: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
) -> None:
    """Changes a safetensors file as blin itself would have written it."""
    header = read_header(file)
    content = {name: tensor.clone() for name, tensor in read_tensors(file, header).items()}
    said = {name: value for name, value in header.about.items() if name != "sha256"}
    about(said)
    tensors(content)
    write_tensors(file, content, said)


def with_header(header: object, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
