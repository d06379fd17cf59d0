from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from blin import Blin, BlinError, Recommender, evaluate
from blin.data.dataset import Dataset, load_dataset
from blin.errors import CheckpointError, ConfigError, DataError
from blin.inference import recommend
from blin.inference.recommend import recommend_all, recommend_histories, recommend_users
from small import SMALL


@pytest.fixture(scope="module")
def model(small_dataset: Dataset) -> Blin:
    return Blin(device="cpu", threads=1, **SMALL).fit(small_dataset)


def test_recommendations_have_raw_ids_and_are_ordered(model: Blin, small_dataset: Dataset) -> None:
    table = model.recommend(users=["u3", "u7"], k=4)
    assert table.column_names == ["user_id", "item_id", "score", "rank"]
    rows = table.to_pylist()
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        (user, rank) for user in ("u3", "u7") for rank in (1, 2, 3, 4)
    ]
    assert all(a["score"] >= b["score"] for a, b in zip(rows[:3], rows[1:4], strict=True))
    known = set(small_dataset.item_ids.ids.to_pylist())
    assert {row["item_id"] for row in rows} <= known


def seen(dataset: Dataset, user: str) -> set[str]:
    index = dataset.user_ids.index_of(user)
    assert index is not None
    return {dataset.item_ids.raw(int(item)) for item in dataset.sequence(index)}


def test_seen_items_come_only_when_asked_for(model: Blin, small_dataset: Dataset) -> None:
    everything = small_dataset.num_items
    without = model.recommend(users=["u3"], k=everything).to_pylist()
    had = seen(small_dataset, "u3")
    assert not had & {row["item_id"] for row in without}
    assert len(without) == everything - len(had)
    including = model.recommend(users=["u3"], k=everything, include_seen=True).to_pylist()
    assert len({row["item_id"] for row in including}) == everything


def test_a_history_gets_what_its_user_gets(model: Blin, small_dataset: Dataset) -> None:
    index = small_dataset.user_ids.index_of("u5")
    assert index is not None
    history = [small_dataset.item_ids.raw(int(item)) for item in small_dataset.sequence(index)]
    by_user = model.recommend(users=["u5"], k=5).to_pylist()
    by_history = model.recommend(histories=[history], k=5).to_pylist()
    assert [row["item_id"] for row in by_user] == [row["item_id"] for row in by_history]


def test_unknown_items_are_left_out_and_told(model: Blin) -> None:
    mixed = recommend_histories(model.trained, [["i3", "nothing", "i9"], ["?"]], k=3)
    assert mixed.unknown_items == ["nothing", "?"]
    plain = recommend_histories(model.trained, [["i3", "i9"], []], k=3)
    assert mixed.rows() == plain.rows()


def test_nobody_gets_an_empty_table(model: Blin) -> None:
    assert model.recommend(users=[]).num_rows == model.recommend(histories=[]).num_rows == 0


def test_an_unknown_user_is_an_error(model: Blin, small_dataset: Dataset) -> None:
    with pytest.raises(DataError, match='no user "nobody"'):
        recommend_users(model.trained, small_dataset, ["nobody"])


def test_everybody_gets_the_same_as_alone(
    model: Blin, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend, "SCORES_AT_ONCE", 1000)
    tables = list(recommend_all(model.trained, small_dataset, k=3))
    assert len(tables) > 1
    rows = pa.concat_tables(tables).to_pylist()
    assert len(rows) == 3 * small_dataset.num_users
    alone = model.recommend(users=["u9"], k=3).to_pylist()
    among = [row for row in rows if row["user_id"] == "u9"]
    for one, other in zip(among, alone, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), rel=1e-5)
        assert one == other


def test_a_saved_model_recommends_the_same(model: Blin, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    loaded = Blin.from_pretrained(tmp_path / "model", device="cpu")
    history = [["i3", "i9"]]
    assert loaded.recommend(histories=history).equals(model.recommend(histories=history))
    with pytest.raises(BlinError, match="knows no users"):
        loaded.recommend(users=["u3"])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "items.parquet",
        "model.safetensors",
    ]


def test_a_loaded_model_can_be_fitted_again(
    model: Blin, small_dataset: Dataset, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = Blin.from_pretrained(tmp_path, device="cpu").fit(small_dataset)
    assert again.result is not None


def test_the_estimator_can_be_evaluated(model: Blin, small_dataset: Dataset) -> None:
    assert model.result is not None
    assert evaluate(model, small_dataset).metrics == model.result.metrics


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A model of a table whose ids are integers."""
    users = [user for user in range(6) for _ in range(5)]
    items = [(user + step) % 9 for user in range(6) for step in range(5)]
    table = pa.table({"user": users, "item": items})
    dataset = load_dataset(
        table, name="numbered", data_dir=tmp_path_factory.mktemp("data"), min_interactions=1
    )
    return Recommender("markov").fit(dataset)


def test_ids_are_text_or_integers_of_any_library(numbered: Recommender) -> None:
    expected = numbered.recommend(histories=[["3", "6"], ["4"]], k=3)
    for histories in (
        [[3, 6], [4]],
        [np.array([3, 6]), np.array(["4"])],
        [pa.array([3, 6]), pa.array(["4"])],
        pa.array([["3", "6"], ["4"]]),
        iter([iter([3, 6]), (4,)]),
    ):
        assert numbered.recommend(histories=histories, k=3).equals(expected)
    square = np.array([[3, 6], [4, 1]])
    assert numbered.recommend(histories=square).equals(
        numbered.recommend(histories=square.tolist())
    )
    expected = numbered.recommend(users=["3", "1"], k=3)
    for users in ([3, 1], np.array([3, 1]), pa.array([3, 1]), pa.array(["3", "1"])):
        assert numbered.recommend(users=users, k=3).equals(expected)
    session, same = numbered.session(), numbered.session()
    session.push(3, 6)
    same.push("3", "6")
    assert (session.length, session.top(3)) == (2, same.top(3))


@pytest.mark.parametrize("wrong", [3.0, True, None, b"3", ["3"]])
def test_what_is_no_id_is_refused(numbered: Recommender, wrong: object) -> None:
    for arguments in ({"users": ["3", wrong]}, {"histories": [["3", wrong]]}):
        with pytest.raises(ConfigError, match="expected raw ids, each a text, found"):
            numbered.recommend(**arguments)


@pytest.mark.parametrize("wrong", ["3", b"3", pa.scalar("3"), 3, None, pa.scalar(None)])
def test_what_is_no_list_of_ids_is_refused(numbered: Recommender, wrong: object) -> None:
    with pytest.raises(ConfigError, match="history: expected a list of ids, found"):
        numbered.recommend(histories=[["3"], wrong])  # type: ignore[list-item]
    if wrong is not None:
        with pytest.raises(ConfigError, match="users: expected a list of ids, found"):
            numbered.recommend(users=wrong)  # type: ignore[arg-type]


def test_a_file_is_no_directory(model: Blin, small_dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="path: expected a directory, found the file"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(ConfigError, match="runs_dir: expected a directory, found the file"):
        Blin().fit(small_dataset, runs_dir=tmp_path / "file")
    with pytest.raises(ConfigError, match="threads: expected at least 1, found 0"):
        Blin(threads=0)
    with pytest.raises(ConfigError, match="threads: expected a whole number, found '2'"):
        Blin(threads="2")  # type: ignore[arg-type]


def test_what_cannot_be_written_is_one_line(
    model: Blin, small_dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "saved" / "config.json").mkdir(parents=True)
    for path in (tmp_path / "file" / "below", tmp_path / "saved"):
        with pytest.raises(BlinError, match=str(tmp_path)) as error:
            model.save_pretrained(path)
        assert "\n" not in str(error.value)
    with pytest.raises(BlinError, match="file/runs"):
        Recommender("markov").fit(small_dataset, runs_dir=tmp_path / "file" / "runs")


@pytest.mark.parametrize("error", [ConnectionError("no network"), FileNotFoundError(2, "no", "x")])
def test_what_a_callback_raises_is_not_ours(small_dataset: Dataset, error: OSError) -> None:
    def tell(event: object) -> None:
        raise error

    with pytest.raises(OSError) as caught:
        Blin(**SMALL).fit(small_dataset, on_event=tell)
    assert caught.value is error


def test_misuse_is_named(model: Blin, tmp_path: Path) -> None:
    with pytest.raises(BlinError, match="not trained yet"):
        Blin().recommend(histories=[["i3"]])
    with pytest.raises(BlinError, match="either users or histories"):
        model.recommend()
    with pytest.raises(ConfigError, match='unknown setting "dims"; did you mean "dim"?'):
        Blin(dims=3)
    with pytest.raises(ConfigError, match="k: expected at least 1, found 0"):
        model.recommend(histories=[["i3"]], k=0)
    for wrong in (2.0, "2", True, None):
        with pytest.raises(ConfigError, match="k: expected a whole number, found"):
            model.recommend(histories=[["i3"]], k=wrong)
        with pytest.raises(ConfigError, match="k: expected a whole number, found"):
            model.session().top(wrong)
    with pytest.raises(ConfigError, match="histories: expected lists of ids, found 3"):
        model.recommend(histories=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="users: expected a list of ids, found the text 'u3'"):
        model.recommend(users="u3")
    with pytest.raises(ConfigError, match="history: expected a list of ids, found the text 'i3'"):
        model.recommend(histories=["i3"])
    with pytest.raises(CheckpointError, match="config.json"):
        Blin.from_pretrained(tmp_path)
