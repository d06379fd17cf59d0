"""A distilled run is an ordinary run of its student; what it learned from is checked and kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from blin.checkpoint import find_run, load_run, read_run_config
from blin.data.dataset import Dataset
from blin.data.loader import history_batch
from blin.data.prepare import preprocess
from blin.errors import CheckpointError, ConfigError
from blin.estimator import Recommender
from blin.evaluation.evaluator import evaluate
from blin.models.distillation import DistillationConfig, features_of
from blin.tensors import read_header
from blin.training import trainer
from blin.training.distillation import KNOWLEDGE_FILE, Distillation, knowledge_of, rows_to_read
from blin.training.trainer import STATE_FILE, Event, Step
from learned import lively, module_of
from small import SMALL, write_small_log

HERE: dict[str, Any] = {"device": "cpu", "threads": 1}
STUDENT = {
    **SMALL,
    "dim": 8,
    "num_heads": 2,
    "epochs": 3,
    "learning_rate": 0.01,
    "batch_size": 48,
    "cold_share": 0.5,
}


@pytest.fixture(scope="module")
def teacher(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of blin, in which nothing is written."""
    runs = tmp_path_factory.mktemp("teachers")
    settings = {**SMALL, "epochs": 2, "learning_rate": 0.01}
    return trainer.train(small_dataset, settings=settings, runs_dir=runs, **HERE).run


def student_settings(model: str, **changes: Any) -> dict[str, Any]:
    """Those of :data:`STUDENT` that a model has, and changes."""
    known = trainer.all_settings(model, {})
    return {name: value for name, value in STUDENT.items() if name in known} | changes


def distilled(
    dataset: Dataset,
    teacher: Path,
    runs: Path,
    *,
    model: str = "spnn",
    how: dict[str, Any] | None = None,
    stop: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Path:
    return trainer.train(
        dataset,
        model=model,
        settings=student_settings(model, **settings),
        runs_dir=runs,
        distillation=Distillation.of(teacher, dataset, DistillationConfig(**(how or {}))),
        on_event=stop,
        **HERE,
    ).run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def stop_at(epoch: int, step: int) -> Callable[[Event], None]:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGINT)

    return stop


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("spnn", {}),
        ("spnn", {"max_grad_norm": 0.05}),
        ("bert4rec", {}),
        ("caser", {}),
        ("gru4rec", {}),
        ("mstein", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_a_weight_of_nothing_is_a_plain_training(
    small_dataset: Dataset, teacher: Path, tmp_path: Path, model: str, settings: dict[str, Any]
) -> None:
    plain = trainer.train(
        small_dataset,
        model=model,
        settings=student_settings(model, **settings),
        runs_dir=tmp_path,
        **HERE,
    ).run
    how: dict[str, Any] = {"model": model, **settings}
    run = distilled(small_dataset, teacher, tmp_path, how={"distill_weight": 0.0}, **how)
    assert_equal(weights_of(run), weights_of(plain))
    taught = distilled(small_dataset, teacher, tmp_path, **how)
    assert any(
        not torch.equal(tensor, weights_of(taught)[name])
        for name, tensor in weights_of(plain).items()
    )


def test_it_is_a_run_of_its_student(small_dataset: Dataset, teacher: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    run = distilled(small_dataset, teacher, tmp_path)
    assert {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()} == before
    assert run.name.endswith("-spnn-distilled-s0")
    assert not any("detector" in name for name in weights_of(run))
    opened = load_run(run, device="cpu")
    assert opened.model.name == "spnn"
    stored = json.loads((run / "eval" / "test.json").read_text())["metrics"]
    again = evaluate(opened.model, opened.dataset(), k=(10, 20))
    assert again.metrics == pytest.approx(stored)
    (first, *_) = (run / "history.jsonl").read_text().splitlines()
    assert list(json.loads(first)["losses"]) == ["sequence", "distill", "detector"]
    told = read_run_config(run)["distillation"]
    assert told["teacher"] == str(teacher.resolve())
    assert told["model"] == "blin"
    assert (told["layers"], told["dim"], told["item_dim"]) == (3, 16, 16)
    assert not (run / KNOWLEDGE_FILE).exists()
    assert_equal(weights_of(distilled(small_dataset, teacher, tmp_path)), weights_of(run))


@pytest.mark.parametrize(("epoch", "step"), [(2, 2), (1, 1)])
def test_parts_are_the_whole(
    small_dataset: Dataset, teacher: Path, tmp_path: Path, epoch: int, step: int
) -> None:
    whole = distilled(small_dataset, teacher, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        distilled(small_dataset, teacher, tmp_path / "parts", stop=stop_at(epoch, step))
    parts = find_run(tmp_path / "parts")
    assert (parts / KNOWLEDGE_FILE).exists()
    assert any("detector" in name for name in read_header(parts / STATE_FILE).tensors)
    torch.manual_seed(99)
    trainer.resume(parts, **HERE)
    assert_equal(load_file(parts / STATE_FILE), load_file(whole / STATE_FILE))
    assert_equal(weights_of(parts), weights_of(whole))


def windows_by_hand(length: int, max_len: int) -> dict[int, tuple[int, int]]:
    """For each step of a sequence the row it is taken from, where it begins and ends."""
    found: dict[int, tuple[int, int]] = {}
    end = length
    while True:
        begin = max(0, end - max_len)
        newer = range(end - max(1, max_len // 2), end) if begin > 0 else range(begin, end)
        for step in newer:
            found[step] = (begin, end)
        if begin == 0:
            return found
        end -= max(1, max_len // 2)


@pytest.mark.parametrize("max_len", [1, 2, 5, 8])
def test_each_step_is_taken_from_one_row(max_len: int) -> None:
    lengths = np.array([0, 1, 7, 8, 9, 23, -1, 4])
    starts = np.arange(len(lengths)) * 100
    rows, firsts = rows_to_read(starts, starts + lengths, max_len)
    taken: dict[int, tuple[int, int]] = {}
    for owner, start, end, first in zip(*rows, firsts, strict=True):
        assert starts[owner] <= start < end <= starts[owner] + lengths[owner]
        assert end - start <= max_len
        for place in range(first, end):
            assert place not in taken
            taken[place] = (start, end)
    expected = {
        int(start) + step: (int(start) + begin, int(start) + end)
        for start, length in zip(starts, lengths, strict=True)
        if length > 0
        for step, (begin, end) in windows_by_hand(int(length), max_len).items()
    }
    assert taken == expected


@pytest.mark.parametrize("name", ["blin", "bert4rec", "gru4rec", "mstein", "spnn", "mqsa-ted"])
def test_features_are_those_of_each_row_alone(small_dataset: Dataset, name: str) -> None:
    teacher = lively(module_of(name, small_dataset.num_items, max_len=4))
    knowledge = knowledge_of(teacher, small_dataset)  # type: ignore[arg-type]
    starts, ends = small_dataset.training_ranges()
    number = 0
    for user in range(len(starts)):
        steps = int(ends[user] - starts[user]) - 1
        rows = windows_by_hand(steps, 4) if steps > 0 else {}
        for step in range(max(0, steps)):
            row = np.array(rows[step]) + starts[user]
            batch = history_batch(
                small_dataset.items,
                row[:1],
                row[1:],
                teacher.batch_spec,
                timestamps=small_dataset.timestamps,
            )
            if user < 12:
                made = torch.stack(features_of(teacher, batch.views[0]), dim=2)[0]
                expected = made[step - rows[step][1]].half()
                torch.testing.assert_close(knowledge.features[number], expected)
            assert number == starts[user] + step - knowledge.shifts[user]
            number += 1
    assert len(knowledge.features) == number
    assert torch.equal(knowledge.items, teacher.item_embedding.items.detach().float())
    assert not knowledge.features.requires_grad


def test_nothing_that_is_held_out_is_read(small_dataset: Dataset) -> None:
    teacher = lively(module_of("bert4rec", small_dataset.num_items, max_len=6))
    before = knowledge_of(teacher, small_dataset)  # type: ignore[arg-type]
    changed = Dataset(small_dataset.path)
    changed.items = np.array(changed.items)
    for user, end in enumerate(small_dataset.training_ranges()[1]):
        # The last training item is a target, and no input either.
        changed.items[end - 1 : changed.offsets[user + 1]] = 1
    assert not np.array_equal(changed.items, small_dataset.items)
    after = knowledge_of(teacher, changed)  # type: ignore[arg-type]
    assert torch.equal(before.features, after.features)


def stopped(dataset: Dataset, teacher: Path, runs: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        distilled(dataset, teacher, runs, stop=stop_at(2, 1))
    return find_run(runs)


def test_the_teacher_may_go_while_its_features_are_kept(
    small_dataset: Dataset, teacher: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(teacher, tmp_path / "teacher")
    run = stopped(small_dataset, mine, tmp_path / "runs")
    shutil.rmtree(mine)
    assert trainer.resume(run, **HERE).epochs == 3
    with pytest.raises(CheckpointError, match="expected the run of the teacher, found none"):
        trainer.resume(run, settings={"epochs": 4}, **HERE)
    # Nothing is left to learn, so nobody is asked.
    assert trainer.resume(run, settings={"epochs": 3}, **HERE).epochs == 3
    shutil.copytree(teacher, mine)
    assert trainer.resume(run, settings={"epochs": 4}, **HERE).epochs == 4
    whole = distilled(small_dataset, teacher, tmp_path / "whole", epochs=4)
    assert_equal(load_file(run / STATE_FILE), load_file(whole / STATE_FILE))


def test_a_teacher_that_changed_is_noticed(
    small_dataset: Dataset, teacher: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(teacher, tmp_path / "teacher")
    run = stopped(small_dataset, mine, tmp_path / "runs")
    (run / KNOWLEDGE_FILE).unlink()
    other = trainer.train(
        small_dataset, settings={**SMALL, "epochs": 1, "seed": 1}, runs_dir=tmp_path, **HERE
    ).run
    shutil.copyfile(other / "model" / "model.safetensors", mine / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected the weights of the teacher") as caught:
        trainer.resume(run, **HERE)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_kept_features_are_checked(small_dataset: Dataset, teacher: Path, tmp_path: Path) -> None:
    run = stopped(small_dataset, teacher, tmp_path / "runs")
    file = run / KNOWLEDGE_FILE
    good = file.read_bytes()
    header = read_header(file)

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            trainer.resume(run, **HERE)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
        assert str(caught.value).endswith("delete it, and it is computed again")

    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused("found other bytes")
    file.write_bytes(good[: len(good) // 2])
    refused("expected a safetensors file")
    file.write_bytes(b"")
    refused("expected a safetensors file")
    for name in ("weights", "fingerprint"):
        about = {**header.about, name: "sha256:0"}
        save_file(load_file_of(good, tmp_path), file, {"blin": json.dumps(about)})
        refused(f"it is of another teacher: expected {name}")
    tensors = load_file_of(good, tmp_path)
    tensors["features"] = tensors["features"][:-1].contiguous()
    save_file(tensors, file, {"blin": json.dumps(header.about)})
    refused("tensor features: expected shape")

    file.unlink()
    trainer.resume(run, **HERE)
    whole = distilled(small_dataset, teacher, tmp_path / "whole")
    assert_equal(load_file(run / STATE_FILE), load_file(whole / STATE_FILE))


def load_file_of(content: bytes, place: Path) -> dict[str, torch.Tensor]:
    (place / "copy.safetensors").write_bytes(content)
    return load_file(place / "copy.safetensors")


def test_teachers_that_do_not_fit_are_refused(
    small_dataset: Dataset, teacher: Path, tmp_path: Path
) -> None:
    config = DistillationConfig()
    log = write_small_log(tmp_path / "other.csv", seed=7)
    other = Dataset(Path(preprocess(log, data_dir=tmp_path / "data").path))
    with pytest.raises(CheckpointError, match="trained on .*, found one of other sequences"):
        Distillation.of(teacher, other, config)
    counted = trainer.train(
        small_dataset, model="popularity", settings={}, runs_dir=tmp_path / "runs", **HERE
    ).run
    with pytest.raises(ConfigError, match="learns by a loss, found popularity, which counts"):
        Distillation.of(counted, small_dataset, config)
    with pytest.raises(ConfigError, match="popularity learns by counting"):
        trainer.train(
            small_dataset,
            model="popularity",
            runs_dir=tmp_path / "runs",
            distillation=Distillation.of(teacher, small_dataset, config),
            **HERE,
        )
    unfinished = shutil.copytree(teacher, tmp_path / "unfinished")
    (unfinished / "model" / "model.safetensors").unlink()
    (unfinished / "history.jsonl").unlink()
    with pytest.raises(CheckpointError, match="stopped before its first validation"):
        Distillation.of(unfinished, small_dataset, config)
    with pytest.raises(ConfigError, match="crop: expected 0 for a student that is distilled"):
        distilled(small_dataset, teacher, tmp_path / "runs", model="sasrec", crop=0.5)
    assert sorted(path.name for path in (tmp_path / "runs" / "small").glob("[!.]*")) == [
        counted.name
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "distillation: expected 'weights', found none"),
        ({"model": "blim"}, "distillation: expected a model blin knows, found 'blim'"),
        ({"layers": "3"}, "distillation: sizes of a teacher"),
        ({"layers": 0}, "distillation: sizes of a teacher"),
        ({"knowledge_dim": 0}, "distillation: knowledge_dim: expected at least 1"),
        ({"warmth": 2.0}, 'distillation: unknown setting "warmth"'),
    ],
)
def test_a_damaged_table_is_refused(
    teacher: Path, small_dataset: Dataset, change: dict[str, Any], message: str
) -> None:
    table = Distillation.of(teacher, small_dataset, DistillationConfig()).table
    table = {key: value for key, value in {**table, **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        Distillation.of_config(Path("config.toml"), {"distillation": table})


def test_a_state_of_another_distillation_is_refused(
    small_dataset: Dataset, teacher: Path, tmp_path: Path
) -> None:
    run = stopped(small_dataset, teacher, tmp_path / "runs")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("knowledge_dim = 32", "knowledge_dim = 16"))
    with pytest.raises(CheckpointError, match="it belongs to another run: expected distillation"):
        trainer.resume(run, **HERE)
    (run / "config.toml").write_text(config.partition("[distillation]")[0])
    with pytest.raises(CheckpointError, match="expected one, found none"):
        trainer.resume(run, **HERE)


@pytest.mark.parametrize("model", ["sasrec", "bert4rec", "gru4rec"])
def test_other_students_learn_too(
    small_dataset: Dataset, teacher: Path, tmp_path: Path, model: str
) -> None:
    how = Distillation.of(teacher, small_dataset, DistillationConfig())
    settings: dict[str, Any] = {**SMALL, "epochs": 1}
    learned = Recommender(model, **settings, **HERE).fit(
        small_dataset, runs_dir=tmp_path, distillation=how
    )
    assert learned.result is not None and learned.trained.name == model
    (line,) = (learned.result.run / "history.jsonl").read_text().splitlines()
    assert list(json.loads(line)["losses"]) == ["sequence", "distill", "detector"]
