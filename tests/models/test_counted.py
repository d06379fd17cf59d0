"""The models that learn by counting: what they count, and what every model must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blin.batch import Batch, Interactions
from blin.data.dataset import Dataset
from blin.data.loader import history_batch, training_interactions
from blin.errors import ConfigError, DataError
from blin.evaluation.evaluator import evaluate
from blin.models import BASELINES, MODELS
from blin.models import item_knn as item_knn_module
from blin.models.item_knn import ItemKNNConfig
from blin.models.popularity import RecentPopularityConfig
from reference import counting as reference

V = 6
SEQUENCES = [[1, 2, 3], [1, 2, 4, 1], [2, 3], [3, 5, 3, 3, 1, 2]]
TIMES = [[10, 20, 30], [0, 40, 50, 60], [90, 100], [10, 30, 55, 80, 95, 95]]
HISTORIES = [[1], [3, 1], [6], [5, 4, 3, 2, 1, 1, 2, 3], [], [2, 2]]


def interactions(sequences: list[list[int]], times: list[list[int]] | None = None) -> Interactions:
    items = torch.tensor([item for row in sequences for item in row], dtype=torch.int64)
    users = torch.tensor([user for user, row in enumerate(sequences) for _ in row])
    moments = None if times is None else torch.tensor([time for row in times for time in row])
    return Interactions(items, users.long(), moments)


def counted(
    name: str,
    sequences: list[list[int]] = SEQUENCES,
    times: list[list[int]] | None = TIMES,
    *,
    num_items: int = V,
    **settings: Any,
) -> Any:
    model = MODELS[name]
    module: Any = model.module(num_items, model.config(**settings))
    module.count(interactions(sequences, times))
    return module


def batch_of(model: Any, histories: list[list[int]]) -> Batch:
    items = np.array([item for history in histories for item in history], dtype=np.uint32)
    ends = np.cumsum([len(history) for history in histories])
    starts = ends - [len(history) for history in histories]
    return history_batch(items, starts, ends, model.batch_spec)


def scores(model: Any, history: list[int]) -> list[float]:
    return model.score(batch_of(model, [history]))[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BASELINES)
def test_candidates_score_as_in_the_whole_catalogue(name: str) -> None:
    model = counted(name)
    batch = batch_of(model, HISTORIES)
    candidates = torch.tensor([[1, 2, 6]] * 3 + [[3, 3, 4]] * 3)
    full = model.score(batch)
    assert full.shape == (len(HISTORIES), V + 1) and full.dtype == torch.float32
    assert torch.equal(model.score(batch, candidates), full.gather(1, candidates))


@pytest.mark.parametrize("name", BASELINES)
def test_a_row_scores_alone_as_among_others(name: str) -> None:
    """A row alone is as wide as its history: padding changes nothing either."""
    model = counted(name)
    together = model.score(batch_of(model, HISTORIES))
    for history, row in zip(HISTORIES, together, strict=True):
        assert torch.equal(model.score(batch_of(model, [history]))[0], row)


@pytest.mark.parametrize("name", BASELINES)
def test_scores_are_the_callers(name: str) -> None:
    """Masking the seen items writes into them."""
    model = counted(name)
    first = model.score(batch_of(model, HISTORIES))
    kept = first.clone()
    first[:] = -torch.inf
    assert torch.equal(model.score(batch_of(model, HISTORIES)), kept)


@pytest.mark.parametrize("name", BASELINES)
def test_without_a_history_the_most_popular_is_best(name: str) -> None:
    found = counted(name).score(batch_of(counted(name), [[]]))[0]
    assert torch.isfinite(found).all()
    assert int(found.argmax()) == (2 if name == "recent-popularity" else 3)


@pytest.mark.parametrize("name", BASELINES)
def test_counting_again_forgets_what_was_counted(name: str) -> None:
    model = counted(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.count(interactions([[6, 5, 4]], [[1, 2, 3]]))
    model.count(interactions(SEQUENCES, TIMES))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", BASELINES)
def test_the_counts_are_the_same_with_any_number_of_threads(
    small_dataset: Dataset, name: str
) -> None:
    states: list[dict[str, Tensor]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            model: Any = MODELS[name].module(small_dataset.num_items, MODELS[name].config())
            model.count(training_interactions(small_dataset))
            states.append(model.state_dict())
        finally:
            torch.set_num_threads(1)
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_popularity_counts() -> None:
    assert scores(counted("popularity"), [1, 1]) == [0, 4, 4, 5, 1, 1, 0]


def test_recent_popularity_counts_what_is_recent() -> None:
    # Times go from 0 to 100: the newest tenth begins at 90, with 90, 100, 95 and 95.
    found = scores(counted("recent-popularity", window=0.1), [1])
    assert [int(score) for score in found] == [0, 1, 2, 1, 0, 0, 0]
    # Items 1 and 3 are equal, and so are 4 and 5: all interactions decide.
    assert found[3] > found[1] and found[4] == found[5] > found[6]
    whole = scores(counted("recent-popularity", window=1.0), [1])
    assert [int(score) for score in whole] == [0, 4, 4, 5, 1, 1, 0]


def test_recent_popularity_needs_times() -> None:
    with pytest.raises(DataError, match="recent-popularity: expected interactions with times"):
        counted("recent-popularity", times=None)


def test_markov_counts_what_follows_inside_a_user() -> None:
    model = counted("markov")
    # 1 is followed by 2 three times; that user 1 ends with 1 and user 2 begins with 2 is nothing.
    after_one = scores(model, [4, 1])
    assert [int(score) for score in after_one] == [0, 0, 3, 0, 0, 0, 0]
    assert [int(score) for score in scores(model, [1, 3])] == [0, 1, 0, 1, 0, 1, 0]
    # Nothing follows item 6: popularity decides, and stays below one transition.
    alone = scores(model, [1, 6])
    assert max(alone) < 1
    assert alone == pytest.approx([0, 4 / 16, 4 / 16, 5 / 16, 1 / 16, 1 / 16, 0])


def test_item_knn_by_hand() -> None:
    sequences = [[1, 2, 3], [1, 3], [2, 1]]
    model = counted(
        "item-knn",
        sequences,
        num_items=4,
        max_distance=2,
        distance_decay=0.5,
        backward=0.0,
        shrinkage=1.0,
        recency_decay=0.25,
        max_len=2,
    )
    # Items 1, 2 and 3 are taken 3, 2 and 2 times. 1 → 2 once, 2 → 1 once, 2 → 3 once; 1 → 3 once
    # next to it, and once two steps on, which counts a half; nothing follows 3, the third newest.
    found = scores(model, [3, 1, 2])
    assert found[1] == pytest.approx(1 / (6**0.5 + 1))
    assert found[2] == pytest.approx(0.25 * 1 / (6**0.5 + 1))
    assert found[3] == pytest.approx(1 / (4**0.5 + 1) + 0.25 * 1.5 / (6**0.5 + 1))
    assert found[4] == 0


HISTORY = st.lists(st.integers(1, 5), max_size=6)
BINARY = st.sampled_from([0.5, 1.0])
"""Sums of these are exact in any order, so that ties are ties."""


@given(sequences=st.lists(HISTORY, min_size=1, max_size=6).filter(any), history=HISTORY)
def test_counts_are_those_of_the_definitions(
    sequences: list[list[int]], history: list[int]
) -> None:
    assert scores(counted("popularity", sequences, None), history) == reference.popularity(
        sequences, V
    )
    expected = reference.markov(sequences, V, history)
    assert scores(counted("markov", sequences, None), history) == pytest.approx(expected, rel=1e-6)


@given(
    rows=st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.integers(-3, 9)), max_size=5), min_size=1
    ).filter(any),
    window=st.sampled_from([0.01, 0.25, 0.5, 1.0]),
)
def test_recent_counts_are_those_of_the_definition(
    rows: list[list[tuple[int, int]]], window: float
) -> None:
    sequences = [[item for item, _ in row] for row in rows]
    times = [[time for _, time in row] for row in rows]
    expected = reference.recent_popularity(sequences, times, V, window=window)
    found = scores(counted("recent-popularity", sequences, times, window=window), [])
    assert found == pytest.approx(expected, rel=1e-6)


@given(
    sequences=st.lists(HISTORY, min_size=1, max_size=6).filter(any),
    history=HISTORY,
    settings=st.fixed_dictionaries(
        {
            "neighbours": st.integers(1, 4),
            "max_distance": st.integers(1, 7),
            "distance_decay": BINARY,
            "backward": st.sampled_from([0.0, 0.5, 1.0]),
            "shrinkage": st.sampled_from([0.0, 1.0, 60.0]),
            "max_len": st.integers(1, 4),
            "recency_decay": BINARY,
        }
    ),
    at_once=st.sampled_from([1, 7, 1 << 22]),
)
def test_item_knn_is_what_the_definition_gives(
    sequences: list[list[int]], history: list[int], settings: dict[str, Any], at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn_module, "PAIRS_AT_ONCE", at_once)
        model = counted("item-knn", sequences, None, **settings)
    model.similarities.check()
    expected = reference.item_knn(sequences, V, history, **settings)
    assert scores(model, history) == pytest.approx(expected, rel=1e-5, abs=0)


@given(sequences=st.lists(HISTORY, min_size=1, max_size=6).filter(any), history=HISTORY)
def test_popularity_never_beats_a_similarity(
    sequences: list[list[int]], history: list[int]
) -> None:
    model = counted("item-knn", sequences, None)
    kept = reference.similarities(
        sequences,
        V,
        neighbours=200,
        max_distance=10,
        distance_decay=0.8,
        backward=0.0,
        shrinkage=60.0,
    )
    similar = {item for one in history for item in kept[one]}
    found = scores(model, history)
    others = [found[item] for item in range(V + 1) if item not in similar]
    assert all(found[item] > max(others) for item in similar)
    shares = [reference.shares(sequences, V)[item] for item in range(V + 1) if item not in similar]
    assert np.array_equal(np.argsort(others, kind="stable"), np.argsort(shares, kind="stable"))


def test_a_catalogue_of_a_million_needs_no_square() -> None:
    """Of items and users alike: a dense matrix would be 4 TB."""
    size = 1_000_000
    draw = np.random.default_rng(0)
    items = torch.from_numpy(draw.integers(1, size + 1, 40_000))
    many = Interactions(items, torch.arange(40_000) // 8, torch.arange(40_000))
    for name in BASELINES:
        model: Any = MODELS[name].module(size, MODELS[name].config())
        model.count(many)
        found = model.score(batch_of(model, [items[:3].tolist()]))
        assert found.shape == (1, size + 1) and found[0, items[3]] > 0


def test_what_is_held_out_is_not_counted(small_dataset: Dataset) -> None:
    told = training_interactions(small_dataset)
    starts, ends = small_dataset.training_ranges()
    kept = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    assert np.array_equal(told.items.numpy(), small_dataset.items[kept])
    assert told.times is not None and small_dataset.timestamps is not None
    assert np.array_equal(told.times.numpy(), small_dataset.timestamps[kept])
    assert np.bincount(told.users.numpy()).tolist() == (ends - starts).tolist()


def test_the_order_of_the_baselines_is_what_the_log_suggests(small_dataset: Dataset) -> None:
    """Four of five items are followed by their successor."""
    ndcg = {}
    for name in BASELINES:
        model: Any = MODELS[name].module(small_dataset.num_items, MODELS[name].config())
        model.count(training_interactions(small_dataset))
        ndcg[name] = evaluate(model, small_dataset).metrics["NDCG@10"]
    assert min(ndcg["markov"], ndcg["item-knn"]) > 2 * ndcg["popularity"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": 0}, "neighbours: expected at least 1, found 0"),
        ({"max_distance": 0}, "max_distance: expected at least 1, found 0"),
        ({"max_len": 0}, "max_len: expected at least 1, found 0"),
        ({"distance_decay": 0.0}, r"distance_decay: expected a number in \(0, 1\], found 0.0"),
        ({"recency_decay": 1.5}, r"recency_decay: expected a number in \(0, 1\], found 1.5"),
        ({"backward": -0.1}, r"backward: expected a number in \[0, 1\], found -0.1"),
        ({"shrinkage": -1.0}, "shrinkage: expected at least 0, found -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ItemKNNConfig(**settings)


@pytest.mark.parametrize("window", [0.0, 1.1, -1.0])
def test_a_window_is_a_share(window: float) -> None:
    with pytest.raises(ConfigError, match=r"window: expected a number in \(0, 1\]"):
        RecentPopularityConfig(window=window)
