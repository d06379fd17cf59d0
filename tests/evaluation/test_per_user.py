from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blin import Evaluation, evaluate
from blin.data.dataset import Dataset
from blin.data.loader import training_interactions
from blin.errors import CheckpointError
from blin.evaluation import evaluator
from blin.evaluation.metrics import metrics_of
from blin.evaluation.per_user import PerUser, hash_of, read_per_user, write_per_user
from blin.models.popularity import Popularity, PopularityConfig

PROTOCOL = {
    "dataset": "d",
    "fingerprint": "f",
    "split": "test",
    "ranking": "full",
    "users": 2,
    "ranked": 3,
}


def small_table() -> PerUser:
    return PerUser(
        PROTOCOL,
        pa.array(["u9", "u9", "u1"]),
        pa.array(["i1", "i2", "i1"]),
        np.array([1, 2**31 - 1, 3], np.int32),
        np.array([1, 2, 7], np.int32),
        np.array([5, 0, 5], np.int64),
    )


@pytest.fixture
def evaluation(small_dataset: Dataset) -> Evaluation:
    popularity = Popularity(small_dataset.num_items, PopularityConfig())
    popularity.count(training_interactions(small_dataset))
    return evaluate(popularity, small_dataset, k=[5])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "test.per_user.parquet"
    write_per_user(file, small_table())
    found = read_per_user(file)
    assert found.protocol == PROTOCOL
    assert found.user_ids.to_pylist() == ["u9", "u9", "u1"]
    assert found.users.tolist() == [0, 0, 1]
    assert found.target_ids.to_pylist() == ["i1", "i2", "i1"]
    assert found.ranks.tolist() == [1, 2**31 - 1, 3]
    assert found.history.tolist() == [1, 2, 7]
    assert found.popularity.tolist() == [5, 0, 5]
    assert pq.read_schema(file).names == ["user_id", "target_id", "rank", "history", "popularity"]


def test_an_evaluation_says_how_each_user_fared(
    evaluation: Evaluation, small_dataset: Dataset, tmp_path: Path
) -> None:
    evaluation.save(tmp_path / "eval")
    found = read_per_user(tmp_path / "eval" / "test.per_user.parquet")
    assert found.protocol == evaluation.protocol
    assert found.ranks.tolist() == evaluation.ranks.tolist()
    assert found.users.tolist() == list(range(small_dataset.num_users))
    sequences = [small_dataset.sequence(user).tolist() for user in range(small_dataset.num_users)]
    training = [item for sequence in sequences for item in sequence[:-2]]
    assert found.user_ids.to_pylist() == [small_dataset.user_ids.raw(u) for u in found.users]
    for row, sequence in enumerate(sequences):
        assert found.target_ids[row].as_py() == small_dataset.item_ids.raw(sequence[-1])
        assert found.history[row] == len(sequence) - 1
        assert found.popularity[row] == training.count(sequence[-1])


def test_the_record_names_its_ranks(evaluation: Evaluation, tmp_path: Path) -> None:
    record = json.loads(evaluation.save(tmp_path / "eval").read_text())
    file = tmp_path / "eval" / record["per_user"]["file"]
    assert record["per_user"]["sha256"] == hash_of(file)
    again = evaluation.save(tmp_path / "eval")
    assert json.loads(again.read_text())["per_user"] == record["per_user"]


def test_other_ranks_have_the_lengths_of_those_before_them(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    longer = evaluate_again(evaluation, (3, 5))
    longer.save(tmp_path / "eval")
    changed = replace(evaluation, ranks=evaluation.ranks[::-1].copy())
    record = json.loads(changed.save(tmp_path / "eval").read_text())
    expected = evaluate_again(changed, (3, 5)).metrics
    assert record["metrics"] == pytest.approx(expected)
    assert record["intervals"].keys() == expected.keys()
    other = replace(changed, ranks=evaluation.ranks, protocol={**changed.protocol, "users": 1})
    assert "HR@3" not in json.loads(other.save(tmp_path / "eval").read_text())["metrics"]


def evaluate_again(found: Evaluation, k: tuple[int, ...]) -> Evaluation:
    return replace(found, k=k, metrics=metrics_of(found.ranks, k, users=found.targets.users))


def test_a_kill_between_the_two_files_is_noticed(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "eval" / "test.per_user.parquet"

    def killed(path: Path) -> dict[str, object]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "_read_record", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluation.save(tmp_path / "eval")
    assert read_per_user(file).ranks.tolist() == evaluation.ranks.tolist(), "complete in itself"
    evaluation.save(tmp_path / "eval")
    evaluation.ranks[0] += 1
    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "_read_record", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluation.save(tmp_path / "eval")
    with pytest.raises(CheckpointError, match=r"test\.json was computed from, found others: run"):
        read_per_user(file)
    evaluation.save(tmp_path / "eval")
    assert read_per_user(file).ranks.tolist() == evaluation.ranks.tolist()


@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=9), byte=st.integers(0, 255))
def test_no_damage_of_the_rows_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, places: list[int], byte: int
) -> None:
    """Whatever is overwritten: one line says so, or the rows are those that were written."""
    file = tmp_path_factory.getbasetemp() / "damaged.per_user.parquet"
    write_per_user(file, small_table())
    content = bytearray(file.read_bytes())
    for place in places:
        content[place % len(content)] = byte
    file.write_bytes(content)
    try:
        found = read_per_user(file)
    except CheckpointError as error:
        assert "\n" not in str(error)
        return
    expected = small_table()
    assert found.user_ids.equals(expected.user_ids)
    assert found.target_ids.equals(expected.target_ids)
    for name in ("ranks", "history", "popularity"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def damaged(file: Path, how: str) -> None:
    table = pq.read_table(file)
    if how == "missing":
        file.unlink()
    elif how == "a directory":
        file.unlink()
        file.mkdir()
    elif how == "text":
        file.write_text("user_id,rank\n")
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif how == "no column":
        pq.write_table(table.drop_columns(["history"]), file)
    elif how == "a type":
        wide = table.column("rank").cast(pa.int64())
        pq.write_table(table.set_column(2, "rank", wide), file)
    elif how == "a null":
        ranks = pa.array([1, None, 3], pa.int32())
        pq.write_table(table.set_column(2, "rank", ranks), file)
    elif how == "rank 0":
        ranks = pa.array([1, 0, 3], pa.int32())
        pq.write_table(table.set_column(2, "rank", ranks), file)
    elif how == "no protocol":
        pq.write_table(table.replace_schema_metadata({}), file)
    elif how == "half a protocol":
        pq.write_table(table.replace_schema_metadata({"blin.protocol": '{"split": "test"}'}), file)
    elif how == "no JSON":
        pq.write_table(table.replace_schema_metadata({"blin.protocol": "[" * 100_000}), file)
    elif how == "a row less":
        pq.write_table(table.slice(0, 2), file)
    elif how == "apart":
        pq.write_table(table.take([0, 2, 1]), file)
    elif how == "a bad record":
        file.with_name("test.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "expected ranks by user, found no file: run blin evaluate"),
        ("a directory", "expected a Parquet file, found: "),
        ("text", "expected a Parquet file, found: "),
        ("cut", "expected a Parquet file, found: "),
        (
            "no column",
            r"expected the columns \['user_id', .*\], found \['user_id', 'target_id', 'rank', 'pop",
        ),
        ("a type", "rank: expected int32, found int64"),
        ("a null", "rank: expected a value in every row, found none"),
        ("rank 0", "rank: expected 1 or more, found 0"),
        ("no protocol", "expected metadata blin.protocol, found none that can be read"),
        (
            "half a protocol",
            "expected a protocol with dataset, fingerprint, ranked, ranking",
        ),
        ("no JSON", "expected metadata blin.protocol, found none that can be read"),
        ("a row less", "users: expected 2, as its protocol says, found 1"),
        ("apart", "expected the rows of a user together, found them apart"),
        ("a bad record", "expected metrics and the hash of test.per_user.parquet, found none"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path: Path, how: str, message: str) -> None:
    file = tmp_path / "test.per_user.parquet"
    write_per_user(file, small_table())
    damaged(file, how)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_per_user(file)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)
