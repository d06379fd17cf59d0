"""``blin distill``: a student's run, by the options of ``blin train``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blin.checkpoint import read_run_config
from cli.conftest import Blin

SMALL = ("--dim", 8, "--max-len", 9, "--epochs", 1, "--threads", 1)


def teacher() -> Path:
    return Path("runs/latest").resolve()


def told(blin: Blin, *arguments: object) -> Any:
    result = blin(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def student_of(blin: Blin, *arguments: object) -> Path:
    return Path(told(blin, "distill", *arguments)["run"])


def test_a_student_is_trained_and_used_like_any_model(blin: Blin) -> None:
    name = teacher().name
    result = blin("distill", "--teacher", f"shop/{name}", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert "  distill " in result.stderr and "  detector " in result.stderr
    student = Path("runs/latest").resolve()
    assert student.name.endswith("-spnn-distilled-s0")
    assert read_run_config(student)["settings"]["cold_share"] == 0.5
    stored = json.loads((student / "eval" / "test.json").read_text())["metrics"]
    found = told(blin, "evaluate", "--k", 10, 20)
    assert (found["run"], found["metrics"]) == (str(student), stored)
    assert len(told(blin, "recommend", "--history", "i1,i2")) == 10
    more = blin("train", "--resume", student, "--epochs", 2)
    assert more.exit_code == 0 and "goes on after epoch 1" in more.stderr, more.stderr


def test_a_student_whose_teacher_is_gone_stays_as_it_was(blin: Blin) -> None:
    master = teacher()
    student = student_of(blin, "--teacher", master, *SMALL)
    files = [student / "config.toml", student / "environment.json"]
    before = [file.read_bytes() for file in files]
    master.rename("elsewhere")
    refused = blin("train", "--resume", student, "--epochs", 2)
    assert refused.exit_code == 4 and "expected the run of the teacher" in refused.stderr
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    "student", [("--model", "linrec"), ("--set", "padding=repeat", "--set", "copies=attend")]
)
def test_what_cannot_be_cut_is_not(blin: Blin, student: tuple[str, ...]) -> None:
    run = student_of(blin, "--teacher", teacher(), *student, *SMALL)
    assert read_run_config(run)["settings"]["cold_share"] == 0


def test_the_config_of_a_student_gives_it_again(blin: Blin) -> None:
    how = ("--distill-weight", 0.5, "--cold-share", 0.3, "--cold-items", 2, "--knowledge-dim", 4)
    run = student_of(blin, "--teacher", teacher(), "--model", "sasrec", *how, *SMALL)
    again = student_of(blin, "--config", run / "config.toml")
    assert (again / "config.toml").read_bytes() == (run / "config.toml").read_bytes()
    model = "model/model.safetensors"
    assert (again / model).read_bytes() == (run / model).read_bytes()
    other = student_of(blin, "--config", run / "config.toml", "--cold-items", 3)
    before, after = read_run_config(run), read_run_config(other)
    assert (before["settings"]["cold_share"], before["settings"]["cold_items"]) == (0.3, 2)
    assert after == {**before, "settings": {**before["settings"], "cold_items": 3}}

    for command in (["train"], ["sweep", "--set", "dropout=0.1,0.2"]):
        result = blin(*command, "--dataset", "shop", "--config", run / "config.toml")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "it is of a run that was distilled from a teacher: use blin distill" in result.stderr

    weights = Path(before["distillation"]["teacher"], "model", "model.safetensors")
    shutil.copyfile(run / model, weights)
    shutil.copyfile(run / "model" / "config.json", weights.with_name("config.json"))
    result = blin("distill", "--config", run / "config.toml")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "expected the teacher it was written for, found other weights" in result.stderr
    student_of(blin, "--config", run / "config.toml", "--teacher", weights.parent.parent)


def test_students_are_told_from_plain_runs(blin: Blin) -> None:
    named = ("--model", "spnn", *SMALL)
    whose = teacher()
    assert blin("train", "--dataset", "shop", *named).exit_code == 0
    first = student_of(blin, "--teacher", whose, *named)
    student_of(blin, "--teacher", whose, *named, "--seed", 1)
    (protocol,) = told(blin, "compare", "--dataset", "shop", "--resamples", 99)["protocols"]
    rows = {row["row"]: len(row["runs"]) for row in protocol["rows"]}
    assert rows == {"blin": 1, "spnn": 1, "spnn from blin": 2}
    best = told(blin, "compare", "--dataset", "shop", "--best", "--resamples", 99)
    assert {row["row"] for row in best["protocols"][0]["rows"]} == rows.keys()
    same = [word for each in ("dim=8", "max_len=9", "epochs=1") for word in ("--set", each)]
    plan = told(blin, "sweep", "--dataset", "shop", "--dry-run", "--model", "spnn", *same)
    assert [row["state"] for row in plan] == ["finished"]
    assert not any("distilled" in row["run"] for row in plan)
    report = blin("report", "--dataset", "shop", "--resamples", 99, "--out", "page.html")
    assert report.exit_code == 0, report.stderr
    assert "spnn from blin" in Path("page.html").read_text()
    assert first.is_dir()


def test_a_dry_run_writes_nothing(blin: Blin) -> None:
    before = sorted(Path().rglob("*"))
    found = told(blin, "distill", "--teacher", teacher(), *SMALL, "--dry-run")
    assert found["model"] == "spnn"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give --teacher RUN"),
        (("--teacher", "nowhere"), 4, "nowhere: expected a run directory with a config.toml"),
        (("--teacher", "data"), 4, "data: expected a run directory with a config.toml"),
        (("--teacher", "latest", "--model", "popularity"), 2, "popularity learns by counting"),
        (("--teacher", "latest", "--model", "sasrek"), 2, 'unknown model "sasrek"'),
        (("--teacher", "latest", "--set", "distil=1"), 2, 'unknown setting "distil"'),
        (("--teacher", "latest", "--cold-share", "2"), 2, "--cold-share"),
        (("--teacher", "latest", "--dataset", "other"), 3, "other"),
    ],
)
def test_what_cannot_be_distilled(
    blin: Blin, arguments: tuple[str, ...], code: int, message: str
) -> None:
    runs = sorted(Path("runs").rglob("*"))
    result = blin("distill", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr and "Traceback" not in result.stderr
    assert sorted(Path("runs").rglob("*")) == runs
