"""What README.md shows works as shown."""

import ast
import re
from pathlib import Path

import pytest

from blin import load_dataset
from blin.cli import main

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"


@pytest.fixture
def raw_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log as the examples name it: users u0, u1, ..., each walking through items i0 to i19."""
    rows = [f"u{user},i{(user + step) % 20},{step}" for user in range(40) for step in range(8)]
    (tmp_path / "raw.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("raw_csv")
def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(example.replace("dim=64", "dim=16, epochs=3"), {})
    assert "'item_id': 'i" in capsys.readouterr().out


@pytest.mark.usefixtures("raw_csv")
def test_the_page_on_python_works_from_top_to_bottom() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 4
    exec("\n".join(examples), {})


@pytest.mark.usefixtures("raw_csv")
def test_a_model_of_ones_own_is_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    load_dataset("raw.csv")
    exec(example, {})
    # Everybody walks from an item to the next one, but for those who come from i19 to i0.
    assert ast.literal_eval(capsys.readouterr().out)["HR@10"] > 0.7


@pytest.mark.usefixtures("raw_csv")
def test_the_commands_run_in_their_order() -> None:
    commands = re.findall(r"^    blin ([a-z]+ .*)$", README.read_text("utf-8"), re.MULTILINE)
    chain = [command.partition("#")[0] for command in commands if "ml-1m" not in command]
    assert [command.split()[0] for command in chain] == [
        *("preprocess", "train", "evaluate", "recommend"),
        *("models", "train", "sweep", "compare", "report"),
    ]
    quicker = {
        "train": ["--epochs", "2"],
        "sweep": ["--dry-run"],
        "compare": ["--resamples", "99"],
        "report": ["--resamples", "99"],
    }
    for command in chain:
        name, *arguments = command.split()
        with pytest.raises(SystemExit) as left:
            main([name, *arguments, *quicker.get(name, [])])
        assert not left.value.code


def test_nobody_is_told_to_install_another_package() -> None:
    assert "pip install blin" not in README.read_text(encoding="utf-8")
