"""Segments in rows of their own, one position after the other."""

from __future__ import annotations


def segment_rows(segments: list[list[int]]) -> list[list[tuple[int, int]]]:
    """The (row, column) places of each segment: rows from above, segments from the left."""
    found = []
    for row, marks in enumerate(segments):
        seen: dict[int, list[tuple[int, int]]] = {}
        for column, mark in enumerate(marks):
            if mark > 0:
                seen.setdefault(mark, []).append((row, column))
        found += list(seen.values())
    return found
