"""Points that are chosen one after the other, by what the earlier ones came to (Optuna)."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from blin.data.dataset import Dataset
from blin.errors import BlinError, ConfigError, reason_of
from blin.experiments.outcomes import Outcome
from blin.experiments.points import Point, Range, Trial, check, text_of
from blin.experiments.results import Results
from blin.files import lock
from blin.training.trainer import METRIC, setting_classes

if TYPE_CHECKING:
    import optuna

STORAGE = "optuna.log"

_LOCK = "optuna.lock"

_REFUSED_BEFORE_CHANCE = 10
"""Points in a row that cannot be trained, until the next are drawn by chance alone."""

_MOST_REFUSED = 200
"""Points in a row that cannot be trained, until no more are asked for."""


@dataclass
class _Asked:
    """A point that Optuna chose.

    Attributes:
        number: its number there; None if it knows already what the point came to.
        left: trainings that have not ended.
        values: of those that are finished.
        failed: whether one of them failed.
    """

    number: int | None
    left: int
    values: list[float] = field(default_factory=list)
    failed: bool = False


def require_optuna() -> None:
    """Raises BlinError where Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise BlinError(
            f"a search needs Optuna, which cannot be imported ({error}): "
            "pip install 'blin-rec[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """A schedule that asks Optuna for the next point and tells it what the last one came to.

    What it told and was told is kept in ``optuna.log`` in the directory, so that the same search
    goes on where it was stopped: points that were begun come first. The n-th point depends on those
    that were finished when it was asked for, on nothing else. Until it is closed, by leaving its
    ``with`` block, no other search can go on in the directory. Values that do not go together are
    no point: others are asked for.

    Args:
        directory: where it is kept; it is made if need be.
        dataset: what is learned from.
        model: a key of ``MODELS``.
        base: settings that all points share.
        space: for each setting its values or their range.
        seeds: of each point; its value is the mean over them.
        points: how many there are to be, those of earlier calls included.
        results: to which the points are added, and those that failed in earlier calls.

    Raises:
        ConfigError: A setting cannot have such values, or the directory has another search.
        BlinError: Optuna is not installed, what is kept cannot be read, or another search goes on
            in the directory.
    """

    def __init__(
        self,
        directory: Path,
        dataset: Dataset,
        *,
        model: str,
        base: Mapping[str, object],
        space: Mapping[str, Sequence[object] | Range],
        seeds: Sequence[int],
        points: int,
        results: Results,
    ) -> None:
        require_optuna()
        from optuna.trial import TrialState

        self._dataset, self._model, self._base = dataset, model, base
        self._seeds, self._most, self._results = tuple(seeds), points, results
        self._space = {name: _distribution(model, name, values) for name, values in space.items()}
        self._pending: deque[Trial] = deque()
        self._asked: dict[str, _Asked] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = lock(directory / _LOCK, what=str(directory), use="is searching there")
        try:
            self._study = self._open(directory)
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self._is_whole(trial):
                    self._study.tell(trial.number, state=TrialState.FAIL)
            self._begun = deque(self._trials(TrialState.RUNNING))
            for trial in self._trials(TrialState.FAIL):
                if self._refusal(trial.params) is None:
                    name = self._name(trial.number, trial.params)
                    results.failures[name] = "it failed in an earlier call, and is not tried again"
            for trial in self._trials(TrialState.COMPLETE):
                # Their runs are finished: they are found again, not trained again.
                self._add(trial.number, trial.params, finished=True)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Search:
        """Returns itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Lets others search in the directory."""
        self._lock.close()

    def next(self) -> Trial | None:
        """Returns the next training, or None when there are no more."""
        while not self._pending:
            if self._begun:
                trial = self._begun.popleft()
                self._add(trial.number, trial.params)
                continue
            asked = self._trials()
            refusals = [self._refusal(trial.params) for trial in asked]
            if refusals.count(None) >= self._most:
                return None
            in_a_row = len(list(takewhile(bool, reversed(refusals))))
            if in_a_row >= _MOST_REFUSED:
                why = f"none of {in_a_row} points in a row can be trained; the last: {refusals[-1]}"
                self._results.failures["the search"] = why
                return None
            self._study.sampler = self._sampler(len(asked), in_a_row)
            new = self._study.ask(self._space)
            self._add(new.number, new.params)
        return self._pending.popleft()

    def ended(self, trial: Trial, outcome: Outcome | None) -> None:
        """Tells Optuna the mean over the seeds once all trainings of a point have ended."""
        import optuna

        asked = self._asked[trial.point]
        asked.left -= 1
        if outcome is None:
            asked.failed = True
        else:
            asked.values.append(outcome.valid[METRIC])
        if asked.left or asked.number is None:
            return
        if asked.failed:
            self._study.tell(asked.number, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked.number, fmean(asked.values))

    def _open(self, directory: Path) -> optuna.Study:
        """Returns what was asked and told so far in a directory."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        file = directory / STORAGE
        _mend(file)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file))),
                study_name="sweep",
                direction="maximize",
                load_if_exists=True,
            )
        except OSError:
            raise
        except Exception as error:  # Optuna does not check what it reads
            raise BlinError(
                f"{file}: expected a search of Optuna, found: {reason_of(error)}: give this one "
                "another --name, or remove the file"
            ) from error
        definition = self._definition()
        found = study.user_attrs.get("definition", definition)
        if found != definition:
            raise ConfigError(f"{directory}: it has another search; give this one another --name")
        study.set_user_attr("definition", definition)
        return study

    def _trials(self, *states: optuna.trial.TrialState) -> list[optuna.trial.FrozenTrial]:
        """Returns what was asked for, or what of it is in one of the states."""
        found = self._study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if self._is_whole(trial)]

    def _is_whole(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Returns whether Optuna wrote all values of a point: it writes them one by one."""
        return self._space.keys() <= trial.params.keys()

    def _name(self, number: int, params: Mapping[str, Any]) -> str:
        """Returns what a point is called."""
        changes = " ".join(f"{name}={_short(params[name])}" for name in self._space)
        return f"{number}: {changes}"

    def _add(self, number: int, params: Mapping[str, Any], *, finished: bool = False) -> None:
        """Queues the trainings of a point."""
        import optuna

        name = self._name(number, params)
        point = Point(name, self._model, {**self._base, **params}, self._seeds)
        if self._refusal(params) is not None:
            if not finished:
                self._study.tell(number, state=optuna.trial.TrialState.FAIL)
            return
        self._results.points.append(point)
        trials = point.trials(self._dataset)
        self._pending.extend(trials)
        self._asked[point.name] = _Asked(None if finished else number, len(trials))

    def _refusal(self, params: Mapping[str, Any]) -> str | None:
        """Returns why values cannot be trained with: good ones may not go together."""
        try:
            check([Point(self._model, self._model, {**self._base, **params}, self._seeds)])
        except ConfigError as error:
            return str(error)
        return None

    def _sampler(self, asked: int, refused: int) -> optuna.samplers.BaseSampler:
        # A seed for each point: one for all would begin anew whenever the search goes on.
        from optuna.samplers import RandomSampler, TPESampler

        if refused >= _REFUSED_BEFORE_CHANCE:
            # TPE chooses each value alone, and may never come to those that go together.
            return RandomSampler(seed=asked)
        return TPESampler(seed=asked, constant_liar=True)

    def _definition(self) -> str:
        """Returns what must be equal for a search to go on."""
        about = {
            "fingerprint": self._dataset.fingerprint,
            "model": self._model,
            "base": dict(self._base),
            "space": {name: repr(values) for name, values in self._space.items()},
            "seeds": list(self._seeds),
        }
        return json.dumps(about, sort_keys=True)


def _mend(file: Path) -> None:
    """Removes what a process left that was killed: half a line, and Optuna's own lock."""
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    if file.is_file() and not (content := file.read_bytes()).endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _distribution(
    model: str, name: str, values: Sequence[object] | Range
) -> optuna.distributions.BaseDistribution:
    """Returns what Optuna chooses from."""
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(list(values))  # type: ignore[arg-type]
    defaults = {
        field.name: field.default for cls in setting_classes(model) for field in fields(cls)
    }
    kind = type(defaults.get(name))
    low, high = values.low, values.high
    if kind is int and low == int(low) and high == int(high):
        return distributions.IntDistribution(int(low), int(high), log=values.log)
    if kind is float:
        return distributions.FloatDistribution(low, high, log=values.log)
    if name not in defaults:
        check([Point("base", model, {name: low}, (0,))])
    raise ConfigError(f"{name}: expected values with commas between them, found {low}..{high}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text_of(value)
