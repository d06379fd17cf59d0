"""Failures: one line on stderr, a documented exit code, a traceback only for those who ask."""

import errno
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from blin.cli import main, options
from blin.cli.failures import ReportingGroup
from blin.cli.output import Output
from blin.errors import BlinError, CheckpointError, ConfigError, DataError, Terminated


def run_raising(error: BaseException, *arguments: str) -> Result:
    @click.group(cls=ReportingGroup)
    def group() -> None: ...

    @group.command()
    @options.output
    def fail(output: Output) -> None:
        raise error

    return CliRunner().invoke(group, ["fail", *arguments], prog_name="blin")


class OutOfMemoryError(RuntimeError):
    """Stands for torch's."""


@pytest.mark.parametrize(
    "error, code, line",
    [
        (BlinError("no way"), 1, "error: no way"),
        (ConfigError("no such key"), 2, "error: no such key"),
        (DataError("log.csv:3: expected"), 3, "error: log.csv:3: expected"),
        (CheckpointError("damaged"), 4, "error: damaged"),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 1, "error: a/b: No space left"),
        (PermissionError(errno.EACCES, "Denied", "a"), 1, "error: a: Denied"),
        (OSError("odd"), 1, "error: odd"),
        (MemoryError(), 1, "error: out of memory"),
        (OutOfMemoryError("CUDA"), 1, "error: out of memory on the device"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: no"), 1, "error: out of memory\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted; go on with x"), 130, "interrupted; go on with x"),
        (Terminated("terminated"), 143, "terminated"),
        (ValueError("two\nlines"), 1, "error: ValueError: two lines (this is a bug"),
    ],
)
def test_each_failure_is_one_line_and_a_code(error: BaseException, code: int, line: str) -> None:
    result = run_raising(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


def test_a_signal_may_come_while_a_class_is_made() -> None:
    class Attribute:
        def __set_name__(self, owner: type, name: str) -> None:
            raise Terminated("terminated")

    try:
        type("Owner", (), {"attribute": Attribute()})
    except (RuntimeError, Terminated) as error:
        result = run_raising(error)
    assert (result.exit_code, result.stderr) == (143, "terminated\n")


def test_a_traceback_is_shown_to_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in run_raising(DataError("bad"), "-v").stderr
    assert "Traceback" in run_raising(DataError("bad"), "-v", "-v").stderr
    monkeypatch.setenv("BLIN_DEBUG", "1")
    assert "Traceback" in run_raising(DataError("bad")).stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("trian", 'no such command "trian"; did you mean "train"? (see blin --help)'),
        (
            "zzz",
            'no such command "zzz"; the commands are preprocess, inspect, train, distill, '
            "evaluate, compare, sweep, ablate, reproduce, report, bench, recommend",
        ),
        ("train --lamda 2", 'no such option "--lamda"; did you mean "--lambda"?'),
        ("evaluate --nagatives 5", 'no such option "--nagatives"; did you mean "--negatives"?'),
        ("preprocess raw.csv --nmae x", 'no such option "--nmae"; did you mean "--name"?'),
        ("--vresion", 'no such option "--vresion"; did you mean "--version"? (see blin --help)'),
        ("preprocess", "Missing argument 'LOG...' (see blin preprocess --help)"),
        ("train", "give either --dataset NAME or --resume RUN"),
        ("train --resume x --model blin", "a resumed run keeps its model: leave out --model"),
        ("train --dataset x --set dim", '--set: expected KEY=VALUE, found "dim"'),
        ("train --dataset x --epochs many", "Invalid value for '--epochs'"),
        ("recommend", "give one of --user ID, --history ID,ID,... and --all"),
        ("recommend --user a --history b", "give one of --user ID, --history"),
        ("recommend --all", "--all needs --out FILE.parquet or --out FILE.csv"),
        ("recommend --all --out recs.xlsx", "--out: expected a .parquet or .csv file"),
        ("evaluate --k", "Option '--k' requires an argument"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments: str, message: str) -> None:
    result = CliRunner().invoke(main, arguments.split(), prog_name="blin")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


def test_the_module_is_the_command() -> None:
    module = [sys.executable, "-m", "blin"]
    told = subprocess.run([*module, "train", "--help"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("Usage: blin train ")
    done = subprocess.run([*module, "trian"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["datasets", "--json"]])
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    done = python(
        "import sys\n"
        "from blin.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'blin._core'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
@pytest.mark.parametrize("signal, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_a_command_with_its_code(signal: str, code: int) -> None:
    done = python(
        "import os, signal, sys, time\n"
        "from blin.cli import main\n"
        "def wait(data_dir):\n"
        f"    os.kill(os.getpid(), signal.{signal})\n"
        "    time.sleep(30)\n"
        "sys.modules['blin.cli.datasets'].prepared_names = wait\n"
        "main(['datasets'])\n"
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "--json"]])
def test_output_that_finds_no_room_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "blin", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_letters_that_stdout_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    log = tmp_path / os.fsdecode(b"caf\xe9.csv")
    log.write_text("user,item\nann,茶\nann,Tee\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "blin", "inspect", log]
    done = subprocess.run([*command, "--json"], capture_output=True, env=environment)
    assert json.loads(done.stdout.decode(encoding))["first_records"][0] == ["ann", "茶"]
    assert (done.returncode, done.stderr) == (0, b"")
    shown = subprocess.run(command, capture_output=True, env=environment)
    assert shown.returncode == 0 and b"caf\\udce9.csv" in shown.stdout
    tea = "茶" if encoding == "utf-8" else "\\u8336"
    assert tea in shown.stdout.decode(encoding)


def test_a_narrow_terminal_breaks_lines_and_never_a_number() -> None:
    output = Output()
    terminal = Console(file=StringIO(), force_terminal=True, width=40, soft_wrap=True)
    output.__dict__["results"] = terminal
    words = "what it does, in a good many words that have no room"
    output.table(("name", "figure", "about"), [("first", "-0.00123456", words)] * 2)
    output.table(["HR@10[uniform-500]"] * 4, [["+0.0012 to +0.0034"] * 4])
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert shown.count("-0.00123456") == 2 and shown.count("HR@10[uniform-500]") == 4
    assert "words that" in shown and words not in shown


def test_a_reader_that_leaves_is_no_reason_to_complain() -> None:
    command = "from blin.cli import main; main(['datasets', '--json'])"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
