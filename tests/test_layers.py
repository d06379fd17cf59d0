"""Imports point one way: from the commands down to the leaves."""

import ast
from pathlib import Path

import pytest

import blin

PACKAGE = Path(blin.__file__).parent
MODULES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")

# A module may import what stands below it. Names of one line do not know each other, except the
# leaves at the bottom.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"experiments"},
    {"estimator"},
    {"training"},
    {"evaluation", "inference"},
    {"checkpoint"},
    {"models", "data"},
    {"nn", "losses", "_core"},
    {"batch", "errors", "config", "files", "markup", "tensors", "turns", "vocabulary"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("blin.")}


@pytest.mark.parametrize("path", [str(file.relative_to(PACKAGE)) for file in MODULES])
def test_imports_point_down(path: str) -> None:
    file = PACKAGE / path
    layer = Path(path).with_suffix("").parts[0]
    assert layer in LEVEL, f"{layer} has no place in the layers"
    known = LAYERS[-1] if layer in LAYERS[-1] else {layer}
    for other in imported(file) & LEVEL.keys() - known:
        assert LEVEL[other] > LEVEL[layer], f"{layer} must not import {other}"
