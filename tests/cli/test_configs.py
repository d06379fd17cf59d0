from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from blin.checkpoint import read_run_config
from blin.cli.config_file import ConfigFile, built_in_configs
from blin.cli.train import train
from cli.conftest import Blin


@pytest.mark.parametrize("name", built_in_configs())
def test_a_built_in_configuration_can_be_trained_with(name: str) -> None:
    ConfigFile.read(name).check(None)


def test_the_help_names_every_built_in_configuration() -> None:
    # A name may be broken at its hyphen, and so spaces tell nothing.
    help_text = "".join(CliRunner().invoke(train, ["--help"]).output.split())
    assert f"Built-insettings({','.join(built_in_configs())})" in help_text


def trained_as(blin: Blin, *arguments: object) -> Path:
    result = blin("train", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return Path(json.loads(result.stdout)["run"])


def test_the_config_of_a_run_gives_the_run_again(blin: Blin) -> None:
    small = ("--dim", 8, "--max-len", 9, "--epochs", 2, "--set", "num_negatives=20")
    options = ("--model", "blin-zc", "--seed", 3, "--threads", 1, "--set", "dropout=0.35")
    run = trained_as(blin, "--dataset", "shop", *small, *options)
    again = trained_as(blin, "--config", run / "config.toml")
    assert (again / "config.toml").read_bytes() == (run / "config.toml").read_bytes()
    model = "model/model.safetensors"
    assert (again / model).read_bytes() == (run / model).read_bytes()

    other = trained_as(blin, "--config", run / "config.toml", "--set", "dropout=0.2")
    assert (other / model).read_bytes() != (run / model).read_bytes()
    before, after = read_run_config(run), read_run_config(other)
    assert after == {**before, "settings": {**before["settings"], "dropout": 0.2}}


def test_the_config_of_a_run_finds_its_dataset(blin: Blin) -> None:
    run = trained_as(blin, "--dataset", "shop", "--dim", 8, "--epochs", 1)
    config = run / "config.toml"
    Path("data").rename("elsewhere")
    result = blin("train", "--config", config, "--epochs", 1)
    assert (result.exit_code, result.stdout) == (3, "")
    run = trained_as(blin, "--config", config, "--epochs", 1, "--data-dir", "elsewhere")
    assert read_run_config(run)["dataset_path"] == str(Path("elsewhere/shop").resolve())
    Path("elsewhere").rename("data")
    assert blin("preprocess", "shop.csv", "--min-interactions", 6).exit_code == 0
    result = blin("train", "--config", config)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith(f"error: {config}: expected the dataset it was written for")
    assert result.stderr.endswith("add --dataset shop\n")
    trained_as(blin, "--config", config, "--epochs", 1, "--dataset", "shop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("droput = 0.1", 'unknown setting "droput"; did you mean "dropout"?'),
        ('modle = "blin"\ndim = 8', 'unknown setting "modle"; did you mean "model"?'),
        ("[settings]\ndroput = 0.1", 'unknown setting "droput"; did you mean "dropout"?'),
        ('datset = "shop"\n[settings]', 'unknown key "datset"; did you mean "dataset"?'),
        ("dim = 8\n[settings]", 'unknown key "dim"; settings stand under [settings]'),
        ("[setings]\ndim = 8", 'unknown setting "setings"; did you mean "settings"?'),
        ("settings = 3", "settings: expected a table, found 3"),
        ("model = 3", "model: expected text, found 3"),
        ('model = "bln"', 'unknown model "bln"; did you mean "blin"?'),
        ("threads = true", "threads: expected 1 to 512, found True"),
        ("threads = 0", "threads: expected 1 to 512, found 0"),
        ('dim = "8"', "dim: expected a whole number, found '8'"),
        ("dim = [8]", "dim: expected a whole number, found [8]"),
        ("epochs = 2.5", "epochs: expected a whole number, found 2.5"),
        ("pack = 1", "pack: expected true or false, found 1"),
        ("dropout = nan", "dropout: expected a finite number, found nan"),
        ("epochs = 0", "epochs: expected at least 1, found 0"),
        ("dim = ", "expected a TOML file of settings: Invalid value"),
        ("dim = " + 3000 * "[", "expected a TOML file of settings: "),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_it(blin: Blin, content: str, message: str) -> None:
    Path("my.toml").write_text(content + "\n")
    runs = sorted(Path("runs").rglob("*"))
    result = blin("train", "--dataset", "shop", "--config", "my.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: my.toml: {message}")
    assert result.stderr.count("\n") == 1
    assert sorted(Path("runs").rglob("*")) == runs


def test_it_does_not_matter_who_wrote_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('format_version = 1\nblin_version = "0.1.0"\n[settings]\ndim = 8\n')
    assert ConfigFile.read(str(file)).settings == {"dim": 8}


def test_settings_of_one_model_are_not_given_to_another(blin: Blin) -> None:
    config = "runs/latest/config.toml"
    result = blin("train", "--config", config, "--model", "blin-d")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {config}: its settings are those of the model blin, found --model blin-d: "
        "leave out one of the two\n"
    )
    misspelled = blin("train", "--dataset", "shop", "--config", "paper", "--model", "blim")
    assert misspelled.stderr == 'error: unknown model "blim"; did you mean "blin"?\n'


def test_a_config_that_makes_another_model_of_a_preset_is_told(blin: Blin) -> None:
    Path("wide.toml").write_text("kl_weight = 1.0\ndim = 8\n", encoding="utf-8")
    options = ("--dataset", "shop", "--model", "blin-bkl", "--config", "wide.toml", "--dry-run")
    told = "wide.toml sets kl_weight = 1.0, where blin-bkl has 0.0; --set kl_weight=0.0 keeps it"
    assert told in blin("train", *options).stderr
    assert "wide.toml sets" not in blin("train", *options, "--set", "kl_weight=0.0").stderr


def test_a_resumed_run_takes_no_config(blin: Blin) -> None:
    result = blin("train", "--resume", "latest", "--config", "beauty")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a resumed run keeps its settings: leave out --config" in result.stderr
