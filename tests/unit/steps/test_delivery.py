"""Deliveries of what a store has published: once, in any order, to each as the spec says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipelines.backends.sink_files import Manifest
from pipelines.errors import NotFoundError, RemovedError, ServiceRefused, SpecError, UnavailableError
from pipelines.ports import Consignment, Sink, SnapshotStore
from pipelines.records import Delivered, Prediction, Tombstone
from pipelines.spec import UseCase
from pipelines.steps.deliveries import deliveries
from pipelines.steps.delivery import chosen, deliver, published
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.handed import AT, DAY, NEXT, RUN, file_sink, publish, rows, spec_with
from tests.contracts.stores import open_store

FILES = {"name": "crm", "sink": "files"}
HOOK = {"name": "told", "sink": "webhook"}


class Notebook:
    """A sink that writes down what it is handed; it knows only the last key of each partition, as a database would."""

    def __init__(self, name: str = "crm") -> None:
        self.name = name
        self.has: dict[str, tuple[str, pl.DataFrame]] = {}
        self.calls: list[Consignment] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.error: Exception | None = None

    def deliver(self, consignment: Consignment) -> Delivered:
        partition = consignment.prediction.partition
        self.calls.append(consignment)
        if self.error is not None:
            raise self.error
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        frames = list(consignment.rows())
        before, self.has[partition] = self.has.get(partition), (consignment.key, pl.concat(frames))
        return Delivered(
            delivery=self.name,
            sink="files",
            partition=partition,
            key=consignment.key,
            rows=self.has[partition][1].height,
            where="a notebook",
            state="unchanged" if before and before[0] == consignment.key else "delivered",
        )


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return open_store("delta", tmp_path)


def _deliver(
    spec: UseCase, store: SnapshotStore, sink: Sink, predictions: tuple[Prediction, ...]
) -> tuple[Delivered, ...]:
    return deliver(spec, store, {"crm": sink}, predictions, RUN)


SPEC = spec_with(FILES)


def test_every_partition_is_handed_over_once_and_a_repeat_says_so(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1, 0.7), NEXT: rows(0.2)})
    sink, predictions = Notebook(), published(store, [DAY, NEXT])
    done = _deliver(SPEC, store, sink, predictions)
    assert [(one.partition, one.state, one.rows) for one in done] == [(DAY, "delivered", 2), (NEXT, "delivered", 1)]
    assert sink.has[DAY][1].equals(rows(0.1, 0.7))
    again = _deliver(SPEC, store, sink, predictions)
    assert [(one.partition, one.state, one.key) for one in again] == [
        (p, "unchanged", sink.has[p][0]) for p in (DAY, NEXT)
    ]


def test_a_retry_of_an_old_run_hands_over_what_is_published_now(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1)})
    old = published(store, [DAY])
    publish(store, {DAY: rows(0.9)})
    sink = Notebook()
    _deliver(SPEC, store, sink, published(store, [DAY]))
    (late,) = _deliver(SPEC, store, sink, old)
    assert late.state == "unchanged"
    assert sink.has[DAY][1].equals(rows(0.9))


def test_what_is_published_anew_while_it_is_handed_over_is_handed_over_too(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1), NEXT: rows(0.2)})
    sink, predictions = Notebook(), published(store, [DAY, NEXT])
    sink.meanwhile = lambda: publish(store, {DAY: rows(0.9)})
    done = _deliver(SPEC, store, sink, predictions)
    assert sink.has[DAY][1].equals(rows(0.9))
    assert [one.state for one in done] == ["delivered", "delivered"]
    assert len(sink.calls) == 3
    assert [(entry.delivered.partition, entry.number) for entry in deliveries(store)] == [(DAY, 1), (DAY, 2), (NEXT, 1)]


def test_keys_tell_rows_and_the_way_they_are_handed_over_apart_and_nothing_else(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1), NEXT: rows(0.1)})

    def key(partition: str = DAY, **said: object) -> str:
        sink = Notebook()
        _deliver(spec_with({**FILES, **said}), store, sink, published(store, [partition]))
        return sink.calls[-1].key

    same = key()
    others = [key(NEXT), key(format="csv"), key(columns=("order", "score")), key(folder="x")]
    publish(store, {NEXT: rows(0.3)})  # a later snapshot, the same partition
    assert key() == key(target="moved") == key(backfills=False) == same
    assert len({same, *others}) == 5
    publish(store, {DAY: rows(0.1, version=2)})
    assert key() != same
    publish(store, {DAY: rows(0.1)})
    assert key() == same


def test_the_same_key_always_says_the_same_snapshot(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1)})
    sink = Notebook()
    _deliver(SPEC, store, sink, published(store, [DAY]))
    publish(store, {NEXT: rows(0.3)})
    _deliver(SPEC, store, sink, published(store, [DAY]))
    first, second = (call.prediction.snapshot.id for call in sink.calls)
    assert first == second


def test_columns_are_chosen_in_order_and_a_former_partition_has_nulls_in_new_ones(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1)})
    publish(store, {NEXT: rows(0.2).with_columns(low=pl.lit(0.5, pl.Float32))}, wider=True)
    sink = Notebook()
    spec = spec_with({**FILES, "columns": ("low", "order")})
    _deliver(spec, store, sink, published(store, [DAY, NEXT]))
    assert sink.has[NEXT][1].rows() == [(0.5, "o-0")]
    assert sink.has[DAY][1].rows() == [(None, "o-0")]
    assert sink.has[DAY][1].schema == sink.calls[0].schema == {"low": pl.Float32, "order": pl.String}
    with pytest.raises(SpecError, match=r"not columns of the predictions: amount.*Allowed: order, score"):
        _deliver(spec_with({**FILES, "columns": ("amount",)}), store, sink, published(store, [DAY]))


def test_large_partitions_come_in_bounded_frames(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(*[0.5] * 200_000)})
    sink, heights = Notebook(), []
    _deliver(SPEC, store, sink, published(store, [DAY]))
    heights = [frame.height for frame in sink.calls[0].rows()]
    assert sum(heights) == 200_000
    assert max(heights) <= 65_536
    assert sink.has[DAY][1].equals(rows(*[0.5] * 200_000))


def test_a_delivery_that_fails_does_not_keep_the_others_from_theirs(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1)})
    spec = spec_with(FILES, {**FILES, "name": "second", "folder": "b"}, {**FILES, "name": "third", "folder": "c"})
    sinks = {name: Notebook(name) for name in ("crm", "second", "third")}
    sinks["crm"].error, sinks["second"].error = ServiceRefused("no"), UnavailableError("later")
    with pytest.raises(UnavailableError, match="later"):  # the one that a retry may help
        deliver(spec, store, sinks, published(store, [DAY]), RUN)
    assert sinks["third"].has[DAY][1].equals(rows(0.1))
    assert [entry.delivered.delivery for entry in deliveries(store)] == ["third"]
    sinks["second"].error = None
    with pytest.raises(ServiceRefused, match="no"):
        deliver(spec, store, sinks, published(store, [DAY]), RUN)
    assert DAY in sinks["second"].has


def test_backfills_go_where_they_are_wanted_and_everywhere_when_they_are_asked_for() -> None:
    spec = spec_with(FILES, {**HOOK, "backfills": False})
    backfill = RUN.model_copy(update={"backfill": True})
    assert [one.name for one in chosen(spec, RUN)] == ["crm", "told"]
    assert [one.name for one in chosen(spec, backfill)] == ["crm"]
    assert [one.name for one in chosen(spec, backfill, "told")] == ["told"]
    with pytest.raises(SpecError, match=r"'nobody'.*Allowed: crm, told"):
        chosen(spec, RUN, "nobody")


def test_the_log_says_who_has_what_by_which_run_and_says_it_once(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1, 0.7)})
    sink = Notebook()
    for _ in range(3):
        _deliver(SPEC, store, sink, published(store, [DAY]))
    (entry,) = deliveries(store)
    snapshot = store.history(PREDICTIONS)[0].snapshot.id
    assert (entry.delivered.where, entry.delivered.rows, entry.run) == ("a notebook", 2, RUN)
    assert (entry.digest, entry.snapshot) == (sink.calls[0].prediction.digest, snapshot)
    # What was taken back is handed over again, and the log has it as a third time.
    publish(store, {DAY: rows(0.9)})
    _deliver(SPEC, store, sink, published(store, [DAY]))
    publish(store, {DAY: rows(0.1, 0.7)})
    _deliver(SPEC, store, sink, published(store, [DAY]))
    keys = [each.delivered.key for each in deliveries(store, "crm", [DAY])]
    assert keys[0] == keys[2] != keys[1]
    assert sink.calls[-1].before == keys[1]
    assert deliveries(store, "other") == deliveries(store, "crm", [NEXT]) == []


def test_two_runs_that_log_the_same_delivery_at_once_are_one_entry(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contracts.stores import interpose

    publish(store, {DAY: rows(0.1)})
    sink = Notebook()
    other = RUN.model_copy(update={"run_id": "other"})
    predictions = published(store, [DAY])
    interpose(monkeypatch, "deliver.handed", lambda: deliver(SPEC, store, {"crm": sink}, predictions, other))
    _deliver(SPEC, store, sink, predictions)
    (entry,) = deliveries(store)
    assert entry.run.run_id == "other"
    interpose(monkeypatch, "deliver.handed", lambda: publish(store, {NEXT: rows(0.2)}))
    publish(store, {DAY: rows(0.4)})
    _deliver(SPEC, store, sink, published(store, [DAY]))
    assert [each.number for each in deliveries(store)] == [1, 2]


def test_predictions_that_are_not_published_or_were_erased_are_named(store: SnapshotStore) -> None:
    publish(store, {DAY: rows(0.1)})
    (known,) = published(store, [DAY, NEXT])
    with pytest.raises(NotFoundError, match=f"predictions/{NEXT}"):
        _deliver(SPEC, store, Notebook(), (known.model_copy(update={"partition": NEXT}),))
    head = store.head(PREDICTIONS)
    assert head is not None
    part = store.partitions(head)[DAY]
    store.purge(
        Tombstone(id="t1", kind="erased", table=PREDICTIONS, parts=(part,), reason="request 12", run=RUN, at=AT)
    )
    with pytest.raises(RemovedError, match="t1"):
        _deliver(SPEC, store, Notebook(), (known,))


@pytest.mark.parametrize("order", ["old new", "old new old", "new old", "old", "new"])
def test_whichever_runs_deliver_last_the_newest_rows_are_there(order: str, tmp_path: Path) -> None:
    """The old run's first delivery comes before the partition is restated where it comes first, its retry after."""
    (tmp_path / "there").mkdir()
    store, sink = open_store("delta", tmp_path), file_sink(tmp_path / "there", tmp_path / "cache")
    publish(store, {DAY: rows(0.1, 0.7)})
    runs = {"old": published(store, [DAY])}
    first, *rest = order.split()
    if order.startswith("old new"):
        _deliver(SPEC, store, sink, runs[first])
    publish(store, {DAY: rows(0.9)})
    runs["new"] = published(store, [DAY])
    for name in (first, *rest):
        _deliver(SPEC, store, sink, runs[name])
    folder = tmp_path / "there" / "uc" / f"partition={DAY}"
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    (part,) = folder.glob("part-*")
    assert [part.name] == [file.name for file in manifest.files]
    assert pl.read_parquet(part).equals(rows(0.9))
    assert (folder / "_SUCCESS").read_text() == manifest.key
