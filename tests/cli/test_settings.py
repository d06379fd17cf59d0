"""Settings as they are typed: names, what is not for a model, and what has no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blin.cli.config_file import ConfigFile
from blin.cli.output import Output
from blin.cli.settings import warn_of_idle_axes, warn_of_no_effect
from blin.errors import ConfigError
from blin.experiments.points import grid, read_grid
from cli.conftest import run_blin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model sasrec --lambda 2", "--lambda: sasrec has no agreement of two views"),
        ("--model sasrec --set lambda=2", "--set lambda: sasrec has no agreement of two views"),
        ("--model gru4rec --ted 0.1", "--ted: gru4rec has no TED"),
        ("--model popularity --max-len 9", "--max-len: popularity has no setting max_len"),
        ("--set gru_layers=2", 'unknown setting "gru_layers"'),
        ("--set attention_dropout=.1", "--set attention_dropout: blin has no setting att"),
    ],
)
def test_what_is_not_for_a_model_is_named_as_typed(arguments: str, message: str) -> None:
    result = run_blin("train", "--dataset", "nowhere", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1


def test_lambda_is_a_name_in_files_too(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    for text in ("lambda = 1", "[settings]\nlambda = 1"):
        file.write_text(text)
        assert ConfigFile.read(str(file)).settings == {"kl_weight": 1}
    file.write_text('[base]\nlambda = 1\n[runs."a"]\ndim = 8\n[runs."b"]\nlambda = 0.5\n')
    points = read_grid(file, override={}, seeds=None).points
    assert [point.settings["kl_weight"] for point in points] == [1, 0.5]


@pytest.mark.parametrize("table", ["", "[settings]\n", "[base]\n", "[runs.a]\n"])
def test_one_setting_under_two_names_is_refused(tmp_path: Path, table: str) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f"{table}lambda = 1\nkl_weight = 2\n")
    with pytest.raises(ConfigError, match=r"my.toml: .*lambda and kl_weight are one setting"):
        if table.startswith(("[base", "[runs")):
            read_grid(file, override={}, seeds=None)
        else:
            ConfigFile.read(str(file))


def warnings_of(
    capsys: pytest.CaptureFixture[str],
    assignments: str = "",
    *,
    model: str = "blin",
    file: ConfigFile | None = None,
    **named: Any,
) -> list[str]:
    from blin.cli.settings import merged_settings

    typed = assignments.split()
    settings = merged_settings({} if file is None else file.settings, named, typed)
    output = Output(json=False, quiet=False, verbose=False, progress=False)
    warn_of_no_effect(model, settings, file, named, typed, output)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ("copies=attend", "copies = attend has no effect with padding = zero: there are no copies"),
        ("fit=truncate", "fit = truncate has no effect with padding = zero"),
        ("loss_average=copy", "loss_average = copy has no effect with padding = zero"),
        ("calibration=0.5", "calibration = 0.5 has no effect with loss = softmax: it is of gbce"),
        ("log_q=true num_negatives=0", "log_q = True has no effect with num_negatives = 0"),
        ("sampling=popularity num_negatives=0", "sampling = popularity has no effect"),
        ("kl_positions=last lambda=0", "kl_positions = last has no effect with kl_weight = 0"),
        ("ted_span=2", "ted_span = 2 has no effect with ted_weight = 0"),
        ("ted_inputs=64", "ted_inputs = 64 has no effect with ted_weight = 0"),
        ("kl_positions=last loss_positions=last", "kl_positions = last has no effect with loss_"),
        ("loss_average=user loss_positions=last", "loss_average = user has no effect with loss_"),
        (
            "long_sequences=windows loss_positions=last",
            "long_sequences = windows has no effect with loss_positions = last",
        ),
    ],
)
def test_a_setting_without_effect_is_told(
    capsys: pytest.CaptureFixture[str], assignments: str, message: str
) -> None:
    (line,) = warnings_of(capsys, assignments)
    assert line.startswith(f"warning: {message}")


def test_a_setting_without_effect_is_told_of_other_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for model in ("cl4srec", "mstein"):
        lines = warnings_of(capsys, "contrast_weight=0 crop_ratio=0.3 temperature=0.7", model=model)
        assert [line.split()[1] for line in lines] == ["temperature", "crop_ratio"]
        assert warnings_of(capsys, "crop_ratio=0.3", model=model) == []
    (line,) = warnings_of(capsys, "negatives_per=copy", model="sasrec")
    assert line.startswith("warning: negatives_per = copy has no effect with padding = zero")
    assert warnings_of(capsys, "negatives_per=copy padding=repeat", model="sasrec") == []
    assert warnings_of(capsys, "negatives_per=copy", model="blin") == []


@pytest.mark.parametrize(
    "assignments",
    [
        *("", "copies=reset", "copies=attend padding=repeat", "loss=gbce calibration=0.5"),
        *("kl_positions=last", "lambda=0", "sampling=popularity", "ted_weight=1 ted_span=2"),
    ],
)
def test_other_settings_are_not(capsys: pytest.CaptureFixture[str], assignments: str) -> None:
    assert warnings_of(capsys, assignments) == []


def test_what_nobody_chose_is_not_either(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own, of_a_run = tmp_path / "own.toml", tmp_path / "config.toml"
    own.write_text('copies = "attend"\n')
    of_a_run.write_text('dataset_path = "x"\n[settings]\ncopies = "attend"\n')
    assert warnings_of(capsys, file=ConfigFile.read(str(of_a_run))) == []
    assert warnings_of(capsys, model="blin-bkl") == []
    for name in ("paper", "beauty"):
        assert warnings_of(capsys, file=ConfigFile.read(name), kl_weight=0.0) == []
    (line,) = warnings_of(capsys, file=ConfigFile.read(str(own)))
    assert "copies = attend has no effect" in line
    assert warnings_of(capsys, file=ConfigFile.read(str(own)), padding="repeat") == []


def test_a_sweep_tells_which_of_its_axes_are_idle_somewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = {"kl_weight": [0.0, 1.0], "kl_positions": ["last_copy", "last"], "ted_span": [3]}
    base = {"copies": "attend", "calibration": 0.5}
    output = Output(json=False, quiet=False, verbose=False, progress=False)
    warn_of_idle_axes(grid(["blin"], base, axes, seeds=(0,)), output)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: kl_positions = last has no effect with kl_weight = 0.0")
    warn_of_idle_axes(grid(["blin", "blin-bkl"], {}, {}, seeds=(0,)), output)
    assert capsys.readouterr().err == ""
