"""``blin doctor`` on a good installation, on broken ones, and on machines of all kinds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import blin as package_of_blin
from blin.cli import checks
from blin.cli.checks import BROKEN, GOOD, NOTE
from cli.conftest import Blin

PACKAGE = Path(package_of_blin.__file__).parent


@pytest.fixture(scope="module")
def imported() -> dict[str, dict[str, Any]]:
    """What is found in this very installation."""
    names = [name.replace("-", "_") for name in checks._needed()]
    return checks.import_apart([*names, checks.EXTENSION])


@pytest.fixture
def known(imported: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Spares a command the imports."""
    found = {name: dict(answer) for name, answer in imported.items()}
    monkeypatch.setattr(checks, "import_apart", lambda names: found)
    return found


@pytest.mark.usefixtures("known")
def test_a_good_installation(blin: Blin) -> None:
    result = blin("doctor")
    assert result.exit_code == 0, result.stdout
    for line in (
        r"good +blin +\d+\.\d+\.\d+ in \S+, Python 3\.\d+\.\d+",
        r"good +torch +\d+\.\d+\S*",
        r"good +extension +_core\S+, as this version calls it",
        r"(good|note) +device +\S.*",
        r"(good|note) +processor +\d+ cores.*; torch takes \d+ threads.*",
        r"good +memory +[\d.]+ GB.*",
        r"good +data directory +data, [\d.]+ GB free",
        r"good +runs directory +runs, [\d.]+ GB free",
        r"good +dataset shop +\d+ users, [\d,]+ items, [\d,]+ interactions",
    ):
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), line
    assert "All that is needed is there." in result.stderr
    told = json.loads(blin("doctor", "--json").stdout)
    assert told["good"] and not [one for one in told["checks"] if one["state"] == BROKEN]
    torch = next(one for one in told["checks"] if one["name"] == "torch")
    assert torch["details"]["version"] == torch["found"] and torch["fix"] is None


def doctor_in(place: Path, *path: Path) -> tuple[int, dict[str, Any], str]:
    """Runs the doctor in a process whose Python looks for modules in ``path`` first."""
    done = subprocess.run(
        [sys.executable, "-c", "from blin.cli import main; main(['doctor', '--json'])"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    return done.returncode, {one["name"]: one for one in told["checks"]}, done.stderr


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot\\nopen')\n")
    code, found, stderr = doctor_in(tmp_path, tmp_path)
    assert code == 1
    torch = found["torch"]
    assert torch["state"] == BROKEN
    assert torch["found"].endswith(", but OSError: libtorch_cpu.so: cannot open")
    assert re.fullmatch(r"pip install --force-reinstall 'torch>=[\d.]+'", torch["fix"])
    assert (found["numpy"]["state"], found["extension"]["state"]) == (GOOD, GOOD)
    assert "device" not in found
    assert stderr == "Broken: torch.\n"


def test_an_extension_that_is_not_there(tmp_path: Path) -> None:
    copy = tmp_path / "path" / "blin"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    # What this is about needs no torch, which takes long.
    (tmp_path / "path" / "torch.py").write_text("raise ImportError('left out')\n")
    code, found, _ = doctor_in(tmp_path, tmp_path / "path")
    assert code == 1
    assert found["extension"]["state"] == BROKEN
    assert "No module named 'blin._core'" in found["extension"]["found"]
    assert found["extension"]["fix"] == "pip install --force-reinstall --no-deps blin-rec"
    (tmp_path / "pyproject.toml").touch()
    _, found, _ = doctor_in(tmp_path, tmp_path / "path")
    assert found["extension"]["fix"] == f"pip install --editable {tmp_path}"


def test_modules_that_end_python_or_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "chatty": 'print(\'{"imports": "killed"}\', 3, "[")\nimport warnings\nwarnings.warn("old")',
        "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)",
        "leaving": "import os\nos._exit(3)",
        "exiting": "import sys\nsys.exit(4)",
        "wrong": "this is no Python",
        "slow": "import time\ntime.sleep(60)",
    }
    for name, code in modules.items():
        (tmp_path / f"{name}.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = checks.import_apart([*list(modules)[:-1], "json"])
    assert found["chatty"] == {"imports": "chatty", "warnings": ["old"]}
    assert found["killed"]["error"] == "its import ends Python with SIGILL"
    assert found["leaving"]["error"] == "its import ends Python with exit code 3"
    assert found["exiting"]["error"] == "SystemExit: 4"
    assert found["wrong"]["error"].startswith("SyntaxError: ")
    assert "error" not in found["json"]
    monkeypatch.setattr(checks, "_SECONDS_FOR_IMPORTS", 1)
    found = checks.import_apart(["json", "slow"])
    assert "error" not in found["json"]
    assert found["slow"]["error"] == "its import takes more than 1 s"


def test_packages_that_are_old_or_missing() -> None:
    good = {"imports": "numpy", "warnings": []}
    assert checks.package("numpy", "1.26", good).state == GOOD
    old = checks.package("numpy", "99.1", good)
    assert old.state == BROKEN and old.found.endswith("; blin needs 99.1 or newer")
    assert old.fix == "pip install 'numpy>=99.1'"
    missing = checks.package("nothing", "1", {"error": "ModuleNotFoundError: no nothing"})
    assert missing.state == BROKEN and missing.fix == "pip install 'nothing>=1'"


def test_an_extension_of_another_version(imported: dict[str, dict[str, Any]]) -> None:
    found = imported[checks.EXTENSION]
    assert checks.extension(found).state == GOOD
    names = found["names"]
    without = {name: given for name, given in names.items() if name != "read_log"}
    check = checks.extension({**found, "names": without})
    assert check.state == BROKEN
    assert check.found.endswith("is of another version of blin: it has no read_log")
    other = {**names, "Batcher.fill": ["self", "users"]}
    check = checks.extension({**found, "names": other})
    assert check.state == BROKEN and check.found.endswith("Batcher.fill takes other arguments")


def test_a_broken_dataset_is_named_and_ends_with_1(blin: Blin, known: dict[str, Any]) -> None:
    items = Path("data/shop/items.npy")
    items.write_bytes(items.read_bytes()[:100])
    result = blin("doctor")
    assert result.exit_code == 1
    assert re.search(r"^broken +dataset shop +data/shop/items.npy: ", result.stdout, re.MULTILINE)
    assert "blin preprocess LOG --name shop" in result.stdout
    assert result.stderr == "Broken: dataset shop.\n"
    known["numpy"] = {"error": "ImportError: gone"}
    result = blin("doctor", "--quiet")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "dataset shop" not in result.stdout and "ImportError: gone" in result.stdout


@pytest.mark.usefixtures("known")
def test_what_is_optional_is_only_noted(blin: Blin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    result = blin("doctor", "--json")
    assert result.exit_code == 0
    found = {one["name"]: one for one in json.loads(result.stdout)["checks"]}
    for name, fix in (
        ("matplotlib", "pip install 'blin-rec[plot]'"),
        ("tensorboard", "pip install 'blin-rec[tensorboard]'"),
        ("optuna", "pip install 'blin-rec[tune]'"),
        ("polars", "pip install polars"),
        ("duckdb", "pip install duckdb"),
    ):
        assert (found[name]["state"], found[name]["fix"]) == (NOTE, fix)
        assert found[name]["found"].startswith("not installed; for ")


def test_a_file_is_told_of_as_no_directory(blin: Blin) -> None:
    result = blin("doctor", "--runs-dir", "shop.csv", "--json")
    checks = json.loads(result.stdout)["checks"]
    broken = [check for check in checks if check["state"] == "broken"]
    assert (result.exit_code, len(broken)) == (1, 1)
    assert broken[0]["found"].endswith("shop.csv is no directory")


def test_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert checks.directory("runs", tmp_path, "--x").state == GOOD
    to_come = checks.directory("runs", tmp_path / "a" / "b", "--x")
    assert to_come.state == GOOD and ", made when it is needed, " in to_come.found
    assert not (tmp_path / "a").exists()
    no_directory = checks.directory("runs", tmp_path / "file" / "b", "--x")
    assert (no_directory.state, no_directory.fix) == (BROKEN, "choose another with --x")
    assert no_directory.found == f"{tmp_path / 'file'} is no directory"
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**8))
        full = checks.directory("runs", tmp_path, "--x")
    assert full.state == NOTE and "100.0 MB free" in full.found

    def refuse(**where: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    closed = checks.directory("runs", tmp_path, "--x")
    assert closed.state == BROKEN
    assert closed.found == f"{tmp_path} cannot be written to: Read-only file system"
    assert checks.directory("data", tmp_path, "--x", enough_to_read=True).state == NOTE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_directory_that_may_not_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    closed = checks.directory("runs", tmp_path, "--x")
    assert (closed.state, closed.fix) == (BROKEN, "choose another with --x")
    assert closed.found == f"{tmp_path} cannot be looked at: Permission denied"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        ({}, None, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}, None, None),
        (
            {"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "4096\n"},
            1.5,
            4096,
        ),
        (
            {
                "proc/self/cgroup": "0::/user/me\n",
                "sys/fs/cgroup/user/cpu.max": "300000 100000",
                "sys/fs/cgroup/user/me/cpu.max": "max 100000",
                "sys/fs/cgroup/user/me/memory.max": "9000",
                "sys/fs/cgroup/user/memory.max": "8000",
            },
            3.0,
            8000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "7000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            0.5,
            7000,
        ),
    ],
    ids=["none", "no limits", "a container", "nested groups", "the first version"],
)
def test_limits_of_control_groups(
    tmp_path: Path, files: dict[str, str], quota: float | None, limit: int | None
) -> None:
    root = write(tmp_path, files)
    assert checks.cpu_quota(root) == quota
    assert checks.memory_limit(root) == limit


def test_more_threads_than_time_for_them(tmp_path: Path) -> None:
    root = write(tmp_path, {"sys/fs/cgroup/cpu.max": "100000 100000"})
    check = checks.processor(64, root)
    assert check.state == NOTE
    assert check.fix is not None and check.fix.startswith("blin train --threads 1: ")
    assert checks.processor(1, root).state == GOOD


def test_little_memory(tmp_path: Path) -> None:
    meminfo = "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n"
    root = write(tmp_path, {"proc/meminfo": meminfo})
    assert checks.memory(root).found == "8.2 GB, 4.1 GB of it free"
    assert checks.memory(root).state == GOOD
    write(root, {"sys/fs/cgroup/memory.max": "500000000"})
    limited = checks.memory(root)
    assert limited.state == NOTE
    assert limited.found == "8.2 GB, 4.1 GB of it free; this process may take 500.0 MB"


@pytest.mark.parametrize(
    ("torch", "has_gpu", "state", "found"),
    [
        ({"cuda": "13.0"}, False, GOOD, "cpu; there is no GPU"),
        (
            {"cuda": "13.0", "devices": [{"name": "H200", "bytes": 150 * 10**9}]},
            True,
            GOOD,
            "cuda 13.0: H200 (150.0 GB)",
        ),
        (
            {
                "cuda": "13.0",
                "devices": [
                    {"name": "H200", "bytes": 150 * 10**9},
                    {"name": "T4", "bytes": 16 * 10**9, "error": "out of memory"},
                ],
            },
            True,
            NOTE,
            "cuda 13.0: H200 (150.0 GB), T4 (16.0 GB); cuda:1 cannot be used: out of memory",
        ),
        ({"cuda": None}, True, NOTE, "cpu: there is a GPU, but this torch is built without CUDA"),
        (
            {"cuda": "13.0", "warnings": ["the driver is too old"]},
            True,
            NOTE,
            "cpu: there is a GPU, but torch for CUDA 13.0 cannot use it: the driver is too old",
        ),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], has_gpu: bool, state: str, found: str
) -> None:
    monkeypatch.setattr(checks, "_has_gpu", lambda: has_gpu)
    check = checks.device({"devices": [], "warnings": [], **torch})
    assert (check.state, check.found) == (state, found)
