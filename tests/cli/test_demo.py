"""``blin demo``: what a newcomer sees first must work and must convince."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from cli.conftest import run_blin


def test_the_demo_runs_and_compares_blin_with_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(import_module("blin.cli.demo").SETTINGS, "epochs", 6)
    result = run_blin("demo", "--json", "--threads", 1)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert Path(told["run"]).is_dir() and told["run"].startswith("blin-demo/runs/sample/")
    ndcg = {name: metrics["NDCG@10"] for name, metrics in told["metrics"].items()}
    assert ndcg.keys() == {"blin", "popularity", "recent-popularity", "markov", "item-knn"}
    assert ndcg["blin"] > ndcg["markov"] > ndcg["popularity"] > 0
    steps = [line for line in result.stderr.splitlines() if line.startswith("$ ")]
    assert [step.split()[2] for step in steps] == ["preprocess", "train", "recommend", "evaluate"]
    assert [path.name for path in tmp_path.iterdir()] == ["blin-demo"]
