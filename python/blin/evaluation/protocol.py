"""What a protocol is called: in the names of metrics, and of the files they are kept in.

Full ranking of each user's first target, all targets candidates, by a model that is shown all that
comes before, is the usual one and has no name. Numbers by any other carry its name, so that they
cannot be taken for each other.
"""

from __future__ import annotations

from collections.abc import Mapping

_USUAL = {"targets": "first", "repeats": "candidate"}


def metric_suffix(protocol: Mapping[str, object]) -> str:
    """Returns what the metrics' names of a protocol end in, such as ``[uniform-500,last-3]``."""
    unusual = _unusual(protocol)
    return f"[{','.join(unusual)}]" if unusual else ""


def evaluation_name(protocol: Mapping[str, object]) -> str:
    """Returns the name of a protocol: ``test``, ``test-uniform-500-s0``, ``valid-last-3``."""
    seed = [f"s{protocol['seed']}"] if "seed" in protocol else []
    return "-".join([str(protocol["split"]), *_unusual(protocol), *seed])


def protocol_title(protocol: Mapping[str, object]) -> str:
    """Returns what a table of metrics by a protocol is headed by."""
    cut = f", history {protocol['history']}" if "history" in protocol else ""
    return f"{protocol['dataset']}, {protocol['split']} items, {protocol['ranking']} ranking{cut}"


def _unusual(protocol: Mapping[str, object]) -> list[str]:
    found = [f"{key}-{protocol[key]}" for key, value in _USUAL.items() if protocol[key] != value]
    if "history" in protocol:
        found.insert(0, str(protocol["history"]))
    return found if protocol["ranking"] == "full" else [str(protocol["ranking"]), *found]
