from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch

from blin.data.dataset import Dataset
from blin.data.prepare import preprocess

sys.path.insert(0, str(Path(__file__).parent))

from small import write_small_log

torch.set_num_threads(1)

# Where this process was started to ignore Ctrl-C, as shells start jobs in the background, the
# commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_log(tmp_path_factory.mktemp("log") / "small.csv")


@pytest.fixture(scope="session")
def small_dataset(small_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    report = preprocess(small_log, data_dir=tmp_path_factory.mktemp("data"))
    return Dataset(Path(report.path))
