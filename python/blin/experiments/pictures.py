"""Pictures in files, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blin.errors import ConfigError
from blin.files import replacing
from blin.markup import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DATES: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".png": {},
    ".pdf": {"CreationDate": None},
}
"""The kinds of pictures, and the dates that would be in their files."""


def check_picture(path: Path) -> None:
    """Makes sure, before there is work that could be in vain, that a picture can be drawn.

    Raises:
        ConfigError: The name is not one of a picture, or its directory is not there.
        BlinError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _DATES:
        known = ", ".join(_DATES)
        raise ConfigError(f'--out: expected a name that ends in {known}, found "{path}"')
    if not path.parent.is_dir():
        raise ConfigError(f'--out: expected a directory that is there, found "{path}"')
    require_matplotlib()


@contextmanager
def picture(path: Path) -> Iterator[Figure]:
    """Gives a wide figure to draw in, and writes it at the end, whole or not at all."""
    import matplotlib
    from matplotlib.figure import Figure

    kind = path.suffix.lower()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "blin", "font.size": 9})
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        yield figure
        with replacing(path) as temporary, temporary.open("wb") as file:
            figure.savefig(file, format=kind[1:], metadata=_DATES[kind], dpi=150)
