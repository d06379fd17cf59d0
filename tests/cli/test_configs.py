from __future__ import annotations

import pytest
from click.testing import CliRunner

from blin.cli.train import built_in_configs, read_settings, train
from blin.config import build, check_known
from blin.models.blin import BlinConfig
from blin.training.trainer import TrainingConfig


@pytest.mark.parametrize("name", built_in_configs())
def test_a_built_in_configuration_can_be_trained_with(name: str) -> None:
    settings = read_settings(name)
    check_known(settings, BlinConfig, TrainingConfig)
    build(BlinConfig, settings)
    build(TrainingConfig, settings)


def test_the_help_names_every_built_in_configuration() -> None:
    help_text = " ".join(CliRunner().invoke(train, ["--help"]).output.split())
    assert f"Built-in settings ({', '.join(built_in_configs())})" in help_text
