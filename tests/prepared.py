"""Reading back what the core returns, in raw ids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def raw_ids(result: dict[str, Any], side: str) -> list[str]:
    text, offsets = result[f"{side}_ids"]
    raw = text.tobytes()
    return [raw[a:b].decode() for a, b in pairwise(offsets)]


def raw_sequences(result: dict[str, Any]) -> dict[str, list[str]]:
    items = raw_ids(result, "item")
    offsets = result["offsets"]
    return {
        user: [items[item - 1] for item in result["items"][start:end]]
        for user, start, end in zip(raw_ids(result, "user"), offsets, offsets[1:], strict=False)
    }


def raw_timestamps(result: dict[str, Any]) -> dict[str, list[int]]:
    offsets = result["offsets"]
    return {
        user: result["timestamps"][start:end].tolist()
        for user, start, end in zip(raw_ids(result, "user"), offsets, offsets[1:], strict=False)
    }
