from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from blin.checkpoint import TrainedModel, find_run, load_run
from blin.data.dataset import Dataset
from blin.errors import BlinError, CheckpointError, ConfigError, Terminated
from blin.estimator import Recommender
from blin.evaluation.evaluator import evaluate
from blin.training.config import TrainingConfig
from blin.training.trainer import (
    Event,
    Started,
    Step,
    Validated,
    fitting_max_len,
    resume,
    train,
)
from small import SMALL

Stop = Callable[[Event], None]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All that is in the state of a run: weights, moments, random states."""
    return load_file(run / "checkpoints" / "last.safetensors")


def assert_same_state(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def small(dataset: Dataset, runs: Path, stop: Stop | None = None, **settings: Any) -> Path:
    return train(
        dataset,
        settings={**SMALL, **settings},
        runs_dir=runs,
        device="cpu",
        threads=1,
        on_event=stop,
    ).run


def test_training_learns_what_follows_what(small_dataset: Dataset, tmp_path: Path) -> None:
    result = train(
        small_dataset,
        settings={**SMALL, "epochs": 60, "learning_rate": 0.01, "kl_weight": 0.1},
        runs_dir=tmp_path,
        device="cpu",
        threads=1,
    )
    # Four of five items are followed by their successor.
    assert result.metrics["HR@10"] > 0.6
    assert result.valid_metrics["NDCG@10"] > 0.4
    assert result.best_epoch <= result.epochs <= 60


def test_means_are_over_the_steps_that_have_the_part(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    told: list[dict[str, float]] = []
    settings = {"padding": "repeat", "batch_size": 4, "kl_weight": 0.0, "epochs": 1}

    def remember(event: Event) -> None:
        if isinstance(event, Step):
            told.append(event.losses)

    run = small(small_dataset, tmp_path, remember, **settings)
    (record,) = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    rare = [losses["HR@10 copy 2"] for losses in told if "HR@10 copy 2" in losses]
    assert 0 < len(rare) < len(told)
    for name, mean in record["losses"].items():
        values = [losses[name] for losses in told if name in losses]
        assert mean == pytest.approx(sum(values) / len(values))


def test_users_may_be_an_array(small_dataset: Dataset) -> None:
    model = Recommender("popularity").fit(small_dataset)
    users = np.array(["u0", "u1"])
    assert model.recommend(users, k=1).to_pylist() == model.recommend(["u0", "u1"], k=1).to_pylist()
    assert len(model.recommend(users[:0], k=1)) == 0


def test_the_defaults_of_a_model_are_those_of_its_recommender() -> None:
    assert Recommender("blin-paper", causal=False).settings == {"causal": False}
    with pytest.raises(ConfigError, match="causal: expected true with loss_positions = all"):
        Recommender("blin-paper", loss_positions="all")


def test_a_run_has_its_files(small_dataset: Dataset, tmp_path: Path) -> None:
    events: list[Event] = []
    run = small(small_dataset, tmp_path, events.append)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.toml",
        "environment.json",
        "eval",
        "history.jsonl",
        "log.txt",
        "model",
    ]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[0]["losses"].keys() == {"sequence", "kl"}
    assert 0 <= history[0]["data_wait"] <= history[0]["seconds"]
    assert find_run(tmp_path) == run.resolve()
    assert not list(tmp_path.rglob(".*"))
    assert [type(event) for event in events if not isinstance(event, Step)] == [
        Started,
        Validated,
        Validated,
        Validated,
    ]
    protocol = json.loads((run / "eval" / "test.json").read_text())["protocol"]
    assert protocol["fingerprint"] == small_dataset.fingerprint


def test_the_same_seed_gives_the_same_weights(small_dataset: Dataset, tmp_path: Path) -> None:
    one = small(small_dataset, tmp_path / "one")
    assert_same_state(one, small(small_dataset, tmp_path / "two"))
    other = small(small_dataset, tmp_path / "three", seed=1)
    name = "model.item_embedding.weight"
    assert not torch.equal(weights(one)[name], weights(other)[name])


def test_two_epochs_and_three_are_five(small_dataset: Dataset, tmp_path: Path) -> None:
    whole = small(small_dataset, tmp_path / "whole", epochs=5)
    parts = small(small_dataset, tmp_path / "parts", epochs=2)
    result = resume(parts, settings={"epochs": 5}, device="cpu", threads=1)
    assert_same_state(whole, parts)
    assert result.epochs == 5
    assert (parts / "history.jsonl").read_text().count("\n") == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_as_if_not(
    small_dataset: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (2, 2):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
        small(small_dataset, tmp_path / "parts", stop)
    assert signal.getsignal(number) is before
    parts = find_run(tmp_path / "parts")
    resume(parts, device="cpu", threads=1)
    assert_same_state(small(small_dataset, tmp_path / "whole"), parts)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"schedule": "cosine", "warmup_epochs": 0.7, "max_grad_norm": 0.5, "weight_decay": 0.01},
        {"padding": "random-repeat", "copies": "weight", "loss_average": "user"},
        {"padding": "random-repeat", "kl_positions": "aligned", "crop": 0.6},
        {"cold_share": 0.5, "cold_items": 2, "crop": 0.6},
        {"loss": "gbce", "negatives_per": "position", "exclude_history": True},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_every_way_of_training_learns_and_goes_on_after_a_stop(
    small_dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (2, 1):
            os.kill(os.getpid(), signal.SIGINT)

    settings = {**settings, "learning_rate": 0.01, "epochs": 4}
    whole = small(small_dataset, tmp_path / "whole", **settings)
    history = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    losses = [record["losses"]["sequence"] for record in history]
    assert losses[-1] < losses[0]
    with pytest.raises(KeyboardInterrupt):
        small(small_dataset, tmp_path / "parts", stop, **settings)
    parts = find_run(tmp_path / "parts")
    resume(parts, device="cpu", threads=1)
    assert_same_state(whole, parts)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.75, 1, 1, 1]),
        ("linear", [0.25, 0.75, 1, 0.75, 0.25]),
        ("cosine", [0.25, 0.75, 1, 0.853553, 0.146447]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule: str, expected: list[float]) -> None:
    config = TrainingConfig(learning_rate=1, epochs=6, warmup_epochs=2, schedule=schedule)
    rates = [config.learning_rate_at(epoch) for epoch in (0.5, 1.5, 2, 3, 5)]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_schedule_ends_where_it_was_to_end(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path, schedule="linear")
    with pytest.raises(ConfigError, match="epochs: the schedule of this run ends at epoch 3"):
        resume(run, settings={"epochs": 5})


def test_gradients_are_held_to_their_length(small_dataset: Dataset, tmp_path: Path) -> None:
    free = small(small_dataset, tmp_path / "free", epochs=1)
    held = small(small_dataset, tmp_path / "held", epochs=1, max_grad_norm=1e-9)
    loose = small(small_dataset, tmp_path / "loose", epochs=1, max_grad_norm=1e9)
    name = "model.item_embedding.weight"
    assert torch.equal(weights(free)[name], weights(loose)[name])
    # Adam divides by the length of the gradient, but not of one below its epsilon.
    begun = weights(small(small_dataset, tmp_path / "begun", epochs=1, learning_rate=1e-30))[name]
    moved = [(weights(run)[name] - begun).abs().max() for run in (free, held)]
    assert moved[1] < 0.5 * moved[0]


def test_a_finished_run_resumed_stays_as_it_is(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path)
    before = (run / "model" / "model.safetensors").read_bytes()
    result = resume(run, device="cpu")
    assert result.epochs == 3
    assert (run / "model" / "model.safetensors").read_bytes() == before


def test_the_best_epoch_is_kept_and_patience_ends_it(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    # A rate this high gets worse soon.
    result = train(
        small_dataset,
        settings={**SMALL, "epochs": 60, "learning_rate": 0.1, "patience": 2},
        runs_dir=tmp_path,
        device="cpu",
        threads=1,
    )
    assert result.epochs == result.best_epoch + 2 < 60
    best = load_run(result.run).model
    again = evaluate(best, small_dataset, split="valid").metrics
    assert again["NDCG@10"] == pytest.approx(result.valid_metrics["NDCG@10"])


def test_held_out_items_never_touch_a_weight(small_dataset: Dataset, tmp_path: Path) -> None:
    """Another test item, another validation item: the same weights after the same epochs."""
    changed = Dataset(small_dataset.path)
    items = np.array(changed.items)
    for split in ("valid", "test"):
        _, places = changed.held_out(split)
        items[places] = items[places] % changed.num_items + 1
    changed.items = items
    one = small(small_dataset, tmp_path / "one")
    other = small(changed, tmp_path / "other")
    assert_same_state(one, other)


def test_unknown_settings_are_refused_before_anything_is_made(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match='unknown setting "droput"; did you mean "dropout"?'):
        small(small_dataset, tmp_path, droput=0.1)
    with pytest.raises(ConfigError, match="dropout: expected a finite number, found 'high'"):
        small(small_dataset, tmp_path, dropout="high")
    with pytest.raises(ConfigError, match="kl_weight: expected a finite number, found nan"):
        small(small_dataset, tmp_path, kl_weight=float("nan"))
    with pytest.raises(ConfigError, match="padding: expected one of zero, repeat, random-repeat"):
        small(small_dataset, tmp_path, padding="full")
    with pytest.raises(ConfigError, match=r"cold_share: expected a number in \[0, 1\], found 1.5"):
        small(small_dataset, tmp_path, cold_share=1.5)
    with pytest.raises(ConfigError, match="cold_items: expected at least 1, found 0"):
        small(small_dataset, tmp_path, cold_items=0)
    with pytest.raises(ConfigError, match="cold_share: expected 0 where copies see each other"):
        small(small_dataset, tmp_path, cold_share=0.5, copies="attend", padding="repeat")
    for model in ("blin-paper", "linrec"):
        with pytest.raises(ConfigError, match=f"cold_share: .* a row is a prefix, as {model}"):
            train(small_dataset, model=model, settings={"cold_share": 0.5}, runs_dir=tmp_path)
    with pytest.raises(ConfigError, match='unknown model "bln"; did you mean "blin"?'):
        train(small_dataset, model="bln", runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_explodes_is_an_error(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BlinError, match="no longer finite|not finite"):
        small(small_dataset, tmp_path, learning_rate=1e20)


def test_a_resumed_run_keeps_its_settings(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path)
    with pytest.raises(ConfigError, match="dim: a resumed run keeps its settings"):
        resume(run, settings={"dim": 32})


def test_a_resumed_run_does_not_shrink(small_dataset: Dataset, tmp_path: Path) -> None:
    run = small(small_dataset, tmp_path)
    with pytest.raises(ConfigError, match="epochs: expected at least the 3"):
        resume(run, settings={"epochs": 2})


def test_a_run_that_lost_its_state_is_not_begun_anew(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    run = small(small_dataset, tmp_path)
    (run / "checkpoints" / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"last.safetensors: missing"):
        resume(run)


def test_a_resumed_run_takes_as_many_threads_as_before(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    run = small(small_dataset, tmp_path)
    seen: set[int] = set()
    torch.set_num_threads(2)
    try:
        resume(
            run,
            settings={"epochs": 4},
            device="cpu",
            on_event=lambda event: seen.add(torch.get_num_threads()),
        )
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(1)


def test_a_run_that_failed_is_not_the_latest(small_dataset: Dataset, tmp_path: Path) -> None:
    good = small(small_dataset, tmp_path)
    with pytest.raises(BlinError):
        small(small_dataset, tmp_path, learning_rate=1e20)
    assert find_run(tmp_path) == good.resolve()


@pytest.mark.parametrize(
    ("typical", "longest", "expected"),
    [(3, 900, 50), (51, 900, 50), (52, 52, 100), (101, 101, 100), (102, 102, 200), (500, 900, 200)],
)
def test_the_length_fits_three_of_four_sequences(
    small_dataset: Dataset, typical: int, longest: int, expected: int
) -> None:
    dataset = Dataset(small_dataset.path)
    dataset.splits = np.array([[typical, 0]] * 4 + [[longest, 0]])
    assert fitting_max_len(dataset) == expected


@pytest.fixture(scope="module")
def finished(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(small_dataset, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("keep", [0, 4, 7, 100, -1])
@pytest.mark.parametrize("name", ["model/model.safetensors", "checkpoints/last.safetensors"])
def test_truncated_weights_are_named(run: Path, name: str, keep: int) -> None:
    file = run / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"{file.name}: expected a safetensors file"):
        load_run(run) if name.startswith("model") else resume(run, settings={"epochs": 4})


@pytest.mark.parametrize("name", ["config.json", "items.parquet"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff", b"[1, 2]"])
def test_a_damaged_model_directory_is_named(run: Path, name: str, content: bytes) -> None:
    (run / "model" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_run(run)


def test_weights_of_another_shape_do_not_fit(run: Path) -> None:
    file = run / "model" / "config.json"
    description = json.loads(file.read_text())
    description["config"]["dim"] = 32
    file.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"expected shape \(.*32,?.*\), found \(.*16,?.*\)"):
        load_run(run)


def test_a_later_format_says_so(run: Path) -> None:
    file = run / "model" / "config.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(CheckpointError, match="expected format version 1, found 99"):
        load_run(run)


def test_a_run_stopped_before_its_first_validation_says_how_to_go_on(run: Path) -> None:
    (run / "model" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: missing: copy it back"):
        load_run(run)
    (run / "history.jsonl").unlink()
    with pytest.raises(CheckpointError, match="blin train --resume"):
        load_run(run)


def test_a_directory_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a directory that is no run"):
        find_run(tmp_path, tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        find_run(tmp_path, "nowhere")
    with pytest.raises(CheckpointError, match="no run in"):
        find_run(tmp_path)


def test_a_dataset_that_changed_is_noticed(run: Path, small_dataset: Dataset) -> None:
    loaded = load_run(run)
    assert loaded.dataset().fingerprint == small_dataset.fingerprint
    other = replace(loaded, config={**loaded.config, "fingerprint": "sha256:0"})
    with pytest.raises(CheckpointError, match="found other sequences"):
        other.dataset()


def test_items_that_were_renamed_are_noticed(
    run: Path, small_dataset: Dataset, tmp_path: Path
) -> None:
    """The sequences are the same, and yet every recommendation would be wrong."""
    renamed = Path(shutil.copytree(small_dataset.path, tmp_path / "data" / "small"))
    ids = small_dataset.item_ids.ids.to_pylist()
    pq.write_table(pa.table({"id": [*ids[1:], ids[0]]}), renamed / "items.parquet")
    with pytest.raises(CheckpointError, match="found other ids"):
        load_run(run).dataset(data_dir=tmp_path / "data")


def test_saved_and_loaded_scores_are_equal(
    run: Path, small_dataset: Dataset, tmp_path: Path
) -> None:
    model = load_run(run).model
    model.save(tmp_path / "copy")
    copy = TrainedModel.load(tmp_path / "copy")
    first, second = (evaluate(one, small_dataset).ranks.tolist() for one in (model, copy))
    assert first == second


@pytest.mark.parametrize("settings", [{}, {"long_sequences": "windows", "max_len": 3}], ids=str)
def test_the_speed_counts_each_user_once_an_epoch(
    small_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    events: list[Event] = []
    # On a clock that stands still an epoch takes the least time there is.
    monkeypatch.setattr("blin.training.trainer.time.perf_counter", lambda: 0.0)
    small(small_dataset, tmp_path, stop=events.append, epochs=1, **settings)
    (started,) = (event for event in events if isinstance(event, Started))
    speeds = [event.users_per_second * 1e-9 for event in events if isinstance(event, Step)]
    assert len(speeds) == started.steps_per_epoch > 1
    assert speeds[-1] == pytest.approx(small_dataset.num_users)
    assert speeds[0] == pytest.approx(speeds[-1] / len(speeds))
