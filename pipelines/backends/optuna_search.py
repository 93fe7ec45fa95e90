"""Searcher on Optuna: trials in worker processes of this machine, the study in SQLite beside MLflow or in a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.backends.optuna_study import Study, open_study
from pipelines.backends.trial_workers import PROGRAM, Crew, Worker
from pipelines.errors import TrainingError, UnavailableError, explain
from pipelines.ports import OnTrial
from pipelines.records import SearchResult, Trial
from pipelines.spec import Teacher, UseCase

if TYPE_CHECKING:
    from pydantic import SecretStr


class OptunaSearcher:
    """Proposes settings by TPE and ends trials by the median of the others."""

    def __init__(
        self,
        url: SecretStr,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Sets where studies are.

        Args:
            url: SQLAlchemy URL of the database.
            threads: processor threads of all trials together; the cores that the scheduler grants when absent.
            clock: seconds that only grow, for the budget in minutes.
            program: what a worker runs; see `pipelines.training.trial_worker`.
        """
        self._url = url
        self._threads = threads or len(os.sched_getaffinity(0))
        self._clock = clock
        self._program = program

    def search(self, spec: UseCase, data: Path, study: str, on_trial: OnTrial) -> SearchResult:
        """See `Searcher.search`."""
        asked, training = spec.training.search, spec.training
        with open_study(self._url.get_secret_value(), study, asked, training.teacher, training.seed) as opened:
            before, spent = opened.read()
            for trial in before.values():
                on_trial(trial)
            size = max(1, min(asked.parallel, asked.trials - len(before)))
            # The same share however many trials are left: the number of threads is part of a trial's last bits.
            share = max(1, self._threads // asked.parallel)
            with Crew(spec, data, size, share, self._program) as crew:
                _Search(spec, opened, crew, size, self._clock, spent, on_trial).go_on()
            trials, spent = opened.read()
        return _result(spec, study, list(trials.values()), spent)


class _Search:
    """The trials of one call."""

    def __init__(
        self,
        spec: UseCase,
        study: Study,
        crew: Crew,
        size: int,
        clock: Callable[[], float],
        spent: float,
        on_trial: OnTrial,
    ) -> None:
        self._spec, self._study, self._crew, self._size, self._on_trial = spec, study, crew, size, on_trial
        self._clock, self._begun, self._spent = clock, clock(), spent
        self._running: dict[Worker, tuple[Trial, float]] = {}

    def go_on(self) -> None:
        """Until the budget is spent and every trial has ended."""
        while self._fill() or self._running:
            worker, message = self._crew.hear()
            self._heard(worker, message)

    @property
    def _elapsed(self) -> float:
        return self._spent + self._clock() - self._begun

    def _fill(self) -> bool:
        """Begins as many trials as the budget and the workers allow; whether there were any."""
        asked = self._spec.training.search
        begun = False
        while len(self._running) < self._size:
            if asked.minutes is not None and self._elapsed >= 60 * asked.minutes:
                break
            ended, _ = self._study.read()
            known = ended | {trial.index: trial for trial, _ in self._running.values()}
            index = next((index for index in range(asked.trials) if index not in known), None)
            if index is None:
                break
            parameters = self._study.propose(index, list(known.values()))
            trial = Trial(index=index, state="running", parameters=parameters)
            self._on_trial(trial)
            worker = self._crew.idle(list(self._running))
            self._running[worker] = trial, self._clock()
            worker.begin(_settings(self._spec.training.teacher, parameters))
            begun = True
        return begun

    def _heard(self, worker: Worker, message: dict[str, Any] | None) -> None:
        if worker not in self._running:
            return  # It died after its trial had ended, before it was given another.
        trial, begun = self._running[worker]
        match message:
            case {"ready": True}:
                worker.ready = True
                self._running[worker] = trial, self._clock()  # reading the data is no part of the trial
            case {"unfit": why}:
                raise TrainingError(why)
            case {"validation": value}:
                trial = trial.model_copy(update={"curve": (*trial.curve, value)})
                self._running[worker] = trial, begun
                worker.go_on(self._study.worth(trial))
            case {"value": value, "epoch": epoch, "pruned": pruned}:
                state = "pruned" if pruned else "complete"
                self._end(worker, {"state": state, "value": value, "epoch": epoch})
            case {"failed": why}:
                self._end(worker, {"state": "failed", "error": why})
            case None if not worker.ready:
                raise UnavailableError(explain("a trial's worker", f"{worker.epitaph()}, before it had read the data"))
            case None:
                self._end(worker, {"state": "failed", "error": worker.epitaph()})
            case _:
                raise AssertionError(f"a worker said {message}")

    def _end(self, worker: Worker, outcome: dict[str, Any]) -> None:
        trial, begun = self._running.pop(worker)
        ended = trial.model_copy(update={**outcome, "seconds": round(self._clock() - begun, 3)})
        self._study.write(ended, self._elapsed)
        self._on_trial(ended)


def _settings(own: Teacher, parameters: dict[str, Any]) -> Teacher:
    return Teacher.model_validate({**own.model_dump(), **parameters})


def _result(spec: UseCase, study: str, trials: Sequence[Trial], seconds: float) -> SearchResult:
    asked = spec.training.search
    scored = [
        (trial.value, trial.index, trial) for trial in trials if trial.state == "complete" and trial.value is not None
    ]
    if not scored:
        reasons = sorted({trial.error for trial in trials if trial.error})
        raise TrainingError(
            explain(
                f"{spec.name}: search {study}",
                f"none of {len(trials)} trials was completed: {'; '.join(reasons)[:1000]}",
                remedy="narrow training.search.space, or look for absurd labels",
            )
        )
    value, index, best = min(scored, key=lambda entry: entry[:2])
    return SearchResult(
        study=study,
        parameters=best.parameters,
        trial=index,
        value=value,
        own_value=next((value for value, index, _ in scored if index == 0), None),
        complete=len(scored),
        pruned=sum(trial.state == "pruned" for trial in trials),
        failed=sum(trial.state == "failed" for trial in trials),
        seconds=round(seconds, 3),
        trials=asked.trials,
        minutes=asked.minutes,
    )
