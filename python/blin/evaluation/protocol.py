"""What a protocol is called: in the names of metrics, and of the files they are kept in.

Full ranking of each user's first target, all targets candidates, is the usual one and has no name.
Numbers by any other carry its name, so that they cannot be taken for each other.
"""

from __future__ import annotations

from collections.abc import Mapping

_USUAL = {"targets": "first", "repeats": "candidate"}


def metric_suffix(protocol: Mapping[str, object]) -> str:
    """Returns what the metrics' names of a protocol end in, such as ``[uniform-500]``."""
    unusual = _unusual(protocol)
    return f"[{','.join(unusual)}]" if unusual else ""


def evaluation_name(protocol: Mapping[str, object]) -> str:
    """Returns the name of a protocol: ``test``, ``test-uniform-500-s0``, ``valid-repeats-miss``."""
    seed = [f"s{protocol['seed']}"] if "seed" in protocol else []
    return "-".join([str(protocol["split"]), *_unusual(protocol), *seed])


def _unusual(protocol: Mapping[str, object]) -> list[str]:
    found = [f"{key}-{protocol[key]}" for key, value in _USUAL.items() if protocol[key] != value]
    return found if protocol["ranking"] == "full" else [str(protocol["ranking"]), *found]
