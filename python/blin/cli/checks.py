"""What ``blin doctor`` looks at. Nothing here needs any package but Python's own.

Packages are imported by a process apart: one that is broken may end the process that imports it.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blin.cli.lookup import prepared_names
from blin.cli.output import size_of

PACKAGE = Path(__file__).parent.parent
DISTRIBUTION = "blin-rec"
EXTENSION = "blin._core"

GOOD, NOTE, BROKEN = "good", "note", "broken"

_EXTRAS = {
    "matplotlib": ("blin preprocess --report", "blin-rec[plot]"),
    "tensorboard": ("blin train --tensorboard", "blin-rec[tensorboard]"),
    "optuna": ("blin sweep --optuna", "blin-rec[tune]"),
    "polars": ("tables of polars, from Python", "polars"),
    "duckdb": ("tables of DuckDB, from Python", "duckdb"),
}
"""What each optional package is for, and what pip calls it."""

_REQUIREMENT = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)")
_SECONDS_FOR_IMPORTS = 180
_LITTLE_SPACE = 10**9

_PROBE = r"""
import importlib, inspect, json, sys, warnings
sys.path[:] = json.loads(sys.argv[1])

def parameters(value):
    try:
        return list(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return None

def look_at(name, module):
    if name == "torch":
        yield "cuda", module.version.cuda
        yield "threads", module.get_num_threads()
        devices = []
        for number in range(module.cuda.device_count() if module.cuda.is_available() else 0):
            facts = module.cuda.get_device_properties(number)
            devices.append({"name": facts.name, "bytes": facts.total_memory})
            try:
                float(module.ones(2, device=f"cuda:{number}").sum())
            except Exception as error:
                devices[-1]["error"] = (str(error).splitlines() or [type(error).__name__])[0]
        yield "devices", devices
    if name == "blin._core":
        names = {}
        for one in module.__all__:
            value = getattr(module, one)
            names[one] = parameters(value)
            if inspect.isclass(value):
                for method in vars(value):
                    names[f"{one}.{method}"] = parameters(getattr(value, method))
        yield "file", module.__file__
        yield "names", names

for name in sys.argv[2:]:
    print("\n" + json.dumps({"begins": name}), flush=True)
    found = {"imports": name}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            found.update(look_at(name, importlib.import_module(name)))
        except BaseException as error:
            found["error"] = " ".join(f"{type(error).__name__}: {error}".split())
        found["warnings"] = [" ".join(str(one.message).split()) for one in heard]
    print("\n" + json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: ``good``; ``note``, which does not keep blin from working; or ``broken``.
        found: how it is, for people.
        fix: the command or the step that mends it.
        details: the numbers in ``found``, for scripts.
    """

    name: str
    state: str
    found: str
    fix: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


def all_checks(data_dir: Path, runs_dir: Path) -> Iterator[Check]:
    """Looks at everything that blin needs, in the order in which it needs it."""
    yield _installation()
    needed = _needed()
    found = import_apart([*(name.replace("-", "_") for name in needed), EXTENSION])
    for name, least in needed.items():
        yield package(name, least, found[name.replace("-", "_")])
    yield extension(found[EXTENSION])
    torch = found.get("torch", {"error": "not looked for"})
    if "error" not in torch:
        yield device(torch)
    yield processor(torch.get("threads"))
    yield memory()
    yield directory(
        "data directory",
        data_dir,
        "--data-dir or BLIN_DATA_DIR",
        enough_to_read=bool(prepared_names(data_dir)),
    )
    yield directory("runs directory", runs_dir, "--runs-dir or BLIN_RUNS_DIR")
    if not any("error" in found[name] for name in ("numpy", "pyarrow") if name in found):
        yield from datasets(data_dir)
    for name, (purpose, wanted) in _EXTRAS.items():
        yield _extra(name, purpose, wanted)


def import_apart(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Imports modules in another process and returns what is known of each.

    A module has an ``error`` if it cannot be imported; also if it ends the process, or hangs. The
    modules after it are then imported by a new one.
    """
    found: dict[str, dict[str, Any]] = {}
    left = list(names)
    while left:
        code, output = _probe(left)
        begun = None
        for line in output.splitlines():
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if not isinstance(answer, dict):
                continue
            begun = answer.get("begins", begun)
            if answer.get("imports") in left:
                found[answer["imports"]] = answer
        missing = [name for name in left if name not in found]
        if missing:
            first = begun if begun in missing else missing[0]
            found[first] = {"error": _end_of(code)}
        left = missing[1:] if missing and first == missing[0] else []
    return found


def _probe(names: Sequence[str]) -> tuple[int | None, str]:
    """Returns the exit code, None if it took too long, and what was printed."""
    command = [sys.executable, "-c", _PROBE, json.dumps(sys.path), *names]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS_FOR_IMPORTS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return None, (error.stdout or b"").decode("utf-8", "replace")
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _end_of(code: int | None) -> str:
    if code is None:
        return f"its import takes more than {_SECONDS_FOR_IMPORTS} s"
    if code < 0:
        return f"its import ends Python with {signal.Signals(-code).name}"
    return f"its import ends Python with exit code {code}"


def _installation() -> Check:
    python = platform.python_version()
    try:
        found = version(DISTRIBUTION)
    except PackageNotFoundError:
        return Check(
            "blin",
            BROKEN,
            f"{PACKAGE} is not installed in this Python {python}",
            _install_command(),
            {"python": python},
        )
    return Check(
        "blin",
        GOOD,
        f"{found} in {PACKAGE}, Python {python}",
        details={"version": found, "python": python, "executable": sys.executable},
    )


def _install_command() -> str:
    checkout = PACKAGE.parent.parent
    if (checkout / "pyproject.toml").exists():
        return f"pip install --editable {checkout}"
    return f"pip install --force-reinstall --no-deps {DISTRIBUTION}"


def _needed() -> dict[str, str]:
    """Returns the packages that blin cannot do without, each with its oldest version."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return {}
    always = (_REQUIREMENT.match(text) for text in wanted if ";" not in text)
    return {match[1]: match[2] for match in always if match is not None}


def package(name: str, least: str, found: Mapping[str, Any]) -> Check:
    """Looks at a package that blin needs."""
    wanted = f"'{name}>={least}'"
    try:
        installed: str | None = version(name)
    except PackageNotFoundError:
        installed = None
    details = {"version": installed, "needed": f">={least}"}
    if "error" in found:
        fix = f"pip install {'--force-reinstall ' if installed else ''}{wanted}"
        shown = f"{installed}, but {found['error']}" if installed else found["error"]
        return Check(name, BROKEN, shown, fix, details)
    if installed is not None and _numbers(installed) < _numbers(least):
        shown = f"{installed}; blin needs {least} or newer"
        return Check(name, BROKEN, shown, f"pip install {wanted}", details)
    return Check(name, GOOD, installed or "of unknown version", None, details)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:3]]


def extension(found: Mapping[str, Any]) -> Check:
    """Looks at the compiled module: whether it is there, and the one this Python code calls."""
    name = "extension"
    if "error" in found:
        return Check(name, BROKEN, str(found["error"]), _install_command())
    details = {"file": found["file"]}
    names = found["names"]
    for wanted, parameters in _declared(PACKAGE / "_core.pyi").items():
        if wanted not in names:
            shown = f"{found['file']} is of another version of blin: it has no {wanted}"
            return Check(name, BROKEN, shown, _install_command(), details)
        if names[wanted] is not None and names[wanted] != parameters:
            shown = f"{found['file']} is of another version of blin: {wanted} takes other arguments"
            return Check(name, BROKEN, shown, _install_command(), details)
    return Check(name, GOOD, f"{Path(found['file']).name}, as this version calls it", None, details)


def _declared(stub: Path) -> dict[str, list[str]]:
    """Returns the functions and methods of a stub file, each with its parameters."""
    declared = {}

    def parameters(function: ast.FunctionDef) -> list[str]:
        given = function.args
        return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]

    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            declared[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                    declared[f"{node.name}.{method.name}"] = parameters(method)
    return declared


def device(torch: Mapping[str, Any]) -> Check:
    """Looks at the GPUs that torch can compute on, and at one that it cannot."""
    devices = torch["devices"]
    details = {"cuda": torch["cuda"], "devices": devices}
    if devices:
        shown = ", ".join(f"{one['name']} ({size_of(one['bytes'])})" for one in devices)
        shown = f"cuda {torch['cuda']}: {shown}"
        for number, one in enumerate(devices):
            if "error" in one:
                shown = f"{shown}; cuda:{number} cannot be used: {one['error']}"
                fix = "name another with --device, or take --device cpu"
                return Check("device", NOTE, shown, fix, details)
        return Check("device", GOOD, shown, None, details)
    if not _has_gpu():
        return Check("device", GOOD, "cpu; there is no GPU", None, details)
    if torch["cuda"] is None:
        shown = "cpu: there is a GPU, but this torch is built without CUDA"
        return Check("device", NOTE, shown, "pip install --force-reinstall torch", details)
    why = f": {torch['warnings'][0]}" if torch["warnings"] else ""
    shown = f"cpu: there is a GPU, but torch for CUDA {torch['cuda']} cannot use it{why}"
    return Check("device", NOTE, shown, "install a driver for this CUDA", details)


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def processor(torch_threads: int | None, root: Path = Path("/")) -> Check:
    """Looks at how many threads can run at once, and how many there will be."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = cpu_quota(root)
    shown = f"{cores} cores" + (f", {usable} of them for this process" if usable < cores else "")
    if quota is not None and quota < usable:
        shown += f", time for {quota:g}"
    if torch_threads is not None:
        shown += f"; torch takes {torch_threads} threads"
    details = {"cores": cores, "usable": usable, "quota": quota, "torch_threads": torch_threads}
    at_once = max(1, int(min(usable, quota or usable)))
    if torch_threads is not None and torch_threads > at_once:
        fix = f"blin train --threads {at_once}: more threads than that only wait for each other"
        return Check("processor", NOTE, shown, fix, details)
    return Check("processor", GOOD, shown, None, details)


def memory(root: Path = Path("/")) -> Check:
    """Looks at how much memory there is, and at the limit on this process."""
    meminfo = _text(root / "proc/meminfo")
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", meminfo, re.MULTILINE))
    total, available = (
        int(found[name]) * 1024 if name in found else None for name in ("MemTotal", "MemAvailable")
    )
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = memory_limit(root)
    details = {"total_bytes": total, "available_bytes": available, "limit_bytes": limit}
    if total is None:
        return Check("memory", GOOD, "of unknown size", None, details)
    shown = size_of(total)
    if available is not None:
        shown += f", {size_of(available)} of it free"
    if limit is not None and limit < total:
        shown += f"; this process may take {size_of(limit)}"
    if min(available or total, limit or total) < _LITTLE_SPACE:
        return Check("memory", NOTE, shown, "end other programs: torch alone takes 0.5 GB", details)
    return Check("memory", GOOD, shown, None, details)


def cpu_quota(root: Path) -> float | None:
    """Returns how many cores' time the control groups of this process grant; None for all."""
    granted = []
    for group in _groups(root, "cpu"):
        numbers = _text(group / "cpu.max").split() or [
            _text(group / "cpu.cfs_quota_us").strip(),
            _text(group / "cpu.cfs_period_us").strip(),
        ]
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            granted.append(int(numbers[0]) / int(numbers[1]))
    return min(granted, default=None)


def memory_limit(root: Path) -> int | None:
    """Returns the least limit of the control groups of this process, in bytes; None for none."""
    limits = []
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            number = _text(group / name).strip()
            # The first version writes "no limit" as a number that no machine has.
            if number.isdecimal() and int(number) < 1 << 60:
                limits.append(int(number))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the directories of the control groups that this process is in, up to the highest."""
    mount = root / "sys/fs/cgroup"
    yield from (mount, mount / controller)
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", controller) or controller in controllers.split(","):
            place = Path(path.lstrip("/"))
            for part in (place, *place.parents):
                yield (mount / controller if controllers else mount) / part


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def directory(name: str, path: Path, option: str, *, enough_to_read: bool = False) -> Check:
    """Looks at whether a directory is there or can be made, can be written to, and has room."""
    elsewhere = f"choose another with {option}"
    details: dict[str, object] = {"path": str(path)}
    try:
        there = path.exists()
        nearest = next(
            parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()
        )
        is_directory = nearest.is_dir()
    except OSError as error:
        shown = f"{path} cannot be looked at: {error.strerror or error}"
        return Check(name, BROKEN, shown, elsewhere, details)
    details["exists"] = there
    if not is_directory:
        return Check(name, BROKEN, f"{nearest} is no directory", elsewhere, details)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        shown = f"{nearest} cannot be written to: {error.strerror or error}"
        state = NOTE if enough_to_read else BROKEN
        return Check(name, state, shown, elsewhere, {**details, "writable": False})
    free = shutil.disk_usage(nearest).free
    shown = f"{path}{'' if there else ', made when it is needed'}, {size_of(free)} free"
    details |= {"writable": True, "free_bytes": free}
    if free < _LITTLE_SPACE:
        return Check(name, NOTE, shown, f"make room, or {elsewhere}", details)
    return Check(name, GOOD, shown, None, details)


def datasets(data_dir: Path) -> Iterator[Check]:
    """Opens every prepared dataset."""
    from blin.data.dataset import Dataset
    from blin.errors import BlinError

    for name in prepared_names(data_dir):
        try:
            dataset = Dataset(data_dir / name)
            users, items = len(dataset.user_ids), len(dataset.item_ids)
        except (BlinError, OSError) as error:
            fix = f"blin preprocess LOG --name {name}"
            yield Check(f"dataset {name}", BROKEN, str(error), fix, {"name": name})
            continue
        numbers = {"users": users, "items": items, "interactions": dataset.num_interactions}
        shown = ", ".join(f"{number:,} {what}" for what, number in numbers.items())
        yield Check(f"dataset {name}", GOOD, shown, None, {"name": name, **numbers})


def _extra(name: str, purpose: str, wanted: str) -> Check:
    if find_spec(name) is None:
        fix = f"pip install '{wanted}'" if "[" in wanted else f"pip install {wanted}"
        return Check(name, NOTE, f"not installed; for {purpose}", fix, {"version": None})
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = "of unknown version"
    return Check(name, GOOD, f"{installed}; for {purpose}", None, {"version": installed})
