"""Tensors on disk: safetensors files that say who wrote them and what they belong to.

What a file says of itself is read and checked first; memory is taken for its tensors after that.
Nothing here knows of models or runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from blin.errors import BlinError, CheckpointError, reason_of
from blin.files import parse_json, replacing

FORMAT_VERSION = 1
"""Of everything in a run and in a model directory."""

HEADER_LIMIT = 16 << 20
"""Bytes of the header of a safetensors file, which in a state holds a record for every epoch."""

ABOUT = "blin"
"""Of the metadata of a safetensors file, the one that says in JSON what blin knows of it."""

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


class Header(NamedTuple):
    """What a safetensors file says of itself.

    Attributes:
        tensors: name → (type, shape).
        about: what blin has written into it; empty in a file of another writer.
    """

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    about: dict[str, Any]


def read_header(file: Path) -> Header:
    """Reads the header of a safetensors file, and nothing of its tensors.

    Raises:
        CheckpointError: The file is missing, no such file, too large in its header, or of another
            version.
    """
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(0)
            start = opened.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise ValueError("a file that ends too early")
            if length > HEADER_LIMIT:
                raise ValueError(f"a header of more than {HEADER_LIMIT >> 20} MiB")
            content = parse_json(opened.read(length))
        about = parse_json(content.pop("__metadata__", {}).get(ABOUT, "{}"))
        if not isinstance(about, dict):
            raise ValueError("metadata of another kind")
        tensors = {
            str(name): (str(entry["dtype"]), tuple(map(int, entry["shape"])))
            for name, entry in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as cause:
        raise _no_tensors(file, cause) from cause
    if about:
        check_version(file, about)
    return Header(tensors, about)


def read_tensors(file: Path, header: Header, *, mapped: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file whose header was checked.

    Args:
        file: the file.
        header: its header.
        mapped: leave them in the file, whose parts come to memory when they are used.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            # Copied to where memory of torch begins: products of tensors that lie anywhere in the
            # file may be summed in another order, and differ in the last digit.
            tensors = {
                name: opened.get_tensor(name) if mapped else opened.get_tensor(name).clone()
                for name in opened.keys()  # noqa: SIM118
            }
    except (OSError, SafetensorError) as cause:
        raise _no_tensors(file, cause) from cause
    about = dict(header.about)
    if about and about.pop("sha256", None) != _sha256(tensors, about):
        raise CheckpointError(f"{file}: expected the content that was written, found other bytes")
    return tensors


def write_tensors(
    file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> None:
    """Writes a safetensors file that says who wrote it and what is in it.

    Args:
        file: the file.
        tensors: by name.
        about: what else to say of them, as JSON.

    Raises:
        BlinError: It cannot be written, for example because the disk is full.
    """
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = {**written_by(), **(about or {})}
    said["sha256"] = _sha256(owned, said)
    # One entry, for the order of several changes from file to file.
    metadata = {ABOUT: json.dumps(said)}
    try:
        with replacing(file) as temporary:
            save_file(owned, temporary, metadata)
    except (OSError, SafetensorError) as cause:
        reason = reason_of(cause).removeprefix("Error while serializing: I/O error: ")
        raise BlinError(f"{file}: not written: {reason}") from cause


def check_version(file: Path, content: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a file of another format version."""
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        writer = content.get("blin_version")
        written = f", written by blin {writer:.30}" if isinstance(writer, str) else ""
        raise CheckpointError(
            f"{file}: expected format version {FORMAT_VERSION}, found {found!r:.30}{written}: "
            f"use that version of blin; this is {version('blin-rec')}"
        )


def tensors_of(module: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the types and shapes of a module's tensors, as in a :class:`Header`."""
    return {name: kind_of(tensor) for name, tensor in module.state_dict().items()}


def kind_of(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Returns the type and the shape of a tensor, as in a :class:`Header`."""
    return _DTYPES[tensor.dtype], tuple(tensor.shape)


def check_tensors(
    file: Path, header: Header, wanted: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Raises CheckpointError unless a file has exactly the wanted tensors."""
    for name in sorted(wanted.keys() | header.tensors.keys()):
        expected, found = wanted.get(name), header.tensors.get(name)
        if expected == found:
            continue
        if expected is None or found is None:
            what = "expected none, found one" if expected is None else "expected one, found none"
            raise CheckpointError(f"{file}: tensor {name:.100}: {what}")
        part, index = ("shape", 1) if expected[1] != found[1] else ("type", 0)
        raise CheckpointError(
            f"{file}: tensor {name}: expected {part} {expected[index]}, found {found[index]!s:.100}"
        )


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError if there is a number that is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() > 0:
            least, most = (float(end) for end in tensor.aminmax())
            if not (math.isfinite(least) and math.isfinite(most)):
                raise CheckpointError(
                    f"{file}: tensor {name}: expected finite numbers, found NaN or infinity"
                )


def written_by() -> dict[str, Any]:
    """Returns what every file says of who wrote it."""
    return {"format_version": FORMAT_VERSION, "blin_version": version("blin-rec")}


def _sha256(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {kind_of(tensors[name])}".encode())
        if tensors[name].numel() > 0:  # those without numbers may have no strides to go by
            digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _no_tensors(file: Path, cause: Exception) -> CheckpointError:
    return CheckpointError(f"{file}: expected a safetensors file, found: {reason_of(cause)}")
