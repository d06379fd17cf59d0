"""Options: one word for one thing in every command, and every usual way to give several values."""

import click
import pytest
from click.testing import CliRunner

from blin.cli import main
from blin.cli.options import Command, Several, repeat_names


@click.command(cls=Command)
@click.option("--k", cls=Several, type=click.IntRange(min=1), default=(10, 20))
@click.option("--name", default="")
@click.option("--flag", is_flag=True)
def show(k: tuple[int, ...], name: str, flag: bool) -> None:
    click.echo(f"{k} {name!r} {flag}")


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ("", "(10, 20) '' False"),
        ("--k 5", "(5,) '' False"),
        ("--k 10 20", "(10, 20) '' False"),
        ("--k 10,20", "(10, 20) '' False"),
        ("--k=10,20", "(10, 20) '' False"),
        ("--k 10 --k 20", "(10, 20) '' False"),
        ("--k 1,2 3 --k 4", "(1, 2, 3, 4) '' False"),
        ("--k 10 20 --flag", "(10, 20) '' True"),
        ("--k 10 20 --name x", "(10, 20) 'x' False"),
        ("--name x --k 10 20", "(10, 20) 'x' False"),
    ],
)
def test_several_values_in_every_usual_spelling(arguments: str, shown: str) -> None:
    result = CliRunner().invoke(show, arguments.split())
    assert (result.exit_code, result.output) == (0, shown + "\n")


@pytest.mark.parametrize("arguments", ["--k", "--k ten", "--k 10,,20", "--k -5", "10 --k 20"])
def test_what_is_not_a_number_is_refused(arguments: str) -> None:
    assert CliRunner().invoke(show, arguments.split()).exit_code == 2


def test_nothing_else_is_rewritten() -> None:
    assert repeat_names(["--name", "a,b", "--", "--k", "1,2"], {"--k"}) == [
        "--name",
        "a,b",
        "--",
        "--k",
        "1,2",
    ]


@pytest.mark.parametrize("name", [None, *main.commands])
def test_every_command_and_option_has_a_help_text(name: str | None) -> None:
    command = main if name is None else main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    result = CliRunner().invoke(main, [*([name] if name else []), "--help"])
    assert result.exit_code == 0
    assert "..." not in result.output.partition("Commands:")[2], "a summary is cut short"


@pytest.mark.parametrize("option", ["--json", "--quiet", "--verbose", "--no-progress"])
def test_every_command_has_the_common_options(option: str) -> None:
    for command in main.commands.values():
        assert option in {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("command", ["sweep", "bench"])
@pytest.mark.parametrize("name", ["--models", "--model"])
def test_models_are_named_in_either_number(command: str, name: str) -> None:
    found = main.commands[command].make_context(command, [name, "blin,sasrec"])
    assert found.params["models"] == ("blin", "sasrec")


def test_metrics_are_listed_beside_runs() -> None:
    compare = main.commands["compare"]
    for arguments in (
        ["a", "--metric", "HR@10, MRR", "b"],
        ["a", "b", "--metric", "HR@10", "--metric=MRR"],
    ):
        found = compare.make_context("compare", arguments).params
        assert (found["runs"], found["metrics"]) == (("a", "b"), ("HR@10", "MRR"))
    assert compare.make_context("compare", ["a"]).params["metrics"] == ("HR@10", "NDCG@10")


@pytest.mark.parametrize("command", ["train", "evaluate", "recommend", "bench", "sweep", "distill"])
def test_what_computes_much_takes_threads(command: str) -> None:
    names = {name for parameter in main.commands[command].params for name in parameter.opts}
    assert "--threads" in names


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        (["do"], {"doctor"}),
        (["train", "--d"], {"--dataset", "--dim", "--dry-run", "--device", "--data-dir"}),
        (["train", "--ten"], {"--tensorboard"}),
        (["train", "--precision", "b"], {"bf16"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(
    typed: list[str], completions: set[str]
) -> None:
    words = " ".join(["blin", *typed])
    environment = {
        "_BLIN_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed)),
    }
    result = CliRunner().invoke(main, [], env=environment, prog_name="blin")
    assert result.exit_code == 0
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == completions
