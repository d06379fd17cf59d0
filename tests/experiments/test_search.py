"""A search asks for points, hears what they come to, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("optuna")

from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError
from blin.experiments import search as searching
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Range
from blin.experiments.results import Results
from blin.experiments.search import STORAGE, Search
from blin.training.trainer import METRIC

SPACE = {"dim": Range(8, 32), "dropout": Range(0.1, 0.5), "padding": ["zero", "repeat"]}


def search_in(
    place: Path, dataset: Dataset, *, points: int, results: Results | None = None, **changed: object
) -> Search:
    options = {"model": "blin", "base": {"num_heads": 1}, "space": SPACE, "seeds": (0, 1)}
    return Search(
        place,
        dataset,
        points=points,
        results=results or Results(),
        **{**options, **changed},  # type: ignore[arg-type]
    )


def outcome(value: float) -> Outcome:
    return Outcome(Path("run"), 3, 2, 1.0, {METRIC: value}, {METRIC: value})


def answer(search: Search, *, most: int = 1000) -> list[tuple[int, float, str]]:
    """Trains one after the other, in thought: more dropout does better."""
    seen = []
    with search:
        while len(seen) < most and (trial := search.next()) is not None:
            search.ended(trial, outcome(float(str(trial.settings["dropout"]))))
            at = trial.settings
            seen.append((int(str(at["dim"])), float(str(at["dropout"])), str(at["padding"])))
    return seen


def test_a_search_that_is_stopped_asks_what_it_would_have_asked(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    whole = answer(search_in(tmp_path / "whole", small_dataset, points=24))
    assert len(whole) == 48 and whole[0::2] == whole[1::2]
    assert len(set(whole)) == 24
    assert all(8 <= dim <= 32 and 0.1 <= dropout <= 0.5 for dim, dropout, _ in whole)
    late, early = (sum(d for _, d, _ in part) / len(part) for part in (whole[28:], whole[:20]))
    assert late > early

    # Stopped after five points and one of two seeds of the sixth.
    place = tmp_path / "stopped"
    assert answer(search_in(place, small_dataset, points=24), most=11) == whole[:11]
    results = Results()
    again = answer(search_in(place, small_dataset, points=24, results=results))
    assert len(results.points) == 24
    # Finished points come first: their runs are found, not trained again.
    assert again[:10] == whole[:10]
    assert again[10:12] == whole[10:12]
    assert again == whole


def test_a_point_of_which_a_training_fails_is_not_chosen_by(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    with search_in(tmp_path, small_dataset, points=2) as search:
        first, second = search.next(), search.next()
        assert first is not None and second is not None and first.point == second.point
        search.ended(first, outcome(0.3))
        search.ended(second, None)
        third = search.next()
        assert third is not None and third.point.startswith("1: ")
    results = Results()
    with search_in(tmp_path, small_dataset, points=2, results=results) as again:
        assert (trial := again.next()) is not None and trial.point.startswith("1: ")
        assert again.next() is not None and again.next() is None
    assert list(results.failures) == [first.point]


def test_values_that_do_not_go_together_are_no_point(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    space = {"dim": [9, 16], "num_heads": [2, 3]}
    for points in (12, 12, 14):
        results = Results()
        with search_in(
            tmp_path,
            small_dataset,
            points=points,
            space=space,
            base={},
            seeds=(0,),
            results=results,
        ) as search:
            while (trial := search.next()) is not None:
                assert int(str(trial.settings["dim"])) % int(str(trial.settings["num_heads"])) == 0
                search.ended(trial, outcome(0.1))
        assert (len(results.points), results.failures) == (points, {})
    last = results.points[-1].name
    assert int(last.partition(":")[0]) >= points, "there was nothing to refuse"


def test_a_search_ends_where_no_values_go_together(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_MOST_REFUSED", 5)
    results, space = Results(), {"dim": [9, 15], "num_heads": [2, 4]}
    with search_in(
        tmp_path, small_dataset, points=3, space=space, base={}, results=results
    ) as search:
        assert search.next() is None and search.next() is None
    assert results.points == []
    why = results.failures["the search"]
    assert why.startswith("none of 5 points in a row can be trained; the last: ")
    assert "divisor" in why


def test_another_search_is_not_gone_on_with(small_dataset: Dataset, tmp_path: Path) -> None:
    answer(search_in(tmp_path, small_dataset, points=1))
    assert len(answer(search_in(tmp_path, small_dataset, points=2))) == 4
    for changed in (
        {"seeds": (0,)},
        {"base": {}},
        {"model": "blin-d"},
        {"space": {"dim": Range(8, 33)}},
    ):
        with pytest.raises(ConfigError, match="has another search"):
            search_in(tmp_path, small_dataset, points=2, **changed)


@pytest.mark.parametrize(
    "content", [b"no journal\n", b"\xff\xfe\n", b"[1]\n", b"null\n", b"{}\n", b'{"op_code": 99}\n']
)
def test_what_is_no_search_is_said_in_one_line(
    small_dataset: Dataset, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / STORAGE).write_bytes(content)
    with pytest.raises(
        BlinError, match=f"{STORAGE}: expected a search of Optuna, found: "
    ) as error:
        search_in(tmp_path, small_dataset, points=2)
    assert "\n" not in str(error.value)


def test_a_search_that_was_killed_while_it_wrote_goes_on(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    whole = answer(search_in(tmp_path / "whole", small_dataset, points=6))
    written = (tmp_path / "whole" / STORAGE).read_bytes()
    for lost in (1, 40, 400, len(written)):
        place = tmp_path / f"killed-{lost}"
        place.mkdir()
        (place / STORAGE).write_bytes(written[: len(written) - lost])
        (place / f"{STORAGE}.lock").symlink_to(STORAGE)  # Optuna's, as it lies there then
        assert answer(search_in(place, small_dataset, points=6)) == whole
        # It is whole again: what was written since begins lines of its own.
        assert answer(search_in(place, small_dataset, points=6)) == whole


def test_two_do_not_search_in_one_place_at_once(small_dataset: Dataset, tmp_path: Path) -> None:
    with (
        search_in(tmp_path, small_dataset, points=2),
        pytest.raises(BlinError, match=r"process \d+ is searching there: wait until it ends"),
    ):
        search_in(tmp_path, small_dataset, points=2)
    assert len(answer(search_in(tmp_path, small_dataset, points=2))) == 4


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("padding", Range(0, 1), "padding: expected values with commas between them"),
        ("dim", Range(8.5, 16), "dim: expected values with commas"),
        ("dims", Range(8, 16), 'unknown setting "dims"; did you mean "dim"?'),
    ],
)
def test_what_has_no_range_is_refused(
    small_dataset: Dataset, tmp_path: Path, name: str, values: Range, message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        search_in(tmp_path, small_dataset, points=2, space={name: values})


def test_whole_numbers_stay_whole_and_some_ranges_are_logarithmic(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    space = {"dim": Range(8, 4096, log=True), "learning_rate": Range(1e-5, 0.1, log=True)}
    rates = []
    with search_in(tmp_path, small_dataset, points=9, space=space, base={"num_heads": 1}) as search:
        while (trial := search.next()) is not None:
            assert isinstance(trial.settings["dim"], int)
            rates.append(float(str(trial.settings["learning_rate"])))
            search.ended(trial, outcome(0.1))
    assert sum(rate < 0.01 for rate in rates) > len(rates) / 2
