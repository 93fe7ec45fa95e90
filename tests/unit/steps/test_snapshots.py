"""Snapshots by name, compared, kept and collected: what depends on a store runs on every backend, refusals on one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipelines.backends.delta import DeltaStore
from pipelines.errors import IntegrityError, NotFoundError, RemovedError, TerminalError
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import Collection, PublishedPartition, SnapshotRef
from pipelines.steps import snapshots
from pipelines.steps.snapshots import collect, diff, kept, pin, resolve, revert
from tests.contracts.stores import RUN, audit, content, open_store, put, stage
from tests.registries import open_registry

TABLES = ("rows", "predictions")
DAY = "2013-01-01"


@pytest.fixture
def store(backend: str, tmp_path: Path) -> SnapshotStore:
    """A store of every backend in turn."""
    return open_store(backend, tmp_path)


@pytest.fixture
def delta(tmp_path: Path) -> SnapshotStore:
    """A store on this disk."""
    return open_store("delta", tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A registry without a model. What models keep is in tests/chain/test_snapshots.py."""
    root = tmp_path_factory.mktemp("registry")
    return open_registry("uc", f"sqlite:///{root / 'mlflow.db'}", root / "cache")


def now(store: SnapshotStore) -> datetime:
    """Past every commit so far, before every later one, as fine as the store's clock tells commits apart."""
    head = store.head("rows")
    pause = 1.05 if head is not None and head.store == "lakefs" else 0.005
    time.sleep(pause)
    instant = datetime.now(UTC)
    time.sleep(pause)
    return instant


def collected(store: SnapshotStore, registry: ModelRegistry, since: datetime | None = None) -> Collection:
    """A collection that keeps nothing for its age, unless told."""
    return collect(store, registry, TABLES, since or later(), RUN, dry_run=False, now=datetime.now(UTC))


def later() -> datetime:
    """When everything so far is past, for clocks of whole seconds too."""
    return datetime.now(UTC) + timedelta(seconds=3)


def gone(done: Collection, table: str = "rows") -> list[PublishedPartition]:
    return [part for entry in done.tables if entry.table == table for part in entry.parts]


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_found_by_each_kind_of_name(store: SnapshotStore) -> None:
    first = put(store, DAY, 1).snapshot
    between = now(store)
    second = put(store, DAY, 2).snapshot
    store.pin("before-the-move", first, reason="test")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    east = timezone(timedelta(hours=5, minutes=30))
    names = {
        "head": second,
        first.version: first,
        second.version: second,
        first.id: first,
        "before-the-move": first,
        between.isoformat(): first,
        between.astimezone(east).isoformat(): first,
        between.replace(tzinfo=None).isoformat(): first,  # without a zone: UTC
        f"{datetime.now(UTC):%Y-%m-%d}": second,  # the end of the day
        f"{tomorrow:%Y-%m-%dT%H:%M}": second,
    }
    assert {name: resolve(store, "rows", name) for name in names} == names


@pytest.mark.parametrize("name", ["nothing", "99", "", "../1", "2013-13-01", "2013-01-01T25:00", "HEAD", "-1"])
def test_a_name_of_no_snapshot_is_not_found_and_the_forms_are_named(delta: SnapshotStore, name: str) -> None:
    put(delta, DAY, 1)
    with pytest.raises(NotFoundError, match="a pin's name"):
        resolve(delta, "rows", name)


def test_what_was_before_the_first_commit_and_what_is_of_another_table_is_not_found(delta: SnapshotStore) -> None:
    with pytest.raises(NotFoundError, match="nothing was ever published"):
        resolve(delta, "rows", "head")
    rows = put(delta, DAY, 1).snapshot
    other = put(delta, DAY, 1, table="labels").snapshot
    delta.pin("theirs", other, reason="test")
    for name in (other.id, "theirs"):
        with pytest.raises(NotFoundError, match="it is a snapshot of labels"):
            resolve(delta, "rows", name)
    with pytest.raises(NotFoundError, match="the oldest snapshot is of"):
        resolve(delta, "rows", "2013-01-01")
    with pytest.raises(NotFoundError):
        resolve(delta, "rows", rows.model_copy(update={"version": "77"}).id)


@pytest.mark.parametrize("name", ["head", "7", "2013-01-01", "2013-01-01T05", "deadbeef"])
def test_a_pin_is_not_called_what_could_be_a_version_or_a_date(delta: SnapshotStore, name: str) -> None:
    ref = put(delta, DAY, 1).snapshot
    with pytest.raises(NotFoundError, match="reads like"):
        pin(delta, name, ref, reason="test")
    assert pin(delta, "the-1st", ref, reason="test") == delta.pins()[0]


# -- comparing and going back ----------------------------------------------------------------------------------------


def test_a_difference_names_what_came_went_and_changed_and_counts_rows(store: SnapshotStore) -> None:
    put(store, "2013-01-01", 1)
    before = put(store, "2013-01-02", 1, 2).snapshot
    put(store, "2013-01-02", 5)
    after = put(store, "2013-01-03", 6, 7, 8).snapshot
    found = diff(store, before, after)
    assert [part.partition for part in found.added] == ["2013-01-03"]
    assert [(old.rows, new.rows) for old, new in found.replaced] == [(2, 1)]
    assert (found.removed, found.rows) == ((), 2)
    back = diff(store, after, before)
    assert [part.partition for part in back.removed] == ["2013-01-03"]
    assert back.rows == -2
    assert diff(store, after, after).rows == 0
    with pytest.raises(NotFoundError, match="snapshot of labels"):
        diff(store, put(store, DAY, 1, table="labels").snapshot, after)


@pytest.mark.parametrize("log", ["promotions", "decisions"])
def test_an_append_only_log_is_never_reverted(delta: SnapshotStore, log: str) -> None:
    first = put(delta, "e000001", 1, table=log).snapshot
    put(delta, "e000002", 2, table=log)
    with pytest.raises(TerminalError, match="never reverted"):
        revert(delta, first, RUN, reason="test")
    assert set(content(delta, log)) == {"e000001", "e000002"}


def test_a_table_is_reverted_in_one_new_commit(store: SnapshotStore) -> None:
    first = put(store, DAY, 1).snapshot
    put(store, DAY, 2)
    revert(store, first, RUN, reason="two was wrong")
    assert content(store) == {DAY: [1.0]}
    assert [commit.kind for commit in store.history("rows")] == ["revert", "publish", "publish"]


# -- keeping and collecting ------------------------------------------------------------------------------------------


def test_what_nobody_needs_is_collected_and_readers_of_it_are_told(
    store: SnapshotStore, registry: ModelRegistry
) -> None:
    old = put(store, DAY, 1).snapshot
    put(store, "2013-01-02", 5)
    (superseded,) = [part for part in store.held("rows") if part.partition == DAY]
    put(store, DAY, 2, 3)
    dry = collect(store, registry, TABLES, later(), RUN, now=datetime.now(UTC))
    assert dry.dry_run
    assert gone(dry) == [superseded]
    assert len(store.held("rows")) == 3, "a dry run changes nothing"
    assert store.tombstones() == []

    done = collected(store, registry)
    assert gone(done) == [superseded]
    assert [entry.kept for entry in done.tables] == [2, 0]
    assert content(store) == {DAY: [2.0, 3.0], "2013-01-02": [5.0]}
    with pytest.raises(RemovedError, match="collected"):
        store.scan(old).collect()
    (stone,) = store.tombstones()
    assert (stone.kind, stone.table, stone.parts, stone.run) == ("collected", "rows", (superseded,), RUN)
    assert gone(collected(store, registry)) == []
    assert len(store.tombstones()) == 1


def test_pins_and_everything_visible_lately_stay(store: SnapshotStore, registry: ModelRegistry) -> None:
    pinned = put(store, DAY, 1).snapshot
    put(store, DAY, 2)
    lately = put(store, DAY, 3).snapshot
    instant = now(store)
    put(store, DAY, 4)
    store.pin("the-first", pinned, reason="an audit")
    reasons = {entry.snapshot: entry.reasons for entry in kept(store, registry, TABLES, instant)}
    assert reasons[pinned] == ("pin the-first",)
    assert reasons[lately] == (f"visible since {instant.isoformat()}",), "it was what readers saw at that instant"
    assert [part.rows for part in gone(collected(store, registry, instant))] == [1]
    for ref, value in ((pinned, 1.0), (lately, 3.0)):
        assert store.scan(ref).collect().get_column("value").to_list() == [value]
    store.unpin("the-first")
    assert len(gone(collected(store, registry, instant))) == 1
    with pytest.raises(RemovedError):
        store.scan(pinned).collect()


def predict(store: SnapshotStore, value: float, inputs: SnapshotRef) -> None:
    """Publishes a prediction that names what it was made from."""
    staged = stage(store, DAY, value, table="predictions")
    provenance = {"snapshots": [inputs.id], "predictions": {DAY: {"model": 1, "inputs": "x"}}}
    store.publish("predictions", [staged], [audit(staged)], RUN, provenance=provenance)


def test_what_published_predictions_were_made_from_stays_and_what_superseded_ones_were_goes(
    store: SnapshotStore, registry: ModelRegistry
) -> None:
    first, second = put(store, DAY, 1).snapshot, put(store, DAY, 2).snapshot
    put(store, DAY, 3)
    predict(store, 0.1, first)
    predict(store, 0.2, second)
    (inputs,) = [entry for entry in kept(store, registry, ["rows"], later()) if entry.snapshot == second]
    assert inputs.reasons == (f"predictions {DAY}",)
    done = collected(store, registry)
    assert [part.partition for part in gone(done, "predictions")] == [DAY]
    assert store.scan(second).collect().get_column("value").to_list() == [2.0]
    with pytest.raises(RemovedError):
        store.scan(first).collect()


def test_predictions_that_a_revert_brought_back_keep_their_inputs(
    store: SnapshotStore, registry: ModelRegistry
) -> None:
    first, second = put(store, DAY, 1).snapshot, put(store, DAY, 2).snapshot
    put(store, DAY, 3)
    predict(store, 0.1, first)
    back = store.head("predictions")
    assert back is not None
    predict(store, 0.2, second)
    revert(store, back, RUN, reason="test")
    collected(store, registry)
    assert store.scan(first).collect().get_column("value").to_list() == [1.0]
    with pytest.raises(RemovedError):
        store.scan(second).collect()


def test_collected_bytes_may_be_published_again(store: SnapshotStore, registry: ModelRegistry) -> None:
    old = put(store, DAY, 1).snapshot
    put(store, DAY, 2)
    collected(store, registry)
    put(store, DAY, 1)
    assert content(store) == {DAY: [1.0]}
    assert store.scan(old).collect().get_column("value").to_list() == [1.0], "the same bytes are the same snapshot"


def test_only_what_is_old_enough_to_be_dead_is_swept(
    store: SnapshotStore, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, DAY, 1)
    mine = stage(store, "2013-01-02", 5)
    assert collected(store, registry).swept == ()
    store.publish("rows", [mine], [audit(mine)], RUN)
    assert content(store)["2013-01-02"] == [5.0]
    left = stage(store, "2013-01-03", 6)
    monkeypatch.setattr(snapshots, "LIVE", timedelta(seconds=-3))
    assert collected(store, registry).swept != ()
    with pytest.raises(NotFoundError):
        store.read_staged(left)


class _Busy(DeltaStore):
    """A store in which another run does something at the moment at which the collector looks."""

    meanwhile = staticmethod(lambda: None)

    def held(self, table: str) -> list[PublishedPartition]:
        found = super().held(table)
        act, self.meanwhile = self.meanwhile, lambda: None
        act()
        return found


def test_bytes_that_a_run_brings_back_before_they_are_removed_stay(tmp_path: Path, registry: ModelRegistry) -> None:
    rival = DeltaStore(str(tmp_path / "snapshots"), "uc", tmp_path / "cache")
    store = _Busy(str(tmp_path / "snapshots"), "uc", tmp_path / "cache")
    put(store, DAY, 1)
    put(store, DAY, 2)
    store.meanwhile = lambda: put(rival, DAY, 1)  # type: ignore[assignment,return-value]
    assert gone(collected(store, registry, later())) != [], "the other bytes are garbage now"
    assert content(store) == {DAY: [1.0]}


def test_bytes_that_a_run_brings_back_while_they_are_removed_are_reported_and_a_rerun_mends(
    delta: SnapshotStore, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone is stored, a rival publishes the same bytes anew, and the bytes are removed."""
    put(delta, DAY, 1)
    put(delta, DAY, 2)

    def rival_first(name: str) -> None:
        if name == "purge.told":
            put(delta, DAY, 1)

    monkeypatch.setattr("pipelines.backends.delta_keep.failpoint", rival_first)
    try:
        collected(delta, registry)
    except IntegrityError as error:
        assert DAY in str(error)  # noqa: PT017
        put(delta, DAY, 1)
    assert content(delta) == {DAY: [1.0]}
