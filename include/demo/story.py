"""The story: one act after another, every step a DAG run under Airflow's scheduler.

Nothing is done behind the scheduler's back: this process lays out, spoils and mends files as a source system would,
asks Airflow to run DAGs, waits, and reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.demo.airflow_api import Airflow, ApiError, Run
from include.demo.plan import Plan
from include.landing import flights

USE_CASE = "flights"
KINDS = ("ingest", "score", "monitor", "train", "rollback")
_LIMIT = 900.0
#: How long an asset event may take to start its run.
_EVENT = 60.0


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night: the run that ingested it and the run that scored it."""

    partition: str
    ingest: Run
    score: Run | None


@dataclass
class Played:
    """What happened, for the promises and the summary."""

    acts: list[tuple[str, float]] = field(default_factory=list)
    """Each act with its seconds."""
    history: Run | None = None
    nights: list[Night] = field(default_factory=list)
    bad: Night | None = None
    bad_before: dict[str, str] = field(default_factory=dict)
    """Digest of everything published just before the bad night ..."""
    bad_after: dict[str, str] = field(default_factory=dict)
    """... and just after it."""
    healed: Night | None = None
    ranges: list[tuple[tuple[str, str], Run, Run]] = field(default_factory=list)
    """Each range with its ingest run and its score run."""
    monitors: list[tuple[str, Run]] = field(default_factory=list)
    trainings: list[Run] = field(default_factory=list)
    asked_twice: tuple[Run, int, int] | None = None
    """The repeated monitor run, and the number of trainings before and after it."""
    repeat: Run | None = None
    repeat_before: dict[str, str] = field(default_factory=dict)
    repeat_after: dict[str, str] = field(default_factory=dict)


class Story:
    """Plays a plan.

    Args:
        published: digest of every published partition, read from the store: {"rows/2013-09-01": digest}.
        say: called with what is going on, a line at a time; `True` marks a line that the next one may replace.
    """

    def __init__(
        self,
        plan: Plan,
        airflow: Airflow,
        landing: Path,
        published: Callable[[], dict[str, str]],
        say: Callable[[str, bool], None],
    ) -> None:
        self.plan = plan
        self.airflow = airflow
        self.landing = landing
        self.published = published
        self.say = say
        self.played = Played()

    def play(self) -> Played:
        """Plays every act.

        Raises:
            ApiError: something did not go as the story needs, so that the rest makes no sense.
        """
        self.airflow.wait_for_dags({f"{USE_CASE}_{kind}" for kind in KINDS}, _LIMIT)
        self._history()
        self._first_training()
        self._nights()
        self._bad_night()
        self._ranges()
        self._drift()
        self._repeat()
        return self.played

    # -- acts ----------------------------------------------------------------------------------------------------

    def _history(self) -> None:
        low, high = self.plan.history
        with self._act(f"history {low} to {high}, one run"):
            self.played.history = self._run("ingest", **self._form((low, high)))

    def _first_training(self) -> None:
        as_of = self.plan.first_as_of
        with self._act(f"first training as of {as_of}"):
            run = self._run("train", as_of=as_of, reason="the first champion")
            self.played.trainings.append(run)
            if self.airflow.result(run, "promotion.promote") is None:
                gated = self.airflow.result(run, "promotion.gate") or {}
                raise ApiError(f"the first training gave no champion: {gated.get('record')}")

    def _nights(self) -> None:
        for partition in self.plan.nights:
            with self._act(f"night {partition}"):
                self.played.nights.append(self._night(partition))

    def _bad_night(self) -> None:
        bad, after = self.plan.bad, self.plan.after_bad
        with self._act(f"bad night {bad}: a broken column, repeated keys"):
            flights.spoil(self.landing, bad)
            self.played.bad_before = self.published()
            run = self._run("ingest", partition=bad, expect="failed")
            self.played.bad = Night(partition=bad, ingest=run, score=None)
            self.played.bad_after = self.published()
        with self._act(f"night {after}, unharmed"):
            self.played.nights.append(self._night(after))
        with self._act(f"the corrected file of {bad} lands"):
            flights.mend(self.landing, bad)
            self.played.healed = self._night(bad)

    def _ranges(self) -> None:
        """One ingest run and one scoring run a range, and a monitor run as of its end; the next range is ingested
        meanwhile."""
        spans = [*self.plan.ranges, self.plan.drifted]
        coming = self._trigger("ingest", **self._form(spans[0]))
        for index, (low, high) in enumerate(spans):
            with self._act(f"nights {low} to {high}, a run each to ingest, score and watch"):
                ingest = self._wait(coming, "success")
                if index + 1 < len(spans):
                    coming = self._trigger("ingest", **self._form(spans[index + 1]))
                score = self._run("score", **self._form((low, high)))
                self.played.ranges.append(((low, high), ingest, score))
                self._monitor(high)

    def _drift(self) -> None:
        high = self.plan.drifted[1]
        with self._act("the retraining that the monitor asked for"):
            known = {run.run_id for run in self.played.trainings}
            found = self.airflow.wait_for_run(f"{USE_CASE}_train", lambda run: run.run_id not in known, 15)
            if found:
                self.played.trainings.append(self._wait(found, "success"))
        with self._act(f"monitor as of {high}, once more"):
            before = len(self.airflow.runs(f"{USE_CASE}_train"))
            again = self._monitor(high)
            self.played.asked_twice = (again, before, len(self.airflow.runs(f"{USE_CASE}_train")))

    def _repeat(self) -> None:
        with self._act(f"night {self.plan.repeated} is scored again"):
            self.played.repeat_before = self.published()
            self.played.repeat = self._run("score", partition=self.plan.repeated)
            self.played.repeat_after = self.published()

    # -- moves ---------------------------------------------------------------------------------------------------

    def _night(self, partition: str) -> Night:
        earlier = {run.run_id for run in self.airflow.runs(f"{USE_CASE}_score")}
        ingest = self._run("ingest", partition=partition)
        score = self.airflow.wait_for_run(
            f"{USE_CASE}_score", lambda run: run.partition == partition and run.run_id not in earlier, _EVENT
        )
        if score is None:
            raise ApiError(f"the asset event of {partition} started no scoring run within {_EVENT:.0f} s")
        return Night(partition=partition, ingest=ingest, score=self._wait(score, "success"))

    def _monitor(self, as_of: str) -> Run:
        run = self._run("monitor", partition=as_of)
        self.played.monitors.append((as_of, run))
        return run

    def _run(self, kind: str, *, partition: str | None = None, expect: str = "success", **conf: Any) -> Run:
        return self._wait(self._trigger(kind, partition=partition, **conf), expect)

    def _trigger(self, kind: str, *, partition: str | None = None, **conf: Any) -> Run:
        return self.airflow.trigger(f"{USE_CASE}_{kind}", partition=partition, **conf)

    @staticmethod
    def _form(span: tuple[str, str]) -> dict[str, str]:
        return {"from": span[0], "to": span[1]}

    def _wait(self, run: Run, expect: str) -> Run:
        begun = time.monotonic()
        shown = 0.0

        def progress(now: Run) -> None:
            nonlocal shown
            waited = time.monotonic() - begun
            if waited - shown > 2:
                shown = waited
                states = self.airflow.states(now)
                done = sum(state in ("success", "skipped") for state in states.values())
                doing = ", ".join(sorted(task for task, state in states.items() if state == "running"))
                self.say(f"{now.dag_id}: {done} of {len(states)} tasks; {doing or 'waiting'} ({waited:.0f} s)", True)

        run = self.airflow.wait(run, _LIMIT, progress)
        if run.state != expect:
            wrong = ", ".join(task for task, state in self.airflow.states(run).items() if state == "failed")
            raise ApiError(f"{run.dag_id} {run.run_id} ended {run.state}, not {expect}; failed: {wrong or 'none'}")
        return run

    @contextmanager
    def _act(self, title: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self.played.acts.append((title, seconds))
        self.say(f"{title}: {seconds:.1f} s", False)
