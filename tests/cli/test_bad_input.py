"""Whatever is wrong with the input: one line that says where, the right code, nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from blin.data import catalog
from cli.conftest import Blin

HEADER = "user,item,time\n"
LOGS = {
    "missing": None,
    "empty": "",
    "header": HEADER,
    "few": HEADER + "a,b,1\na,c\n",
    "time": HEADER + "a,b,1\na,c,soon\n",
    "rare": HEADER + "a,b,1\na,c,2\n",
}


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing", "missing.csv: no such file"),
        ("empty", "empty.csv: expected interactions, found an empty file"),
        ("header", "header.csv: expected interactions, found a header and no rows"),
        ("few", 'few.csv:3: expected 3 fields separated by ",", found 2'),
        ("time", 'time.csv:3: column "time": expected a time'),
        ("rare", "rare.csv: no interaction is left by the 5-core"),
    ],
)
def test_a_bad_log(blin: Blin, name: str, message: str) -> None:
    if (content := LOGS[name]) is not None:
        Path(f"{name}.csv").write_text(content)
    result = blin("preprocess", f"{name}.csv", "--data-dir", "new")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert not Path("new").exists() or not list(Path("new").iterdir())


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ("train --dataset shopp", 3, 'no dataset "shopp"; did you mean "shop"? (prepared in data'),
        ("compare --dataset shop --confidence nan", 2, "'nan' is not a number"),
        ("train --dataset shop --lambda inf", 2, "'inf' is not a number"),
        ("train --dataset shop.csv", 3, "shop.csv is a log, not a prepared dataset: run blin"),
        ("train --dataset shop --set dimm=3", 2, 'unknown setting "dimm"; did you mean "dim"?'),
        ("train --dataset shop --set dim=x", 2, "dim: expected a whole number, found 'x'"),
        ("train --dataset shop --model blim", 2, 'unknown model "blim"; did you mean "blin"?'),
        (
            "train --dataset shop --config no.toml",
            2,
            'no settings "no.toml": no such file; built in',
        ),
        ("train --dataset shop --config beuty", 2, 'no such file; did you mean "beauty"?'),
        ("train --dataset shop --device gpu", 2, "device: expected auto, cpu, cuda or cuda:N"),
        ("train --dataset shop --device meta", 2, "device: expected auto, cpu, cuda or cuda:N"),
        ("train --resume data", 4, "data: expected a run directory with a config.toml"),
        ("train --resume latest --seed 1", 2, "seed: a resumed run keeps its settings"),
        ("evaluate --run data", 4, "data: expected a run directory with a config.toml"),
        ("evaluate --run nowhere", 4, "nowhere: expected a run directory"),
        ("evaluate --runs-dir nowhere", 4, "no run in nowhere: train a model with blin train"),
        ("recommend --user nobody", 3, 'data/shop: no user "nobody" in it'),
        ("evaluate --sampling popularity", 2, "--sampling is of drawn items: give --negatives"),
        ("preprocess shop.csv --name latest", 2, "name: expected any but latest"),
        ("recommend --history a,,b", 2, '--history: expected item ids, found "a,,b"'),
        ("recommend --history sku-1 --out no/x.csv", 1, "no/x.csv: not written: No such file"),
    ],
)
def test_a_wrong_name(blin: Blin, arguments: str, code: int, message: str) -> None:
    runs = sorted(Path("runs").rglob("*"))
    result = blin(*arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in result.stderr
    assert sorted(Path("runs").rglob("*")) == runs


def test_without_a_network_one_message_says_what_to_do(
    blin: Blin, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = replace(catalog.DATASETS["ml-1m"], url="http://127.0.0.1:9/ml-1m.zip")
    monkeypatch.setitem(catalog.DATASETS, "ml-1m", nowhere)
    result = blin("train", "--dataset", "ml-1m")
    assert result.exit_code == 3
    assert result.stderr == (
        "error: http://127.0.0.1:9/ml-1m.zip: cannot be reached (Connection refused); "
        "fetch it by hand, take ml-1m/ratings.dat out of it and run: "
        "blin preprocess ratings.dat --name ml-1m\n"
    )
    assert [path.name for path in Path("data").iterdir()] == ["shop"]


@pytest.mark.parametrize("command", ["evaluate", "recommend --user x", "train --resume latest"])
def test_a_truncated_weight_file(blin: Blin, command: str) -> None:
    run = Path("runs/latest").resolve()
    for weights in (run / "model/model.safetensors", run / "checkpoints/last.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    result = blin(*command.split())
    assert result.exit_code == 4
    assert ".safetensors: expected a safetensors file" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_without_weights(blin: Blin) -> None:
    Path("runs/latest/model/model.safetensors").unlink()
    result = blin("evaluate")
    assert result.exit_code == 4
    assert "model.safetensors: missing" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("file", ["items.npy", "dataset.json"])
def test_a_truncated_dataset(blin: Blin, file: str) -> None:
    path = Path("data/shop", file)
    path.write_bytes(path.read_bytes()[:100])
    result = blin("train", "--dataset", "shop")
    assert result.exit_code == 3
    assert file in result.stderr and result.stderr.count("\n") == 1


def test_a_dataset_that_is_another_one_by_now(blin: Blin) -> None:
    assert blin("preprocess", "shop.csv", "--min-interactions", 6).exit_code == 0
    result = blin("evaluate", "--data-dir", "data")
    assert result.exit_code == 4
    assert "expected the dataset it was trained on" in result.stderr


def in_a_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from blin.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits on Windows")
@pytest.mark.parametrize(
    "arguments",
    [
        "preprocess shop.csv --name new",
        "train --dataset shop --dim 8",
        "recommend --all --out recs.parquet",
        "recommend --all --out recs.csv",
    ],
)
def test_a_full_disk(blin: Blin, arguments: str) -> None:
    before = {path for path in Path().rglob("*") if path.is_file()}
    with in_a_process(LIMITED, *arguments.split()) as process:
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in stderr and "bug" not in stderr
    left = {path for path in Path().rglob("*") if path.is_file()} - before
    assert not [path for path in left if "tmp" in str(path) or path.name.startswith("recs")]
    assert not Path("data/new").exists()


# Ctrl-C comes while the first array is being written, whatever the speed of the machine.
INTERRUPTED = """
import os, signal, sys
from blin.cli import main
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGINT)
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
def test_ctrl_c_in_preprocess_leaves_nothing(blin: Blin) -> None:
    with in_a_process(INTERRUPTED, "preprocess", "shop.csv", "--data-dir", "new") as process:
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert not Path("new").exists() or not list(Path("new").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_is_saved_and_goes_on(
    blin: Blin, number: signal.Signals, code: int
) -> None:
    arguments = ("train", "--dataset", "shop", "--dim", "8", "--epochs", "2000", "--threads", "1")
    start = "import sys; from blin.cli import main; main(sys.argv[1:])"
    patient = ("--set", "patience=2000")
    with in_a_process(start, *arguments, *patient) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch 1/"):
            assert process.poll() is None
        os.kill(process.pid, number)
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (code, "")
    advice = stderr.splitlines()[-1]
    assert advice.startswith("stopped, and saved: go on with blin train --resume runs/shop/")
    epochs = len(Path("runs/latest/history.jsonl").read_text().splitlines())
    result = blin(*advice.partition("blin ")[2].split(), "--epochs", epochs + 1)
    assert result.exit_code == 0, result.stderr
    assert f"epoch {epochs + 1}/{epochs + 1}" in result.stderr


@pytest.mark.parametrize("history", ["[" * 3000, f"[{'1' * 5000}]"])
def test_a_history_that_is_no_json_is_an_id(blin: Blin, history: str) -> None:
    result = blin("recommend", "--history", history)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: 1 item is unknown to the model and left out")


def test_a_dataset_may_have_the_name_of_its_log(blin: Blin) -> None:
    Path("shop.csv").rename("shop")
    assert blin("train", "--dataset", "shop", "--dry-run", "--threads", 1).exit_code == 0
