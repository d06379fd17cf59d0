"""What the documentation says of settings, commands and their JSON is what there is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from blin.cli import main
from blin.errors import ConfigError
from blin.experiments import bench, reproduction, side_by_side
from blin.experiments.bench import Cost, Outcome
from blin.models import MODELS
from blin.training.trainer import all_settings
from cli.conftest import Blin, blin, trained

__all__ = ["blin", "trained"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_MEASURED = "not measured yet"
"""What a configuration says of itself until it was trained with."""

MAX_LEN = "50, 100 or 200"
"""By the dataset: no default of the dataclass."""


def tables(text: str, first: str) -> dict[str, list[list[str]]]:
    """The rows of the table whose first column has a name, by the heading above them."""
    found: dict[str, list[list[str]]] = {}
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not line.startswith("|---"):
            found.setdefault(heading, []).append(cells)
    return found


def setting_rows() -> list[tuple[str, str, str]]:
    """Model, setting and default, as docs/models.md has them."""
    rows = []
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for heading, cells in tables(text, "setting").items():
        model = heading.lower()
        for name, default, *_ in cells:
            if name.startswith("of `"):
                model = name[4:-1]
            else:
                rows.append((model, name.strip("`"), default))
    return rows


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("model", "name", "default"), setting_rows())
def test_a_default_in_the_documentation_is_that_of_the_code(
    model: str, name: str, default: str
) -> None:
    found = all_settings(model, MODELS[model].defaults)[name]
    if name == "max_len" and not MODELS[model].counted:
        assert default == MAX_LEN
    elif isinstance(found, float):
        assert float(default) == found
    else:
        assert default == written(found)


def base_of(model: str) -> tuple[str, set[str] | None]:
    """Whose settings a model has beside those of its table, and which of them it lacks."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        if section.partition("\n")[0].lower() != model:
            continue
        said = re.search(r"[Ss]ettings are (\w+)'s(?:, without (.*?)(?:, and\s|:))?", section, re.S)
        if said is not None:
            return said[1].lower(), set(re.findall(r"`(\w+)`", said[2] or ""))
    return "blin", None


@pytest.mark.parametrize("model", [name for name in MODELS if not name.startswith("blin-")])
def test_every_setting_is_in_a_table(model: str) -> None:
    """Its own, or that of the model whose settings it is said to have, with the same default."""
    own = {name for table, name, _ in setting_rows() if table == model}
    found = all_settings(model, MODELS[model].defaults)
    if model == "blin" or MODELS[model].counted:
        assert own == found.keys()
        return
    base, lacking = base_of(model)
    others = all_settings(base, MODELS[base].defaults)
    assert {name: found[name] for name in found.keys() - own} == {
        name: others[name] for name in others.keys() & found.keys() - own
    }
    if lacking is not None:
        assert lacking == others.keys() - found.keys()


def commands(text: str) -> list[str]:
    """The blin commands of indented and of fenced code, on one line each, without comments."""
    text = re.sub(r"\s*\\\n\s*", " ", text)
    indented = re.findall(r"^ {4}(blin [a-z].*)$", text, re.MULTILINE)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inside = [line for block in fenced for line in re.findall(r"^blin [a-z].*$", block, re.M)]
    return [line.partition(" #")[0].strip() for line in indented + inside]


DOCUMENTED = [(page.name, line) for page in PAGES for line in commands(page.read_text("utf-8"))]


def parse(line: str) -> None:
    """Reads the options of a command as it would, and runs nothing; S is any seed."""
    _, name, *arguments = shlex.split(re.sub(r"--seed S$", "--seed 0", line))
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"there is no blin {name}"
    command.make_context(name, arguments)


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_a_command_in_the_documentation_has_the_options_that_it_says(page: str, line: str) -> None:
    parse(line)


def test_a_command_that_has_not_is_noticed() -> None:
    assert len(DOCUMENTED) > 70
    assert commands("    blin train \\\n        --datset x  # so\n\n    blin  0.5  0.4\n") == [
        "blin train --datset x"
    ]
    with pytest.raises(click.NoSuchOption):
        parse("blin train --datset x")


def test_the_table_of_commands_names_all_of_them() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    named = {cells[0].strip("`").split()[1] for cells in tables(text, "command")[""]}
    assert named == set(main.commands)


@pytest.mark.parametrize("file", sorted(ROOT.glob("python/blin/configs/*.toml")), ids=str)
def test_a_configuration_opens_with_where_it_is_from_and_what_it_reaches(file: Path) -> None:
    about, empty, *rest = file.read_text("utf-8").partition("\n\n")[0].splitlines()
    assert about.startswith("# ") and about.endswith(".") and empty == "#"
    entries: dict[str, list[str]] = {}
    for line in rest:
        name, text = line[4:14].strip(), line[14:].strip()
        assert line.startswith("#   ") and text
        if name:
            entries[name] = []
        entries[list(entries)[-1]].append(text)
    typed = entries["command"]
    for line in typed:
        assert line.startswith("blin train ") and f"--config {file.stem}" in line
        parse(line.partition(" (")[0])
    wanted = ["source", "command", "time", "reaches"]
    if "--dataset NAME" in typed[0]:  # any dataset: no time, and no scores
        wanted = wanted[:2]
    elif NOT_MEASURED in entries["reaches"][0]:
        assert re.fullmatch(rf"\d+ epochs, {NOT_MEASURED}", entries["time"][0])
    else:
        assert re.match(r"\d+ epochs.* \d+ (s|min|minutes|seconds)", entries["time"][0])
        assert re.match(r"test HR@10 \.\d{4}, NDCG@10 \.\d{4}, full", entries["reaches"][0])
    assert list(entries) == wanted


JSON = {
    cells[0]: cells[1]
    for cells in tables((ROOT / "docs" / "cli.md").read_text("utf-8"), "command")["For scripts"]
}
PRINTED = {
    "preprocess": "preprocess shop.csv",
    "inspect": "inspect shop.csv",
    "train": "train --dataset shop --dim 8 --epochs 1",
    "train --dry-run": "train --dataset shop --dim 8 --dry-run",
    "evaluate": "evaluate",
    "evaluate --last": "evaluate --last 1",
    "compare --dataset": "compare --dataset shop --resamples 99",
    "sweep": "sweep --dataset shop --epochs 2 --set dim=16",
    "sweep --dry-run": "sweep --dataset shop --set dim=8,16 --dry-run",
    "ablate": "ablate --dataset shop",
    "reproduce": "reproduce --dataset shop --quick",
    "reproduce --dry-run": "reproduce --dataset shop --quick --dry-run",
    "bench": "bench --models blin --lengths 5",
    "recommend": "recommend --history P001",
    "datasets": "datasets",
    "models": "models",
}
FAILING = ("ablate", "reproduce")
"""Without trainings; they print what there is all the same."""


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all trainings of many fail at once, and measures no case of a bench."""

    def refuse(*given: object, **options: object) -> None:
        raise ConfigError("not now")

    cost = Cost((0.1,), 2, 1, 1, (), "cpu", 1)
    monkeypatch.setattr(side_by_side, "_WORKER", "import sys; sys.exit(3)")
    monkeypatch.setattr(reproduction, "forecast", refuse)
    monkeypatch.setattr(bench, "_run", lambda case, data, work: Outcome(case, cost))


def named_keys(row: str) -> tuple[set[str], bool]:
    """The keys that the documentation names, and whether it says that there are more."""
    (named, *_) = re.findall(r"`\{?([\w, .]+)\}?`", JSON[row])
    keys = set(named.replace(", ...", "").split(", "))
    if JSON[row].startswith("that of sweep"):
        keys |= named_keys("sweep")[0]
    return keys, "..." in named


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("row", PRINTED)
def test_json_has_the_keys_of_the_documentation(blin: Blin, row: str) -> None:
    result = blin(*PRINTED[row].split(), "--json")
    assert result.exit_code == (row in FAILING), result.stderr
    value: Any = json.loads(result.stdout)
    if isinstance(value, list):
        assert JSON[row].startswith("a list of")
        value = value[0]
    keys, more = named_keys(row)
    assert keys <= value.keys()
    assert keys == value.keys() or more
