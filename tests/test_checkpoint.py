"""Runs and models that are damaged, swapped or made to break the reader."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import blin
from blin.checkpoint import (
    TrainedModel,
    count_parameters,
    find_run,
    load_run,
    model_config,
    outline,
)
from blin.data.dataset import Dataset
from blin.data.prepare import preprocess
from blin.errors import CheckpointError, DataError
from blin.models import MODELS
from blin.tensors import read_header, read_tensors
from blin.training.trainer import resume, train
from damage import damaged, little_memory, message_of, rewrite, with_header
from learned import module_of
from small import SMALL, write_small_log

SETTINGS = {**SMALL, "epochs": 2, "dim": 8, "num_negatives": 8}
WEIGHTS = "model/model.safetensors"
STATE = "checkpoints/last.safetensors"


def trained_on(dataset: Dataset, runs: Path, model: str = "blin", **changes: Any) -> Path:
    options: dict[str, Any] = {"runs_dir": runs, "device": "cpu", "threads": 1}
    return train(dataset, model=model, settings={**SETTINGS, **changes}, **options).run


@pytest.fixture(scope="module")
def finished(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_on(small_dataset, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def loaded(model: Path) -> dict[str, Tensor]:
    found = TrainedModel.load(model)
    return {name: tensor.clone() for name, tensor in found.module.state_dict().items()}


def test_parameters_are_counted_without_the_weights(run: Path) -> None:
    model = run / "model"
    learned = sum(each.numel() for each in TrainedModel.load(model).module.parameters())
    (model / "items.parquet").unlink()
    assert count_parameters(model) == learned > 0


@pytest.mark.parametrize(
    "name", ["model/config.json", "model/items.parquet", WEIGHTS, STATE], ids=lambda name: name[6:]
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_byte_is_wrong_is_noticed_or_does_not_matter(
    finished: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(finished, copy)
    file = copy / name
    file.write_bytes(data.draw(damaged((finished / name).read_bytes())))

    def read(run: Path) -> dict[str, Tensor]:
        if name == STATE:
            return read_tensors(run / STATE, read_header(run / STATE))
        return loaded(run / "model")

    try:
        found = read(copy)
    except CheckpointError as error:
        assert file.name in str(error) and "\n" not in str(error)
    else:
        expected = read(finished)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


HEADERS: dict[str, tuple[bytes, str]] = {
    "length": (b"\0" * 7 + b"\x10" + b"{}", "a file that ends too early"),
    "longest": (b"\xff" * 8 + b"{}", "a file that ends too early"),
    "large": (with_header(b" " * (17 << 20)), "a header of more than 16 MiB"),
    "deep": (with_header(b"[" * 1_000_000), "lists within lists"),
    "deeper": (with_header(b'{"a":' * 1_000_000), "lists within lists"),
    "list": (with_header([]), "expected a safetensors file"),
    "digits": (with_header(b'{"a": ' + b"9" * 100_000 + b"}"), "expected a safetensors file"),
    "metadata": (with_header({"__metadata__": 3}), "expected a safetensors file"),
    "infinite": (
        with_header({"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 0]}}),
        "expected a safetensors file",
    ),
    "nothing": (
        with_header({}),
        "num_blocks: expected at most as many as there are tensors, 0, found 2",
    ),
    "many": (
        with_header(
            {f"t{n}": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]} for n in range(20_000)}
        ),
        "tensor .*: expected|expected how far a training has come",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_a_hostile_header_is_one_clear_line(run: Path, name: str, case: str) -> None:
    content, message = HEADERS[case]
    (run / name).write_bytes(content)
    do = (lambda: load_run(run)) if name == WEIGHTS else (lambda: resume(run, device="cpu"))
    assert re.search(message, message_of(CheckpointError, do))


def change_config(run: Path, **changes: object) -> None:
    file = run / "model" / "config.json"
    description = json.loads(file.read_text())
    for name, value in changes.items():
        place = description if name in description else description["config"]
        place[name] = value
    file.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_items": 10**12}, "expected a number of items, found 1000000000000"),
        ({"num_items": 10**9}, r"expected shape \(1000000001, 8\)"),
        ({"num_items": "40"}, "expected a number of items, found '40'"),
        ({"num_items": -1}, "expected a number of items, found -1"),
        ({"dim": 10**6}, r"expected shape \(.*1000000.*\), found"),
        ({"dim": 10**9}, "it describes no model: Storage size"),
        (
            {"dim": 10**30},
            r"dim: expected a whole number below 2\^31, found a number of more than 30",
        ),
        ({"num_blocks": 10**9}, "num_blocks: expected at most as many as there are tensors"),
        ({"max_len": 10**9}, "expected shape"),
        ({"max_len": True}, "max_len: expected a whole number, found True"),
        ({"dim": None}, "dim: expected a whole number, found None"),
        ({"num_heads": 4}, "num_heads: expected 2 as in model.safetensors, found 4"),
        ({"activation": "gelu"}, "activation: expected 'relu' as in model.safetensors"),
        ({"norm_frist": True}, 'unknown setting "norm_frist"; did you mean "norm_first"?'),
        ({"config": []}, r"expected a table of settings, found \[\]"),
        ({"model": "blim"}, "expected a model blin knows, found 'blim'"),
        ({"model": ["blin"]}, "expected a model blin knows"),
        ({"model": "blin-bkl"}, "model: expected 'blin' as in model.safetensors"),
        ({"items": "sha256:0"}, "items: expected 'sha256:"),
        ({"format_version": 2, "blin_version": "9.1"}, "found 2, written by blin 9.1: use that"),
        ({"format_version": [[]], "blin_version": {}}, r"found \[\[\]\]: use that version"),
    ],
    ids=str,
)
def test_a_hostile_description_is_one_clear_line(
    run: Path, changes: dict[str, object], message: str
) -> None:
    change_config(run, **changes)
    assert re.search(message, message_of(CheckpointError, lambda: load_run(run)))


@pytest.mark.parametrize("name", MODELS)
def test_no_setting_makes_a_description_slow_to_read(tmp_path: Path, name: str) -> None:
    config = MODELS[name].config()
    counts = [field for field, value in asdict(config).items() if type(value) is int]
    for setting in counts:
        # Heads divide the width, and this may be too much for torch to describe.
        for dim in (1 << 22, 64) if "dim" in counts else (None,):
            changes = {setting: 1 << 22} if dim is None else {"dim": dim, setting: 1 << 22}
            with little_memory(), suppress(CheckpointError):
                large = model_config(tmp_path, name, {**MODELS[name].defaults, **changes})
                outline(tmp_path, name, 40, large, most=99)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gru4rec", {"num_layers": 10**6}, "num_layers: expected at most as many as there are"),
        ("caser", {"window": 10**6}, "window: expected at most as many as there are tensors"),
        ("mstein", {"num_blocks": 10**6}, "num_blocks: expected at most as many as there are"),
        ("spnn", {"dim": 1 << 26, "num_heads": 1 << 26}, "expected shape"),
    ],
)
def test_parts_without_number_are_refused_at_once(
    small_dataset: Dataset, tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    module = module_of(name, small_dataset.num_items).float()
    TrainedModel(name, module, small_dataset.item_ids).save(tmp_path / "model")
    change_config(tmp_path, **changes)
    assert message in message_of(CheckpointError, lambda: TrainedModel.load(tmp_path / "model"))


@pytest.mark.parametrize(
    "content",
    [b"[" * 1_000_000, b'{"a":' * 500_000, b" " * (2 << 20), b"9" * 100_000, b"\xff\xfe", b"null"],
    ids=["lists", "objects", "large", "digits", "utf-16", "null"],
)
@pytest.mark.parametrize("name", ["config.json", "../config.toml"])
def test_hostile_text_is_one_clear_line(run: Path, content: bytes, name: str) -> None:
    (run / "model" / name).write_bytes(content)
    message = message_of(CheckpointError, lambda: load_run(run))
    assert Path(name).name in message


def test_a_directory_in_the_place_of_a_file_is_named(run: Path) -> None:
    for name in ("model/config.json", "model/items.parquet", WEIGHTS):
        file = run / name
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        assert file.name in message_of(CheckpointError, lambda: load_run(run))
        file.rmdir()
        file.write_bytes(content)
    load_run(run)


def transpose(tensors: dict[str, Tensor]) -> None:
    name = "item_embedding.weight"
    tensors[name] = tensors[name].T.contiguous()


def set_first(value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["item_embedding.weight"][1, 1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (transpose, r"tensor item_embedding.weight: expected shape \(\d+, 8\), found \(8, \d+\)"),
        (
            lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}),
            "expected type F32, found F16",
        ),
        (set_first(float("nan")), "item_embedding.weight: expected finite numbers, found NaN"),
        (set_first(float("-inf")), "item_embedding.weight: expected finite numbers, found NaN"),
        (lambda tensors: tensors.popitem(), "expected one, found none"),
        (lambda tensors: tensors.update(more=torch.ones(3)), "tensor more: expected none"),
    ],
    ids=["transposed", "fp16", "nan", "infinite", "missing", "more"],
)
def test_weights_that_do_not_fit_are_named(
    run: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    rewrite(run / WEIGHTS, tensors=change)
    assert re.search(message, message_of(CheckpointError, lambda: load_run(run)))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on other users and items, as many items as the first."""
    place = tmp_path_factory.mktemp("other")
    log = write_small_log(place / "other.csv", seed=3)
    header, rows = log.read_text().split("\n", 1)
    log.write_text(f"{header}\n{rows.replace(',i', ',other-')}")
    dataset = Dataset(preprocess(log, data_dir=place / "data").path)
    return trained_on(dataset, place / "runs")


def test_files_of_another_run_are_noticed(
    run: Path, finished: Path, other: Path, small_dataset: Dataset, tmp_path: Path
) -> None:
    assert load_run(other).model.num_items == small_dataset.num_items

    def swap(name: str, source: Path = other) -> str:
        shutil.copyfile(source / name, run / name)
        message = message_of(CheckpointError, lambda: resume(run, device="cpu"))
        shutil.copyfile(finished / name, run / name)
        return message

    assert "found other ids" in swap("model/items.parquet")
    assert "items: expected" in swap("model/config.json")
    assert "items: expected" in swap(WEIGHTS)
    assert "it belongs to another run: expected fingerprint" in swap(STATE)
    seeds = trained_on(small_dataset, tmp_path / "runs", seed=5)
    assert "it belongs to another run: expected seed 0, found 5" in swap(STATE, seeds)
    longer = trained_on(small_dataset, tmp_path / "runs", "blin-bkl", epochs=1)
    assert "model: expected 'blin-bkl'" in swap(WEIGHTS, longer)
    resume(run, device="cpu")


def test_weights_of_another_epoch_are_noticed(run: Path) -> None:
    rewrite(run / WEIGHTS, about=lambda about: about.update(epoch=77))
    message = message_of(CheckpointError, lambda: resume(run, device="cpu"))
    assert re.search(r"expected the weights of epoch \d, .* found those of epoch 77", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 10**9}, "expected how far a training has come"),
        ({"epoch": -1}, "expected how far a training has come"),
        ({"epoch": 1.0}, "expected how far a training has come"),
        ({"best_epoch": 99}, "expected how far a training has come"),
        ({"step": 10**9}, "expected at most 4 steps of an epoch, found 1000000000"),
        ({"step": -1}, "expected how far a training has come"),
        ({"history": {}}, "expected how far a training has come"),
        ({"history": [1, 2]}, "expected how far a training has come"),
        ({"sums": {"sequence": "1"}}, "expected how far a training has come"),
        ({"seconds": float("nan")}, "expected how far a training has come"),
        ({"scaler": {"scale": []}}, None),
        ({"more": 1}, "expected how far a training has come"),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_is_named(
    run: Path, changes: dict[str, object], message: str | None
) -> None:
    rewrite(run / STATE, about=lambda about: about["progress"].update(changes))
    if message is None:
        resume(run, device="cpu")
    else:
        assert message in message_of(CheckpointError, lambda: resume(run, device="cpu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"random.cpu": t["random.cpu"][:9].clone()}), "random.cpu: expected"),
        (lambda t: t.update({"random.cpu": torch.full_like(t["random.cpu"], 255)}), "not fit"),
        (lambda t: t.pop("optimizer.0.exp_avg"), "optimizer.0.exp_avg: expected one, found none"),
        (lambda t: t.update({"optimizer.x.step": torch.ones(())}), "expected none, found one"),
        (
            lambda t: t.update({"optimizer.0.exp_avg": t["optimizer.0.exp_avg"].T.contiguous()}),
            "optimizer.0.exp_avg: expected shape",
        ),
        (lambda t: t["model.item_embedding.weight"].fill_(float("nan")), "expected finite"),
    ],
    ids=["short", "impossible", "no moment", "no parameter", "transposed", "nan"],
)
def test_a_state_whose_tensors_do_not_fit_is_named(
    run: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    rewrite(run / STATE, tensors=change)
    assert message in message_of(CheckpointError, lambda: resume(run, device="cpu"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dim = 8", "dim = 1000000000", "it describes no model: Storage size"),
        (
            "num_blocks = 2",
            "num_blocks = 1000000000",
            "num_blocks: expected at most as many as there are tensors",
        ),
        ("learning_rate = 0.001", "learning_rate = 0.1", "expected learning_rate 0.1, found 0.001"),
        ("seed = 0", "seed = 1", "it belongs to another run: expected seed 1, found 0"),
        ("dim = 8", "dmi = 8", 'unknown setting "dmi"; did you mean "dim"?'),
        ("dim = 8", 'dim = "wide"', "dim: expected a whole number, found 'wide'"),
        ("epochs = 2", "epochs = [2]", r"epochs: expected a whole number, found \[2\]"),
        ("epochs = 2", "", "settings: expected epochs, found none"),
        ("[settings]", "[sittengs]", "expected settings, found None"),
        ('model = "blin"', 'model = "blim"', "expected a model blin knows, found 'blim'"),
        ('model = "blin"', "model = 3", "expected model, found 3"),
        ("threads = 1", "threads = 0", "expected threads from 1 on, found 0"),
        ("threads = 1", "threads = 1000000000", "expected threads from 1 on, found 1000000000"),
        ("threads = 1", 'threads = "1"', "expected threads, found '1'"),
        ("format_version = 1", "format_version = 7", "expected format version 1, found 7, written"),
        ('fingerprint = "sha256:', 'fingerprint = "sha256:0', "found other sequences"),
    ],
    ids=str,
)
def test_a_hostile_config_is_one_clear_line(run: Path, old: str, new: str, message: str) -> None:
    file = run / "config.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert re.search(message, message_of(CheckpointError, lambda: resume(run, device="cpu")))


def test_a_dataset_path_that_can_be_none_is_not_found(run: Path) -> None:
    file = run / "config.toml"
    file.write_text(
        re.sub("(?m)^dataset_path = .*", r'dataset_path = "/a\\u0000b"', file.read_text())
    )
    assert "prepare it again" in message_of(DataError, lambda: resume(run, device="cpu"))


def test_what_is_written_again_is_not_read(run: Path) -> None:
    """History and evaluations are for people: damage to them does not stop a run."""
    history = (run / "history.jsonl").read_bytes()
    (run / "history.jsonl").write_bytes(b"[" * 1000)
    (run / "eval" / "test.json").write_bytes(b"\xff")
    (run / "environment.json").unlink()
    resume(run, device="cpu")
    assert (run / "history.jsonl").read_bytes() == history
    assert json.loads((run / "eval" / "test.json").read_text())["metrics"]


def test_ids_that_unpack_to_far_more_than_their_file_are_refused(run: Path) -> None:
    file = run / "model" / "items.parquet"
    rows = pq.read_metadata(file).num_rows
    pq.write_table(pa.table({"id": ["x" * (4 << 20)] * rows}), file, compression="zstd")
    with little_memory(2 << 30), pytest.raises(CheckpointError, match="ids that take more than"):
        load_run(run)
    for number in (rows - 1, 10**6):
        pq.write_table(pa.table({"id": pa.repeat("", number)}), file)
        message = message_of(CheckpointError, lambda: load_run(run))
        assert f"expected {rows} ids, found {number:,}" in message
    pq.write_table(pa.table({"id": [*("ab" * (rows // 2))[: rows - 1], None]}), file)
    assert f"expected {rows} ids, found" in message_of(CheckpointError, lambda: load_run(run))
    pq.write_table(pa.table({"id": pa.nulls(rows)}), file)
    assert "ids that are strings" in message_of(CheckpointError, lambda: load_run(run))


def test_a_model_of_the_first_days_loads(run: Path) -> None:
    """Its weights say nothing of themselves, and its description less."""
    from safetensors.torch import load_file, save_file

    expected = loaded(run / "model")
    save_file(load_file(run / WEIGHTS), run / WEIGHTS)
    file = run / "model" / "config.json"
    description = json.loads(file.read_text())
    for name in ("blin_version", "items"):
        del description[name]
    file.write_text(json.dumps(description))
    assert all(torch.equal(t, expected[name]) for name, t in loaded(run / "model").items())


def test_equal_weights_are_equal_bytes(run: Path, tmp_path: Path) -> None:
    model = load_run(run).model
    for copy in ("one", "two"):
        model.save(tmp_path / copy)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_link_to_a_run_that_is_gone_is_named(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(Path("small", "deleted"))
    for unsaved in (False, True):
        with pytest.raises(CheckpointError, match="found one to small/deleted, where none is"):
            find_run(tmp_path, unsaved=unsaved)


def test_nothing_that_could_execute_is_ever_loaded() -> None:
    modules = "pickle|marshal|shelve|dill|joblib|yaml"
    calls = rf"(?<![\w.])((import|from) ({modules})|(torch|np|numpy)\.load|eval\(|exec\()"
    files = {file: file.read_text("utf-8") for file in Path(blin.__file__).parent.rglob("*.py")}
    assert len(files) > 40
    assert not [file for file, text in files.items() if re.search(calls, text)]
