"""kill -9 at moments that nobody chose, while a process publishes; and what a reader sees meanwhile."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

from pipelines.ports import SnapshotStore
from pipelines.records import PublishedPartition, SnapshotRef
from tests.contracts.stores import RUN, open_store
from tests.faults.harness import publish, record
from tests.faults.worker import Worker, pair, values

_KILLS = 15
#: Publishes that a worker is asked for: two that the killed one before it was asked for, and two new ones.
_EACH, _NEW = 4, 2


def test_a_loop_of_publishes_killed_at_any_moment_and_run_again_ends_like_a_clean_run(
    backend: str, tmp_path: Path
) -> None:
    store, dice = open_store(backend, tmp_path), random.Random(7)
    numbers = range(_KILLS * _NEW + _NEW)
    wanted = open_store("delta", tmp_path / "clean")
    for number in numbers:
        publish(wanted, pair(number, same_key=False))
    published = _partitions(wanted)
    survived, span = 0, 0.3
    for kill in range(_KILLS):
        worker = Worker(backend, tmp_path, numbers[kill * _NEW : kill * _NEW + _EACH])
        start = time.monotonic()
        if worker.wait(dice.uniform(0, span)):
            survived, span = survived + 1, time.monotonic() - start  # shorter than thought: kill earlier
        worker.kill()
        seen = _partitions(store)
        assert seen.items() <= published.items()
        assert {key[:-1] + "a" for key in seen} == {key for key in seen if key.endswith("a")}, "half a commit"
    missing = [number for number in numbers if f"{number:03d}-a" not in seen]
    assert missing
    Worker(backend, tmp_path, [numbers[0], *missing]).finish()
    assert survived < _KILLS / 2
    assert _in_any_order(store) == _in_any_order(wanted)


def _partitions(store: SnapshotStore) -> dict[str, PublishedPartition]:
    head = store.head("rows")
    return {} if head is None else store.partitions(head)


def _in_any_order(store: SnapshotStore) -> dict[str, Any]:
    """The state of a table, its commits sorted by what they published: a killed one's may come last."""
    found = record(store)
    return found | {"history": sorted(found["history"], key=lambda commit: sorted(commit["partitions"]))}


class Reader:
    """Reads the newest snapshot again and again, on a thread of its own."""

    def __init__(self, store: SnapshotStore) -> None:
        self.seen: dict[SnapshotRef, set[tuple[tuple[str, float], ...]]] = {}
        """Everything that was ever read from each snapshot."""
        self.failures: list[BaseException] = []
        self._store = store
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._done.is_set():
            try:
                head = self._store.head("rows")
                assert head is not None
                rows = self._store.scan(head, columns=["value"]).collect().rows()
                self.seen.setdefault(head, set()).add(tuple(rows))
            except Exception as error:
                self.failures.append(error)


def test_a_reader_sees_whole_snapshots_while_others_publish_are_killed_and_revert(backend: str, tmp_path: Path) -> None:
    store, dice = open_store(backend, tmp_path), random.Random(11)
    first = publish(store, pair(0, same_key=True))
    whole = {
        tuple((key, value) for key in ("all-a", "all-b") for value in values(number)): number for number in range(100)
    }
    with Reader(open_store(backend, tmp_path)) as reader:
        for kill in range(4):
            before = len(reader.seen)
            worker = Worker(backend, tmp_path, range(1 + kill * 20, 20 + kill * 20), same_key=True)
            worker.wait(dice.uniform(0.05, 0.4))
            while len(reader.seen) == before and not worker.wait(0.02):
                pass  # a busy machine: nothing of it has been seen yet
            worker.kill()
            if kill % 2:
                store.revert(first, RUN, reason="the source sent nonsense")
    assert reader.failures == []
    assert all(len(reads) == 1 for reads in reader.seen.values()), "a snapshot changed under a reader"
    read = {whole.get(reads.pop()) for reads in reader.seen.values()}
    assert None not in read, "a reader saw a state between two snapshots"
    assert len(read) > 2
    assert {commit.snapshot for commit in store.history("rows")} >= reader.seen.keys()
