"""Runs of every format version there has been still load, rank, recommend and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blin.checkpoint import load_run
from blin.evaluation.evaluator import evaluate
from blin.inference.recommend import recommend_histories
from blin.training.trainer import resume
from golden.make_run import HISTORY

FROZEN = sorted(Path(__file__).parents[1].glob("golden/run-v*"))


@pytest.fixture(params=FROZEN, ids=lambda path: path.name)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, for a run that goes on changes."""
    return Path(shutil.copytree(request.param, tmp_path / "frozen"))


@pytest.fixture
def expected(frozen: Path) -> dict[str, Any]:
    return json.loads((frozen / "expected.json").read_text())


def test_there_is_one() -> None:
    assert [path.name for path in FROZEN] == ["run-v1"]


def test_it_ranks_as_it_did(frozen: Path, expected: dict[str, Any]) -> None:
    run = load_run(frozen / "run", device="cpu")
    dataset = run.dataset(data_dir=frozen / "data")
    evaluation = evaluate(run.model, dataset, k=(10, 20), split="test")
    assert evaluation.ranks.tolist() == expected["ranks"]
    recorded = json.loads((frozen / "run" / "eval" / "test.json").read_text())["metrics"]
    assert {name: evaluation.metrics[name] for name in recorded} == pytest.approx(recorded)


def test_it_recommends_what_it_did(frozen: Path, expected: dict[str, Any]) -> None:
    table = recommend_histories(load_run(frozen / "run", device="cpu").model, [HISTORY], k=5).table
    assert table.column("item_id").to_pylist() == expected["recommended"]
    assert table.column("score").to_pylist() == pytest.approx(expected["scores"], abs=1e-5)


def test_it_goes_on_as_it_would_have(frozen: Path, expected: dict[str, Any]) -> None:
    """To the bit only by the same torch on the same processor."""
    run, data = frozen / "run", frozen / "data"
    result = resume(run, data_dir=data, settings={"epochs": 4}, device="cpu")
    assert result.epochs == 4
    last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    for name in ("sequence", "kl"):
        assert last["losses"][name] == pytest.approx(expected["next"]["losses"][name], abs=1e-4)
    assert last["valid"] == pytest.approx(expected["next"]["valid"], abs=1e-2)
    ours = load_file(run / "model" / "model.safetensors")
    theirs = load_file(frozen / "resumed.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-3, msg=name)
