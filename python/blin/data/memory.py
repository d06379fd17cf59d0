"""The memory that a process has taken, and the limit on what preparing a log may take."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from blin.errors import ConfigError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

#: Blocks of the log that are being read and, at the end, the tables of ids being written.
_BUFFERS = 64 << 20

#: What the ids and rows get at least.
_LEAST_FOR_LOG = 64 << 20


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory may be taken, in bytes."""

    total: int
    #: What is taken by other things than ids and rows.
    reserved: int

    @classmethod
    def parse(cls, size: int | str) -> MemoryLimit:
        """Reads a number of bytes or a size such as ``"4GB"``, ``"512MiB"`` or ``"1.5g"``.

        Raises:
            ConfigError: It is no size, or too little to begin with.
        """
        match = _SIZE.fullmatch(str(size).strip())
        if match is None:
            raise ConfigError(f"memory_limit: expected a size such as 4GB or 512MiB, found {size}")
        number, unit, binary = match.groups()
        total = int(float(number) * (1024 if binary else 1000) ** _POWER[unit.lower()])
        reserved = _resident_bytes() + _BUFFERS
        if total < reserved + _LEAST_FOR_LOG:
            least = -(-(reserved + _LEAST_FOR_LOG) // 10**6)
            raise ConfigError(f"memory_limit: expected at least {least} MB, found {size}")
        return cls(total, reserved)


def _resident_bytes() -> int:
    """Returns the memory that this process has now; where the system does not say, a guess."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 128 << 20
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes() -> int:
    """Returns the most memory this process has held so far; 0 where the system does not say."""
    try:
        # Linux counts a parent's memory in ru_maxrss, but not here.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
