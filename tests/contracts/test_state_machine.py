"""Whatever runs do to a table, in whatever order: it reads like a dictionary, and its past never changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipelines.errors import ConflictError, NotFoundError
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Publication, RunInfo, SnapshotRef, StagedPartition
from tests.contracts.stores import EXAMPLES, audit, frame, open_store

#: Rules that one example runs through at most.
_STEPS = 10
_RUNS = tuple(RunInfo(run_id=f"run{number}", dag_id="machine", code_version="abc") for number in (0, 1, 2))
_DAYS = st.sampled_from(["2013-01-01", "2013-01-02", "2013-01-03"])
_VALUES = st.lists(st.integers(0, 2), max_size=2).map(lambda values: tuple(float(value) for value in values))
_RUN = st.integers(0, len(_RUNS) - 1)

#: Values by partition: what a frame holds decides its digest.
Content = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Staged:
    """What a run staged, as the model knows it."""

    part: StagedPartition
    values: tuple[float, ...]
    base: tuple[float, ...] | None
    """What the table held under this key then."""


class Machine(RuleBasedStateMachine):
    """Runs, each with a store of its own on the same tables; the model is `self.now`, and a list of what was."""

    staged: Bundle[Staged] = Bundle("staged")
    used: Bundle[Staged] = Bundle("used")

    def __init__(self, open_one: Callable[[], SnapshotStore]) -> None:
        super().__init__()
        self.stores = [open_one() for _ in _RUNS]
        self.now: Content = {}
        self.past: list[tuple[SnapshotRef, Content]] = []
        """Every commit's snapshot and what it held, oldest first."""
        self.kept: dict[str, SnapshotRef] = {}

    @initialize(values=_VALUES)
    def first_night(self, values: tuple[float, ...]) -> None:
        self._publish(0, self._stage(0, {"2013-01-01": values}))

    # -- what runs do ------------------------------------------------------------------------------------------------

    @rule(target=staged, run=_RUN, parts=st.dictionaries(_DAYS, _VALUES, min_size=1, max_size=2))
    def stage(self, run: int, parts: Content) -> object:
        return multiple(*self._stage(run, parts))

    @rule(target=used, run=_RUN, one=consumes(staged))
    def publish_what_was_staged_earlier(self, run: int, one: Staged) -> Staged:
        """Stale when somebody else published the partition since."""
        self._publish(run, [one])
        return one

    @rule(run=_RUN, parts=st.dictionaries(_DAYS, _VALUES, min_size=1, max_size=2))
    def ingest(self, run: int, parts: Content) -> None:
        self._publish(run, self._stage(run, parts))

    @rule(run=_RUN, day=_DAYS, values=_VALUES)
    def append_as_a_log_does(self, run: int, day: str, values: tuple[float, ...]) -> None:
        self._publish(run, self._stage(run, {day: values}), absent=True)

    @rule(target=used, run=_RUN, one=consumes(staged))
    def discard(self, run: int, one: Staged) -> Staged:
        self.stores[run].discard(one.part)
        return one

    @rule(run=_RUN, one=used)
    def publish_again(self, run: int, one: Staged) -> None:
        """A late duplicate: the table holds these bytes, or holds others, or held them and does no longer.

        What it may do to the table is what it might have done when it was new; mostly its bytes are gone by now.
        """
        before = len(self.past)
        try:
            self._publish(run, [one])
        except NotFoundError:
            assert self.now.get(one.part.partition) != one.values
            assert len(self.past) == before

    @precondition(lambda self: self.past)
    @rule(run=_RUN, data=st.data())
    def revert(self, run: int, data: st.DataObject) -> None:
        to, held = data.draw(st.sampled_from(self.past), label="to")
        done = self.stores[run].revert(to, _RUNS[run], reason="the source sent nonsense")
        self._did(done, {key: held.get(key) for key in self.now.keys() | held.keys()})

    @precondition(lambda self: self.past)
    @rule(run=_RUN, name=st.sampled_from(["champion", "audit"]), data=st.data())
    def pin(self, run: int, name: str, data: st.DataObject) -> None:
        snapshot, _ = data.draw(st.sampled_from(self.past), label="snapshot")
        if self.kept.get(name, snapshot) != snapshot:
            with pytest.raises(ConflictError):
                self.stores[run].pin(name, snapshot, reason="kept")
        else:
            self.stores[run].pin(name, snapshot, reason="kept")
            self.kept[name] = snapshot

    @rule(run=_RUN, name=st.sampled_from(["champion", "audit"]))
    def unpin(self, run: int, name: str) -> None:
        self.stores[run].unpin(name)
        self.kept.pop(name, None)

    @precondition(lambda self: self.past)
    @rule(run=_RUN, data=st.data())
    def read_an_earlier_snapshot(self, run: int, data: st.DataObject) -> None:
        self._reads(run, *data.draw(st.sampled_from(self.past), label="snapshot"))

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_newest_snapshot_is_the_model_and_history_has_every_commit(self) -> None:
        run = len(self.past) % len(_RUNS)  # not always the one that changed it
        history = self.stores[run].history("rows")
        assert [commit.snapshot for commit in reversed(history)] == [snapshot for snapshot, _ in self.past]
        head = self.stores[run].head("rows")
        assert head == (self.past[-1][0] if self.past else None)
        if head is not None:
            self._reads(run, head, self.now)

    @invariant()
    def pins_are_what_was_pinned(self) -> None:
        assert {pin.name: pin.snapshot for pin in self.stores[0].pins()} == self.kept

    def teardown(self) -> None:
        """Every snapshot that ever was still reads as it did."""
        for number, (snapshot, held) in enumerate(self.past):
            self._reads(number % len(_RUNS), snapshot, held)

    # -- inner -------------------------------------------------------------------------------------------------------

    def _stage(self, run: int, parts: Content) -> list[Staged]:
        drafts = [Draft(partition=key, frame=frame(*values)) for key, values in parts.items()]
        made = self.stores[run].stage("rows", drafts, _RUNS[run])
        return [
            Staged(part=part, values=values, base=self.now.get(part.partition))
            for part, values in zip(made, parts.values(), strict=True)
        ]

    def _publish(self, run: int, staged: list[Staged], *, absent: bool = False) -> None:
        changed = {one.part.partition: one.values for one in staged if self.now.get(one.part.partition) != one.values}
        lost = [
            one
            for one in staged
            if one.part.partition in changed
            and (one.base != self.now.get(one.part.partition) or (absent and one.part.partition in self.now))
        ]
        parts = [one.part for one in staged]
        reports = [audit(part) for part in parts]
        try:
            done = self.stores[run].publish("rows", parts, reports, _RUNS[run], absent=absent)
        except ConflictError:
            assert lost
            return
        assert not lost
        assert {part.partition for part in done.published} == changed.keys()
        assert {part.partition for part in done.partitions} == {part.partition for part in parts}
        self._did(done, dict(changed))

    def _did(self, done: Publication, changes: dict[str, tuple[float, ...] | None]) -> None:
        after = {key: values for key, values in {**self.now, **changes}.items() if values is not None}
        if after != self.now:
            self.now = after
            self.past.append((done.snapshot, after))
        assert done.snapshot == self.past[-1][0]

    def _reads(self, run: int, snapshot: SnapshotRef, held: Content) -> None:
        store = self.stores[run]
        assert {key: part.rows for key, part in store.partitions(snapshot).items()} == {
            key: len(values) for key, values in sorted(held.items())
        }
        rows = store.scan(snapshot, columns=["value"]).collect().rows()
        assert rows == [(key, value) for key in sorted(held) for value in held[key]]


def test_any_sequence_of_runs_reads_like_a_dictionary_with_an_immutable_past(
    backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = itertools.count()

    def machine() -> Machine:
        root: Path = tmp_path_factory.mktemp(f"machine{next(numbers)}-")
        return Machine(lambda: open_store(backend, root))

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES[backend],
            stateful_step_count=_STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
