"""Plays the nights of a drill: a champion, the landing zone with a fault, and what the chain says each morning."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines import __version__
from pipelines import partitions as keys
from pipelines.drills.faults import broken
from pipelines.drills.landing import write
from pipelines.errors import GateRefused, MissingInput, NotFoundError, QuarantinedError, explain
from pipelines.records import PlayedNight, RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase
from pipelines.spec.drills import Drill, Drills, LateLabels, Lost

_READY = "ready"
#: What a copy of a home does without: artifacts stay where MLflow says they are, the rest is made again.
_LEFT = shutil.ignore_patterns("artifacts", "checkpoints", "reports", "landing", "drills", _READY)

Tell = Callable[[str], None]


class Ground:
    """Where the drills of a use case are played: below `<home>/drills/<use case>`, apart from all that is real.

    Whatever the spec says, a drill keeps to Delta Lake and an MLflow of its own, delivers nothing, tells no channel and
    asks nobody for an approval.
    """

    def __init__(self, spec: UseCase, settings: Settings, drills: Drills) -> None:
        """Makes nothing yet."""
        alone = {"snapshot": "delta", "delivery": (), "alerts": (), "promotion": "automatic", "until": None}
        self.spec = spec.model_copy(update=alone)
        self.drills = drills
        self._settings = settings
        self._root = settings.home / "drills" / spec.name

    def base(self, tell: Tell) -> Path:
        """A home with the calm partitions and a champion of them; made once.

        Raises:
            NotFoundError: the landing zone lacks the calm partitions.
            GateRefused: no champion came of them.
        """
        told = json.dumps([self.spec.digest, self.drills.first, self.drills.last, __version__])
        home = self._root / f"base-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        home.mkdir(parents=True, exist_ok=True)
        with self._turn():
            ready = home / _READY  # and what was there then; an empty one is of a version that did not say
            if not ready.exists() or not ready.stat().st_size:
                shutil.rmtree(home)
                home.mkdir()
                self._make(home, tell)
                ready.write_text("\n".join(sorted(_artifacts(home))))
        return home

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One process at a time."""
        with (self._root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make(self, home: Path, tell: Tell) -> None:
        runtime = self.runtime(home, self._settings.landing_zone, "base")
        calm = runtime.span(self.drills.first, self.drills.last)
        tell(f"{len(calm)} calm partitions are ingested, then a champion is trained on them; this is done once")
        for table in runtime.tables():
            try:
                runtime.publish(runtime.validate(runtime.land(table, calm)))
            except MissingInput as error:
                remedy = f"`overnight data {self.spec.name}` lays out a shipped data set"
                raise NotFoundError(explain(f"{self.spec.name}: drills", str(error), remedy=remedy)) from error
        if runtime.challenge(self.drills.last, "the drills' base") is None:
            raise GateRefused(
                explain(
                    f"{self.spec.name}: drills",
                    f"the gates refuse a champion of {self.drills.first}..{self.drills.last}",
                    remedy="choose other calm partitions; without a champion there is nothing to watch",
                )
            )

    def stage(self, name: str, base: Path) -> Path:
        """A fresh copy of the base for one drill; what it left the last time is gone."""
        home = self._root / name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(base, home, ignore=_LEFT)
        return home

    def runtime(self, home: Path, landing: Path, run: str) -> Runtime:
        """The use case in this home, for a run of this name."""
        settings = Settings(
            project=self._settings.project, home=home, landing=landing, snapshots_uri=None, mlflow_uri=None
        )
        return Runtime(self.spec, settings, RunInfo(run_id=f"drill-{run}", dag_id="drill"))

    def play(self, name: str, base: Path, tell: Tell) -> list[PlayedNight]:
        """Plays one drill and gives what each of its nights came to. Another one of the use case waits for it.

        Args:
            name: of a drill.
            base: what `base` gave.
        """
        with self._turn():
            try:
                return self._play(name, base, tell)
            finally:  # MLflow keeps the artifacts of a copy's trainings where it keeps those of the base
                for path in _artifacts(base) - set((base / _READY).read_text().splitlines()):
                    shutil.rmtree(base / path)

    def _play(self, name: str, base: Path, tell: Tell) -> list[PlayedNight]:
        drill = self.drills.drills[name]
        home = self.stage(name, base)
        theirs = self.runtime(base, self._settings.landing_zone, "source")
        first = keys.shift(self.drills.last, 1, self.spec.granularity)
        last = keys.shift(first, drill.before + drill.nights + drill.after - 1, self.spec.granularity)
        played = []
        for number, partition in enumerate(theirs.span(first, last), start=1 - drill.before):
            night = self._night(home, theirs, drill, number, partition)
            played.append(night)
            tell(_line(night))
        return played

    def _night(self, home: Path, theirs: Runtime, drill: Drill, number: int, partition: str) -> PlayedNight:
        runtime = self.runtime(home, home / "landing", partition)
        held_back: list[str] = []
        for table in runtime.tables():
            if runtime.spec.tables[table].static:
                continue  # the base has it
            wanted = self._arrive(home, theirs, drill, number, table, runtime.keys(table, [partition]))
            if not wanted:
                continue
            lag = self.spec.tables[table].lag
            nights = [keys.shift(key, lag, self.spec.granularity) for key in wanted]  # on which each should come
            validated = runtime.validate(runtime.land(table, nights))
            held_back += [f"{table}/{entry.partition}" for entry in validated.quarantined]
            runtime.publish(validated)
        if runtime.published([partition]):
            try:
                runtime.publish_scores(runtime.audit_scores(runtime.score([partition])))
            except QuarantinedError:
                held_back.append(f"predictions/{partition}")
        observed = runtime.observe(partition)
        decision = runtime.decide(observed)
        told = runtime.alert(observed, decision)
        won = None
        if decision.retrain:
            won = runtime.challenge(decision.as_of, "; ".join(decision.reasons)[:500], decision.since)
        champion = runtime.champion()
        assert champion is not None
        return PlayedNight(
            night=number,
            partition=partition,
            quarantined=tuple(held_back),
            began=tuple(alert for alert in told if alert.state == "open"),
            ended=tuple(alert for alert in told if alert.state == "resolved"),
            open=tuple(alert.kind for alert in runtime.alerts.open()),
            decision=decision,
            trained=won.version if won is not None else None,
            champion=champion.version,
            live=observed.live,
            expected=observed.expected,
        )

    def _arrive(
        self, home: Path, theirs: Runtime, drill: Drill, number: int, table: str, due: Sequence[str]
    ) -> list[str]:
        """Puts the files of a night into the drill's landing zone, broken where the fault is; gives their partitions.

        A partition's own night decides whether it is broken: labels of the fault's last night are, though they come a
        night later.
        """
        fault, step = drill.fault, self.spec.granularity
        begin = keys.shift(self.drills.last, 1 + drill.before, step)
        if isinstance(fault, LateLabels) and table == self.spec.label.table:
            wanted = [key for key in due if not 1 <= _distance(begin, key, step) <= drill.nights]
            if number > fault.nights:
                back = [keys.shift(key, -fault.nights, step) for key in due]
                wanted += [key for key in back if 1 <= _distance(begin, key, step) <= drill.nights]
            due = wanted
        if isinstance(fault, Lost) and table == "rows" and 1 <= number <= drill.nights:
            return []
        for key in due:
            frame = theirs.source.read(self.spec, table, key).frame
            night = _distance(begin, key, step)
            if 1 <= night <= drill.nights:
                frame = broken(self.spec, fault, table, key, night, frame)
            write(home / "landing", self.spec.tables[table], key, frame)
        return list(due)


def _artifacts(home: Path) -> set[str]:
    """The folders of runs and of models below a home."""
    return {str(path.relative_to(home)) for path in home.glob("mlflow/artifacts/*/*")}


def _distance(begin: str, key: str, granularity: keys.Granularity) -> int:
    """Which night of those that begin there this is, from 1; 0 and less: before."""
    if key >= begin:
        return len(keys.span(begin, key, granularity))
    return 1 - (len(keys.span(key, begin, granularity)) - 1)


def _line(night: PlayedNight) -> str:
    parts = [f"{night.partition} night {night.night}"]
    parts += [f"held back {', '.join(night.quarantined)}"] if night.quarantined else []
    parts += [f"told {', '.join(alert.kind for alert in night.began)}"] if night.began else []
    parts += [f"over {', '.join(alert.kind for alert in night.ended)}"] if night.ended else []
    if night.decision.retrain:
        parts.append(f"retrained: {'refused' if night.trained is None else f'version {night.trained} is champion'}")
    return "; ".join(parts)
