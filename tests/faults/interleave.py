"""Publishers in lock step: of several threads exactly one runs at a time, from one gate to the next.

A gate is a failpoint of the store, so that the order of what happens is chosen by the test and not by the scheduler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.errors import ConflictError
from pipelines.ports import SnapshotStore
from tests.contracts.stores import RUN, audit, stage
from tests.faults.harness import on_failpoints

if TYPE_CHECKING:
    import pytest

STAGE, VERIFY, PREPARE, COMMIT = "stage", "verify", "prepare", "commit"
#: Where a publisher waits after a step; the last step has no gate.
_GATES = {VERIFY: "publish.verified", PREPARE: "publish.linked"}
_PATIENCE = 60.0


def interleavings(publishers: int, steps: int) -> list[tuple[int, ...]]:
    """Every order in which publishers can take their steps, such as (0, 0, 1, 0, 1, 1).

    Publishers differ only by their rows, so that exchanging them gives no other case: number 0 begins before 1, 1
    before 2, and so on.
    """

    def extend(done: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(done) == publishers * steps:
            yield done
        for who in range(publishers):
            begun = len(set(done))
            if done.count(who) < steps and who <= begun:
                yield from extend((*done, who))

    return list(extend(()))


@dataclass
class Publisher:
    """One run, on a thread of its own, that stages and publishes one partition."""

    store: SnapshotStore
    partition: str
    value: float
    table: str
    gates: frozenset[str]
    """The failpoints at which it waits, the first time it comes there."""
    outcome: str | None = None
    """`won`, `lost`, or an error that nobody expected."""
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _waits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _passed: set[str] = field(default_factory=set)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"publisher {self.value}", daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Runs to the next gate, or to the end. After the end nothing happens."""
        if self.outcome is None:
            self._go.release()
            assert self._waits.acquire(timeout=_PATIENCE), f"publisher {self.value} hangs"

    def pause(self, gate: str) -> None:
        if gate in self.gates and gate not in self._passed:
            self._passed.add(gate)
            self._waits.release()
            self._go.acquire()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._publish()
            self.outcome = "won"
        except ConflictError:
            self.outcome = "lost"
        except Exception as error:
            self.outcome = repr(error)
        finally:
            self._waits.release()

    def _publish(self) -> None:
        staged = stage(self.store, self.partition, self.value, table=self.table)
        self.pause(STAGE)
        self.store.publish(self.table, [staged], [audit(staged)], RUN)


class Stage:
    """Plays interleavings on stores of one process."""

    def __init__(self, patch: pytest.MonkeyPatch, open_one: Callable[[], SnapshotStore]) -> None:
        self._open = open_one
        self._stores: list[SnapshotStore] = []
        self._by_thread: dict[int, Publisher] = {}
        on_failpoints(patch, self._at)

    def play(
        self, order: Sequence[int], steps: Sequence[str], *, partition: str, values: Sequence[float], table: str
    ) -> list[str | None]:
        """Runs publishers of one partition in this order; returns their outcomes.

        Args:
            order: whose turn it is, a step each.
            steps: a step ends at its gate; the last one ends with the publish.
        """
        while len(self._stores) < len(values):
            self._stores.append(self._open())
        gates = frozenset(_GATES.get(step, step) for step in steps[:-1])
        cast = [
            Publisher(store=self._stores[number], partition=partition, value=value, table=table, gates=gates)
            for number, value in enumerate(values)
        ]
        for publisher in cast:
            publisher.start()
            ident = publisher._thread.ident
            assert ident is not None
            self._by_thread[ident] = publisher
        for who in order:
            cast[who].step()
        for publisher in cast:
            publisher._thread.join(_PATIENCE)
        return [publisher.outcome for publisher in cast]

    def _at(self, name: str) -> None:
        publisher = self._by_thread.get(threading.get_ident())
        if publisher is not None:
            publisher.pause(name)


def predicted(order: Sequence[int], steps: Sequence[str], base: float | None, values: Sequence[float]) -> list[str]:
    """What a compare-and-set allows: who staged on what is still there wins when its turn to commit comes."""
    now, seen, taken = base, dict.fromkeys(range(len(values)), base), dict.fromkeys(range(len(values)), 0)
    outcomes = ["lost"] * len(values)
    for who in order:
        step = steps[taken[who]]
        taken[who] += 1
        if step == steps[0]:
            seen[who] = now
        if step == steps[-1] and seen[who] == now:
            now, outcomes[who] = values[who], "won"
    return outcomes
