"""Runs of the models that learn by counting, and what all other runs are compared with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from blin import Blin, Recommender, evaluate
from blin.checkpoint import TrainedModel, find_run, load_run, read_run_config
from blin.data.dataset import Dataset
from blin.data.loader import training_interactions
from blin.data.prepare import preprocess
from blin.errors import CheckpointError, ConfigError, DataError
from blin.models import BASELINES, MODELS
from blin.training import baselines
from blin.training.baselines import measure_baselines
from blin.training.trainer import RunResult, resume, train


def counted(dataset: Dataset, name: str, runs_dir: Path, **settings: Any) -> RunResult:
    return train(dataset, model=name, settings=settings, runs_dir=runs_dir, device="cpu")


@pytest.fixture(scope="module")
def results(
    small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunResult]:
    runs_dir = tmp_path_factory.mktemp("counted")
    return {name: counted(small_dataset, name, runs_dir) for name in BASELINES}


@pytest.fixture(params=BASELINES)
def result(request: pytest.FixtureRequest, results: dict[str, RunResult]) -> RunResult:
    return results[request.param]


def test_a_run_has_its_files(result: RunResult) -> None:
    assert sorted(path.name for path in result.run.iterdir()) == [
        *("config.toml", "environment.json", "eval", "history.jsonl", "model"),
    ]
    assert sorted(path.name for path in (result.run / "model").iterdir()) == [
        *("config.json", "items.parquet", "model.safetensors"),
    ]
    record = json.loads((result.run / "history.jsonl").read_text())
    assert (record["epoch"], record["losses"]) == (0, {})
    assert record["valid"] == result.valid_metrics
    stored = json.loads((result.run / "eval" / "test.json").read_text())
    assert (stored["metrics"], stored["protocol"]) == (result.metrics, result.protocol)
    assert (result.epochs, result.best_epoch) == (0, 0)
    assert not list(result.run.parent.glob(".*"))


def test_the_latest_run_is_the_last_one(results: dict[str, RunResult]) -> None:
    last = results[BASELINES[-1]].run
    assert find_run(last.parent.parent) == last.resolve()
    assert last.name.endswith("-item-knn")


def test_a_loaded_run_scores_as_the_counted_one(result: RunResult, small_dataset: Dataset) -> None:
    model = load_run(result.run).model
    assert evaluate(model, small_dataset).metrics == result.metrics
    module: Any = MODELS[model.name].module(small_dataset.num_items, model.module.config)
    module.count(training_interactions(small_dataset))
    assert evaluate(module, small_dataset).metrics == result.metrics


def test_a_run_counted_again_has_the_same_bytes(
    result: RunResult, small_dataset: Dataset, tmp_path: Path
) -> None:
    name = read_run_config(result.run)["model"]
    again = counted(small_dataset, name, tmp_path).run
    for file in (
        "model/model.safetensors",
        "model/config.json",
        "eval/test.per_user.parquet",
        "config.toml",
    ):
        assert (again / file).read_bytes() == (result.run / file).read_bytes()


def test_python_has_them_as_it_has_blin(
    small_dataset: Dataset, tmp_path: Path, results: dict[str, RunResult]
) -> None:
    model = Recommender("item-knn", device="cpu").fit(small_dataset)
    assert evaluate(model, small_dataset).metrics == results["item-knn"].metrics
    by_user = model.recommend(users=["u3"], k=5).to_pylist()
    index = small_dataset.user_ids.index_of("u3")
    assert index is not None
    history = [small_dataset.item_ids.raw(int(item)) for item in small_dataset.sequence(index)]
    session = model.session()
    session.push(*history)
    assert session.form == "window"
    model.save_pretrained(tmp_path / "model")
    loaded = Recommender.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.model == "item-knn"
    by_history = loaded.recommend(histories=[history], k=5).to_pylist()
    assert [row["item_id"] for row in by_user] == [row["item_id"] for row in by_history]
    assert [item for item, _ in session.top(5)] == [row["item_id"] for row in by_user]
    with pytest.raises(ConfigError, match='expected a Blin, found "item-knn": use Recommender'):
        Blin.from_pretrained(tmp_path / "model", device="cpu")
    assert repr(Recommender("markov")) == "Recommender('markov')"
    assert repr(Blin(model="blin-d", dim=8)) == "Blin(model='blin-d', dim=8)"


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("popularity", {"epochs": 3}, 'unknown setting "epochs"; known are none'),
        ("markov", {"kl_weight": 2.0}, 'unknown setting "kl_weight"; known are none'),
        ("item-knn", {"seed": 1}, 'unknown setting "seed"; known are backward, distance_decay'),
        ("item-knn", {"neighbors": 1}, 'unknown setting "neighbors"; did you mean "neighbours"'),
        ("item-knn", {"neighbours": 0}, "neighbours: expected at least 1, found 0"),
        ("recent-popularity", {"window": "x"}, "window: expected a finite number, found 'x'"),
        ("item-nn", {}, 'unknown model "item-nn"; did you mean "item-knn"'),
    ],
)
def test_settings_of_other_models_are_refused(
    small_dataset: Dataset, tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        counted(small_dataset, name, tmp_path, **settings)
    with pytest.raises(ConfigError, match=message):
        Recommender(name, **settings)
    assert not list(tmp_path.iterdir())


def test_settings_are_kept(small_dataset: Dataset, tmp_path: Path) -> None:
    run = counted(small_dataset, "item-knn", tmp_path, max_len=3, neighbours=5).run
    settings = read_run_config(run)["settings"]
    assert (settings["max_len"], settings["neighbours"], settings["max_distance"]) == (3, 5, 10)
    model = load_run(run).model
    assert model.batch_spec.max_len == 3
    assert int(model.module.similarities.offsets.diff().max()) == 5  # type: ignore[union-attr]


def test_there_is_nothing_to_resume(result: RunResult) -> None:
    with pytest.raises(CheckpointError, match="learns in one go: its run is complete"):
        resume(result.run)


@pytest.fixture
def timeless(small_log: Path, tmp_path: Path) -> Dataset:
    rows = [line.rpartition(",")[0] for line in small_log.read_text().splitlines()]
    (tmp_path / "timeless.csv").write_text("\n".join(rows) + "\n")
    return Dataset(Path(preprocess(tmp_path / "timeless.csv", data_dir=tmp_path / "data").path))


def test_without_times_nothing_is_recent(timeless: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="recent-popularity: expected interactions with times"):
        counted(timeless, "recent-popularity", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    protocol = evaluate(Recommender("popularity").fit(timeless), timeless).protocol
    found = measure_baselines(timeless, protocol=protocol, directory=tmp_path)
    assert list(found) == ["popularity", "markov", "item-knn"]


@pytest.fixture
def run(results: dict[str, RunResult], tmp_path: Path) -> Path:
    return Path(shutil.copytree(results["item-knn"].run, tmp_path / "run"))


@pytest.mark.parametrize(
    "name, place, value, message",
    [
        ("similarities.offsets", 5, 10**12, "tensor similarities.offsets: expected to rise"),
        ("similarities.offsets", 5, -1, "tensor similarities.offsets: expected to rise"),
        ("similarities.offsets", -1, 3, "tensor similarities.offsets: expected to rise"),
        ("similarities.targets", 0, 10**6, "tensor similarities.targets: expected items from 1"),
        ("similarities.targets", 0, -7, "tensor similarities.targets: expected items from 1"),
        ("similarities.weights", 0, float("nan"), "tensor similarities.weights: expected finite"),
    ],
)
def test_damaged_counts_are_named(
    run: Path, name: str, place: int, value: float, message: str
) -> None:
    file = run / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors[name][place] = value
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"model.safetensors: {message}"):
        load_run(run)


@pytest.mark.parametrize("cut", ["similarities.targets", "similarities.weights", "popularity"])
def test_counts_that_do_not_belong_together_are_named(run: Path, cut: str) -> None:
    file = run / "model" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, cut: tensors[cut][:-1].clone()}, file)
    with pytest.raises(CheckpointError, match=r"model.safetensors: tensor .*: expected"):
        load_run(run)
    save_file({**tensors, cut: tensors[cut].unsqueeze(0).clone()}, file)
    with pytest.raises(CheckpointError, match=rf"tensor {cut}: expected shape"):
        load_run(run)
    del tensors[cut]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=rf"tensor {cut}: expected one, found none"):
        load_run(run)


def test_the_weights_of_another_model_do_not_fit(
    run: Path, results: dict[str, RunResult], small_dataset: Dataset
) -> None:
    other = results["markov"].run / "model" / "model.safetensors"
    (run / "model" / "model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="tensor .*: expected one, found none"):
        TrainedModel.load(run / "model")


def test_baselines_are_measured_once(
    results: dict[str, RunResult],
    small_dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protocol = results["markov"].protocol
    calls: list[tuple[int, int]] = []

    def measure() -> dict[str, dict[str, float]]:
        calls.clear()
        return measure_baselines(
            small_dataset,
            protocol=protocol,
            directory=tmp_path,
            on_progress=lambda done, total: calls.append((done, total)),
        )

    found = measure()
    assert found == {name: result.metrics for name, result in results.items()}
    users = evaluate(Recommender("markov").fit(small_dataset), small_dataset).users
    assert calls[-1] == (4 * users, 4 * users)
    assert measure() == found and not calls
    (file,) = tmp_path.iterdir()
    assert file.name.startswith(".baselines-")
    for text in ("", "[]", '{"key": 1}', file.read_text()[:-9], file.read_text() + "}"):
        file.write_text(text)
        assert measure() == found and calls
    assert measure() == found and not calls
    # Another version, other defaults, other times: measured again.
    monkeypatch.setattr(baselines, "FORMAT_VERSION", 99)
    assert measure() == found and calls
    later = Dataset(small_dataset.path)
    assert later.timestamps is not None
    later.timestamps = np.array(later.timestamps)[::-1].copy()
    moved = measure_baselines(later, protocol=protocol, directory=tmp_path)
    assert moved["recent-popularity"] != found["recent-popularity"]
    assert moved["markov"] == found["markov"]


def test_baselines_that_cannot_be_kept_are_measured(
    results: dict[str, RunResult], small_dataset: Dataset, tmp_path: Path
) -> None:
    protocol = results["markov"].protocol
    found = measure_baselines(small_dataset, protocol=protocol, directory=tmp_path / "nowhere")
    assert found["item-knn"] == results["item-knn"].metrics


def test_other_protocols_are_not_compared(small_dataset: Dataset, tmp_path: Path) -> None:
    model = Recommender("markov").fit(small_dataset)
    sampled = evaluate(model, small_dataset, negatives=20).protocol
    with pytest.raises(ConfigError, match="protocol: expected .*full.*, found .*uniform-20"):
        measure_baselines(small_dataset, protocol=sampled, directory=tmp_path)
    assert not list(tmp_path.iterdir())
