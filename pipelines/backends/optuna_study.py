"""A study in Optuna's tables: what was tried, what to try next, and when a trial is not worth going on with.

A trial is written once, in one transaction, when it has ended. So a process that is killed leaves no trial behind that
seems to be running, and several processes that search the same study at once (an attempt that was given up and its
retry) at worst do the same work twice: of two trials of one index the first counts.

What is tried next is a function of the seed, the trial's index and the trials that have ended or are running: the
sampler is made anew for every trial, so that a search which was interrupted proposes what it would have proposed.
"""

from __future__ import annotations

import fcntl
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UnavailableError, explain
from pipelines.records import Parameters, Trial
from pipelines.spec import FloatRange, Search, Teacher

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

#: Seconds that a writer waits for another one's lock on an SQLite file.
_LOCK_SECONDS = 60.0
#: Trials that must be complete before others are held against them.
_PRUNING_STARTS = 4
#: A range, or values to choose from.
Values = FloatRange | tuple[int | float | str, ...]
#: Fields of `Teacher` that are whole numbers.
_WHOLE = ("k", "width", "depth", "bins")


class Study:
    """The trials of one search."""

    def __init__(self, study: optuna.Study, where: str, search: Search, own: Teacher, seed: int) -> None:
        """Takes an opened study.

        Args:
            where: of the database, for messages.
            own: the spec's settings, tried first.
        """
        import optuna

        self._study = study
        self._where = where
        self._space: Mapping[str, Values] = {str(name): values for name, values in search.space.items()}
        self._distributions = {name: _distribution(name, values) for name, values in self._space.items()}
        self._own: Parameters = {name: getattr(own, name) for name in self._space}
        self._seed = seed
        self._pruner = optuna.pruners.MedianPruner(n_startup_trials=_PRUNING_STARTS)

    def read(self) -> tuple[dict[int, Trial], float]:
        """Every trial that has ended, by index, and the seconds of searching that they took together."""
        with _database(self._where):
            stored = self._study.get_trials(deepcopy=False)
        trials: dict[int, Trial] = {}
        seconds = 0.0
        for frozen in stored:
            kept = frozen.user_attrs
            if "trial" in kept:
                trial = Trial.model_validate(kept["trial"])
                trials.setdefault(trial.index, trial)
                seconds = max(seconds, kept["elapsed"])
        return dict(sorted(trials.items())), seconds

    def write(self, trial: Trial, elapsed: float) -> None:
        """Keeps a trial that has ended.

        Args:
            elapsed: seconds of searching until now, over restarts.
        """
        from optuna.trial import FrozenTrial

        ended = datetime.now().astimezone().replace(tzinfo=None)  # Optuna's own times are naive and local.
        parameters = self._inside(trial.parameters)
        frozen = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=_state(trial),
            value=trial.value if trial.state == "complete" else None,
            datetime_start=ended - timedelta(seconds=trial.seconds),
            datetime_complete=ended,
            params=parameters,
            distributions={name: self._distributions[name] for name in parameters},
            user_attrs={"trial": trial.model_dump(mode="json"), "elapsed": elapsed},
            system_attrs={},
            intermediate_values=dict(enumerate(trial.curve, 1)),
        )
        with _database(self._where):
            self._study.add_trial(frozen)

    def propose(self, index: int, others: Sequence[Trial]) -> Parameters:
        """What the trial of an index is to try: the spec's own settings first, then what TPE expects most of.

        TPE: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011; multivariate, and kept away from what
        is running (constant liar).

        Args:
            others: the trials that have ended or are running.
        """
        import optuna

        if index == 0:
            return self._own
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{index}".encode()).digest()[:4])
        scratch = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        # The spec's own settings may lie outside the space: then they tell the sampler nothing.
        known = [self._frozen(_worst(other)) for other in sorted(others, key=lambda other: other.index)]
        scratch.add_trials([frozen for frozen in known if len(frozen.params) == len(self._space)])
        return dict(scratch.ask(self._distributions).params)

    def worth(self, trial: Trial) -> bool:
        """Whether a running trial should go on: its best loss so far is no worse than the median, at the same epoch, of
        the trials that were completed. The first trial always goes on: it is what the others are to beat.
        """
        if trial.index == 0:
            return True
        with _database(self._where):
            return not self._pruner.prune(self._study, self._frozen(trial))

    def _inside(self, parameters: Parameters) -> Parameters:
        """Those that lie in the space: Optuna keeps no others."""
        return {name: value for name, value in parameters.items() if _holds(self._space[name], value)}

    def _frozen(self, trial: Trial) -> FrozenTrial:
        import optuna

        parameters = self._inside(trial.parameters)
        return optuna.trial.create_trial(
            state=_state(trial),
            value=trial.value if trial.state == "complete" else None,
            params=parameters,
            distributions={name: self._distributions[name] for name in parameters},
            intermediate_values=dict(enumerate(trial.curve, 1)),
        )


@contextmanager
def open_study(url: str, name: str, search: Search, own: Teacher, seed: int) -> Iterator[Study]:
    """Opens a study, or makes it; the tables too, and the folder of an SQLite file.

    Raises:
        UnavailableError: the database does not answer as it should.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    with _database(where):
        with _alone(url):
            storage = optuna.storages.RDBStorage(url, engine_kwargs=_engine(url))
        study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
    try:
        yield Study(study, where, search, own, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _engine(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": _LOCK_SECONDS}}
    # A database that was restarted between two trials, which may be hours apart, is connected to again.
    return {"pool_pre_ping": True}


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """One process at a time makes the tables of an SQLite file: two at once would fail."""
    if not url.startswith("sqlite:///"):
        yield
        return
    file = Path(url.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _database(where: str) -> Iterator[None]:
    import optuna
    import sqlalchemy.exc

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        said = str(error.__cause__ or error).splitlines()[0][:300]
        raise UnavailableError(
            explain(f"studies in {where}", said, remedy="see that the database answers; a retry may do")
        ) from None


def _distribution(name: str, values: Values) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, FloatRange):
        return CategoricalDistribution(values)
    if name in _WHOLE:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _holds(values: Values, value: int | float | str) -> bool:
    if isinstance(values, FloatRange):
        return not isinstance(value, str) and values.low <= value <= values.high
    return value in values


def _worst(trial: Trial) -> Trial:
    """Optuna's sampler looks away from trials that failed, and would propose their like again: to it a failed trial is
    one that was pruned before its first epoch, which is worse than any other.
    """
    return trial.model_copy(update={"state": "pruned", "curve": ()}) if trial.state == "failed" else trial


def _state(trial: Trial) -> TrialState:
    from optuna.trial import TrialState

    states: Mapping[str, TrialState] = {
        "running": TrialState.RUNNING,
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    return states[trial.state]
