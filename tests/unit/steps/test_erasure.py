"""Erasure on a small store: what goes, what stays, what is said, and what is refused."""

from __future__ import annotations

import gzip
import html
import io
import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from pipelines.backends.files import Files
from pipelines.errors import ConflictError, RemovedError, SpecError, UnavailableError
from pipelines.ports import STATIC, ModelRegistry, SnapshotStore
from pipelines.records import Erasure, RunInfo
from pipelines.steps import delivery
from pipelines.steps.erasing import rewrite as rewriting
from pipelines.steps.erasing.traces import Traces
from pipelines.steps.erasure import Places, erase, parse_subject
from pipelines.steps.inputs import input_digests
from tests.cases import handed
from tests.cases.orders import (
    DAYS,
    ITS_ADDRESS,
    SPEC,
    SUBJECT,
    customers,
    fill,
    orders,
    put,
    returns,
    seen,
    set_aside,
    stage,
)
from tests.contracts.stores import open_store
from tests.registries import open_registry
from tests.scan import holding

RUN = RunInfo(run_id="request", dag_id="test", code_version="abc")
TABLES = ("rows", "labels", "customers", "predictions")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """A registry without models."""
    root = tmp_path_factory.mktemp("mlflow")
    return open_registry("uc", f"sqlite:///{root / 'mlflow.db'}", root / "models")


class World:
    """A store with everything in it, and folders beside it."""

    def __init__(self, store: SnapshotStore, registry: ModelRegistry, root: Path) -> None:
        self.store, self.registry, self.root, self.spec = store, registry, root, SPEC
        self.places = Places(reports=root / "reports", work=root / "work", cache=root / "cache")
        self.landing = root / "landing"

    def erase(self, key: str, *, act: bool = True, reason: str = "request 12") -> Erasure:
        subject = parse_subject(self.spec, key)
        return erase(
            self.spec, self.store, Files(self.landing), self.registry, subject, self.places, RUN, reason=reason, act=act
        )

    def file(self, relative: str, data: str | bytes) -> Path:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def visible(self) -> dict[str, object]:
        heads = {table: self.store.head(table) for table in TABLES}
        return {**heads, "told": self.store.tombstones(), "held": [self.store.held(table) for table in TABLES]}


@pytest.fixture
def world(registry: ModelRegistry, tmp_path: Path) -> World:
    made = World(open_store("delta", tmp_path), registry, tmp_path)
    fill(made.store)
    return made


def test_a_subject_is_gone_from_every_table_and_version_on_every_backend(
    backend: str, registry: ModelRegistry, tmp_path: Path
) -> None:
    world = World(open_store(backend, tmp_path), registry, tmp_path)
    fill(world.store)
    before = {table: seen(world.store, table) for table in TABLES}
    its_rows = before["rows"].filter(pl.col("customer") == SUBJECT).get_column("order")
    done = world.erase(f"customer={SUBJECT}")
    assert {entry.table: (entry.rows, len(entry.partitions), entry.files) for entry in done.tables} == {
        "rows": (6, 3, 4),
        "labels": (6, 3, 3),
        "customers": (1, 1, 1),
        "predictions": (6, 3, 3),
    }
    for table in TABLES:
        left = before[table]
        column = "order" if "order" in left.columns else "customer"
        left = left.filter(~pl.col(column).is_in([*its_rows] if column == "order" else [SUBJECT]))
        assert seen(world.store, table).equals(left), table
        for part in world.store.held(table):
            rows = world.store.read_held(table, part).collect()
            assert rows.height, (table, part)
            assert not rows.get_column(column).is_in([*its_rows] if column == "order" else [SUBJECT]).any()
    assert done.unreplayable == DAYS


def test_a_byte_scan_finds_the_value_before_and_nowhere_after(world: World) -> None:
    original = world.file("inbox/orders.csv.gz", gzip.compress(orders(DAYS[1]).write_csv().encode()))
    set_aside(world.store, "rows", DAYS[1], original, observed=f"bad: {ITS_ADDRESS}")
    original.unlink()
    stage(world.store, "rows", DAYS[2], orders(DAYS[2], count=4))
    world.file("reports/uc/validation/rows/page.html", f"<td>&#x27;{ITS_ADDRESS}&#x27;</td>")
    world.file("work/uc/sets/1/readme.txt", ITS_ADDRESS)
    orders(DAYS[0]).write_parquet(world.file("cache/copy.parquet", ""))
    there = holding(world.root, ITS_ADDRESS)
    for place in ("snapshots/uc/rows", "_quarantine", "_staging", "reports", "work/uc/sets", "cache"):
        assert any(place in path for path in there), place
    world.erase(f"address={ITS_ADDRESS}")
    assert holding(world.root, ITS_ADDRESS) == []
    # The rows that had the address gave the keys by which the other tables were found.
    assert holding(world.root, "o-2024-03-02-7-1") == []


def test_without_yes_nothing_changes_and_the_same_is_said(world: World) -> None:
    page = world.file("reports/uc/validation/rows/page.html", ITS_ADDRESS)
    stage(world.store, "rows", DAYS[2], orders(DAYS[2], count=4))
    before, files = world.visible(), holding(world.root, ITS_ADDRESS)
    would = world.erase(f"address={ITS_ADDRESS}", act=False)
    assert (world.visible(), holding(world.root, ITS_ADDRESS)) == (before, files)
    did = world.erase(f"address={ITS_ADDRESS}")
    assert would.id is None
    assert would.model_copy(update={"done": True, "id": did.id}) == did
    assert did.files == (str(page),)
    assert len(did.staged) == 1


def test_a_repeat_finds_nothing_makes_no_commit_and_no_tombstone(world: World) -> None:
    world.erase(f"customer={SUBJECT}")
    before = world.visible()
    again = world.erase(f"customer={SUBJECT}")
    assert (again.found, again.id, again.tables) == (False, None, ())
    assert world.visible() == before


def test_whoever_was_never_there_is_not_found(world: World) -> None:
    before = world.visible()
    done = world.erase("customer=7777777")
    assert not done.found
    assert world.visible() == before


def test_an_empty_store_holds_nobody(registry: ModelRegistry, tmp_path: Path) -> None:
    world = World(open_store("delta", tmp_path), registry, tmp_path)
    done = world.erase(f"customer={SUBJECT}")
    assert (done.found, done.models, done.unreplayable, done.remains) == (False, (), (), ())


def test_commits_and_tombstones_say_why_and_never_whose(world: World) -> None:
    done = world.erase(f"address={ITS_ADDRESS}")
    assert done.id is not None
    told = world.store.tombstones()
    assert sorted(each.table for each in told) == ["labels", "predictions", "rows"]
    commits = [commit for table in TABLES for commit in world.store.history(table) if commit.kind == "erase"]
    assert len(commits) == 3
    for record in (*told, *commits, done):
        assert ITS_ADDRESS not in record.model_dump_json()
    assert {commit.provenance["erasure"] for commit in commits} == {done.id}
    assert {each.reason for each in told} == {"request 12"}


def test_two_erasures_of_one_subject_have_nothing_in_common_by_which_to_guess_it(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    ids = []
    for name in ("one", "two"):
        world = World(open_store("delta", tmp_path / name), registry, tmp_path / name)
        fill(world.store)
        ids.append(world.erase(f"customer={SUBJECT}").id)
    assert ids[0] != ids[1]


def test_an_erase_commit_keeps_what_was_known_of_predictions_and_of_sources(world: World) -> None:
    world.erase(f"customer={SUBJECT}")
    newest = world.store.history("predictions")[0]
    assert newest.kind == "erase"
    assert newest.provenance["predictions"][DAYS[0]] == {
        "model": 1,
        "inputs": f"inputs of {DAYS[0]}",
        "read": {"rows": [DAYS[0], DAYS[0]], "customers": ["static", "static"]},
        "replay": "erased",
    }
    assert all(audit.suite == "uc.erasure" and audit.checks == 3 for audit in newest.audits.values())


def test_erased_inputs_count_as_those_that_they_replace_until_they_are_restated(world: World) -> None:
    def inputs(table: str) -> dict[str, str]:
        head = world.store.head(table)
        assert head is not None
        return input_digests(world.store, head)

    before = {table: inputs(table) for table in ("rows", "customers")}
    world.erase(f"customer={SUBJECT}")
    world.erase("customer=90210418")
    assert {table: inputs(table) for table in before} == before
    put(world.store, "rows", DAYS[0], orders(DAYS[0], count=1))
    put(world.store, "rows", DAYS[1], orders(DAYS[1]))  # the very bytes that were erased
    put(world.store, "customers", STATIC, customers())
    assert {day for day in DAYS if inputs("rows")[day] != before["rows"][day]} == {DAYS[0], DAYS[1]}
    assert inputs("customers") == before["customers"]


def test_a_row_that_carried_the_value_before_it_was_restated_is_the_subjects_too(world: World) -> None:
    corrected = orders(DAYS[0]).with_columns(address=pl.lit("corrected@example.org"))
    put(world.store, "rows", DAYS[0], corrected)
    world.erase(f"address={ITS_ADDRESS}")
    assert seen(world.store, "rows").filter(pl.col("order") == "o-2024-03-01-7-0").is_empty()
    assert seen(world.store, "predictions").filter(pl.col("order") == "o-2024-03-01-7-0").is_empty()


def test_the_same_key_in_another_partition_is_another_row(registry: ModelRegistry, tmp_path: Path) -> None:
    world = World(open_store("delta", tmp_path), registry, tmp_path)
    reused = orders(DAYS[0]).with_columns(customer=pl.lit(5, pl.Int64), address=pl.lit("dee@example.org"))
    for day, rows in ((DAYS[0], orders(DAYS[0])), (DAYS[1], reused)):
        put(world.store, "rows", day, rows)
        put(world.store, "labels", day, returns(DAYS[0]))
    world.erase(f"customer={SUBJECT}")
    left = seen(world.store, "labels").group_by("partition").len().sort("partition").rows()
    assert left == [(DAYS[0], 4), (DAYS[1], 6)]


def test_a_partition_of_nobody_else_becomes_empty(world: World) -> None:
    for customer in (SUBJECT, 90210418, 90210419):
        world.erase(f"customer={customer}")
    assert all(seen(world.store, table).is_empty() for table in TABLES)


def test_an_older_snapshot_says_that_it_was_erased(world: World) -> None:
    old = world.store.head("rows")
    assert old is not None
    world.erase(f"customer={SUBJECT}")
    with pytest.raises(RemovedError, match="erased"):
        world.store.scan(old).collect()


# -- quarantine, pages, copies, landing --------------------------------------------------------------------------------

LINES = orders(DAYS[1]).write_csv().encode()
OTHERS = orders(DAYS[1]).filter(pl.col("customer") != SUBJECT).write_csv().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    packed = io.BytesIO()
    frame.write_parquet(packed)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("table", "data", "verdict"),
    [
        ("rows", LINES, True),
        ("rows", gzip.compress(LINES), True),
        ("rows", gzip.compress(OTHERS) + gzip.compress(LINES), True),
        ("rows", LINES.decode().encode("utf-16"), True),
        ("rows", LINES.replace(b"customer", b"client"), True),
        ("rows", LINES.replace(b",90210417", b";90210417"), True),
        ("rows", LINES.replace(b",90210417,", b" 90210417 "), True),
        ("rows", b"\x00\xff" + str(SUBJECT).encode() + b"\x00", True),
        ("labels", returns(DAYS[1]).write_ndjson().encode(), True),
        ("labels", returns(DAYS[1]).write_ndjson().encode() + b'{"order": ', True),
        ("customers", parquet(customers()), True),
        ("customers", parquet(customers().cast(pl.String)), True),
        # Nobody can say what they hold.
        ("rows", gzip.compress(OTHERS)[:-9], None),
        ("labels", b"PAR1" + b"x" * 100, None),
        # Others', and its number where it is another thing.
        ("rows", OTHERS, False),
        ("rows", f"order,customer,address,amount,gift\nx,1,a@example.org,{SUBJECT},true\n".encode(), False),
        ("labels", b'{"order": "o-2024-03-02-8-0", "returned": true}\n', False),
        ("labels", b'{"order": "o-2024-03-02-7-01", "returned": true}\n', False),
        ("customers", parquet(customers().filter(pl.col("customer") != SUBJECT)), False),
    ],
)
def test_a_file_is_searched_in_whatever_form_it_is(table: str, data: bytes, verdict: bool | None) -> None:
    keys = pl.DataFrame({"partition": DAYS[1], "order": ["o-2024-03-02-7-0", "o-2024-03-02-7-1"]})
    traces = Traces(SPEC, parse_subject(SPEC, f"customer={SUBJECT}"), keys)
    assert traces.in_file(data, table, DAYS[1]) is verdict


def test_a_file_that_grows_past_its_cap_is_not_read_on() -> None:
    traces = Traces(SPEC, parse_subject(SPEC, f"customer={SUBJECT}"))
    assert traces.in_file(gzip.compress(b"0" * 10_000_000), "rows", DAYS[1], cap=1_000_000) is None


@pytest.mark.parametrize("quoted", ['"Ann" O\'Neil, née Ħ', "C:\\ann", "a&b<c>"])
def test_a_value_is_found_however_a_page_or_a_line_of_json_spells_it(quoted: str) -> None:
    traces = Traces(SPEC, parse_subject(SPEC, f"name={quoted}"))
    spelled = (quoted, json.dumps(quoted), json.dumps({"x": quoted}, ensure_ascii=False), html.escape(repr(quoted)))
    assert all(traces.mentioned(f"before {text} after") for text in spelled)
    assert not traces.mentioned(f"x{quoted}x")


def test_originals_that_hold_the_subject_or_cannot_be_read_are_expunged_and_the_others_stay(world: World) -> None:
    for day, name, data in (
        (DAYS[0], "its_rows.csv.gz", gzip.compress(LINES)),
        (DAYS[1], "truncated.csv.gz", gzip.compress(OTHERS)[:-9]),
        (DAYS[2], "others.csv", OTHERS),
    ):
        set_aside(world.store, "rows", day, world.file(f"inbox/{name}", data), observed=f"first: {day}")
    done = world.erase(f"customer={SUBJECT}")
    assert [text.split(":")[0] for text in done.quarantined] == [f"rows/{DAYS[0]}", f"rows/{DAYS[1]}"]
    assert "could not be read" in done.quarantined[1]
    entries = world.store.quarantined("rows")
    assert [list(world.store.originals(entry)) for entry in entries] == [[], [], ["others.csv"]]
    told = [check.observed for entry in entries for check in entry.report.checks]
    assert told == ["erased", "erased", f"first: {DAYS[2]}"]
    assert not world.erase(f"customer={SUBJECT}").found


def test_pages_sets_and_copies_with_the_subject_go_and_the_others_stay(world: World) -> None:
    trained = orders(DAYS[0]).select("order", "amount").with_columns(partition=pl.lit(DAYS[0]))
    others = trained.filter(~pl.col("order").str.contains("-7-"))
    for name, frame in (("its_rows", trained), ("others", others)):
        frame.write_parquet(world.file(f"work/uc/sets/{name}/train.parquet", ""))
        frame.drop("partition").write_parquet(world.file(f"cache/{name}.parquet", ""))
        world.file(f"reports/uc/validation/{name}.html", f"<td>{frame['order'][0]}</td>")
    done = world.erase(f"customer={SUBJECT}")
    names = ("reports/uc/validation/its_rows.html", "work/uc/sets/its_rows", "cache/its_rows.parquet")
    assert done.files == tuple(str(world.root / name) for name in names)
    left = {str(path.relative_to(world.root)) for path in world.root.rglob("*others*")}
    assert left == {name.replace("its_rows", "others") for name in names}


def test_runs_of_the_workspace_that_hold_the_subject_go_and_those_of_other_use_cases_stay(world: World) -> None:
    def run(name: str, use_case: str, word: str) -> Path:
        told = {"metadata": {"use_case": use_case}, "widgets": [{"params": {"x": [word]}}]}
        return world.file(f"reports/evidently/project/snapshots/{name}.json", json.dumps(told))

    its, other, theirs = run("1", "uc", ITS_ADDRESS), run("2", "uc", "elsewhere"), run("3", "letters", ITS_ADDRESS)
    half = world.file("reports/evidently/project/metadata.json", "{")
    done = world.erase(f"address={ITS_ADDRESS}")
    assert done.files == (str(its),)
    assert [path.is_file() for path in (its, other, theirs, half)] == [False, True, True, True]


def test_files_of_the_landing_zone_are_named_and_not_touched(world: World) -> None:
    its_rows = world.file(f"landing/orders/{DAYS[0]}.csv.gz", gzip.compress(orders(DAYS[0]).write_csv().encode()))
    world.file(f"landing/returns/{DAYS[1]}.jsonl", '{"order": "o-2024-03-02-8-0", "returned": true}\n')
    customers().write_parquet(world.file("landing/customers.parquet", ""))
    before = its_rows.read_bytes()
    done = world.erase(f"customer={SUBJECT}")
    assert done.remains == (f"landing zone: orders/{DAYS[0]}.csv.gz", "landing zone: customers.parquet")
    assert its_rows.read_bytes() == before


def test_words_that_people_left_in_records_are_named(world: World) -> None:
    head = world.store.head("rows")
    assert head is not None
    world.store.pin("kept", head, reason=f"asked by {ITS_ADDRESS}")
    done = world.erase(f"address={ITS_ADDRESS}")
    assert len(done.remains) == 1
    assert "pin" in done.remains[0]
    assert ITS_ADDRESS not in done.model_dump_json()


def test_what_was_handed_over_is_named_as_not_looked_at_and_is_replaced_by_the_next_delivery(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    world = World(open_store("delta", tmp_path), registry, tmp_path)
    fill(world.store)
    world.spec = handed.spec_with({"name": "crm", "sink": "files"}, {"name": "told", "sink": "webhook"})
    (tmp_path / "there").mkdir()
    sinks = {"crm": handed.file_sink(tmp_path / "there", tmp_path / "cache")}

    def handed_over() -> pl.DataFrame:
        predictions = delivery.published(world.store, DAYS)
        delivery.deliver(world.spec, world.store, sinks, predictions, RUN)
        return pl.concat([pl.read_parquet(path) for path in sorted((tmp_path / "there").rglob("part-*"))])

    before = handed_over()
    where = f"{tmp_path / 'there'}/uc/partition={DAYS[-1]}"
    for act in (False, True):
        (said,) = world.erase(f"customer={SUBJECT}", act=act).remains
        assert said.startswith(f"delivery crm: not looked at ({where})")
    its = pl.col("order").str.contains("-7-")
    assert before.filter(its).height == 6
    assert handed_over().equals(before.filter(~its))


# -- others at work ----------------------------------------------------------------------------------------------------


def test_a_publish_in_the_middle_is_not_lost_and_not_spared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    late = orders(DAYS[1], count=3)
    publish = world.store.publish
    waiting = [lambda: put(world.store, "rows", DAYS[1], late)]

    def interrupted(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        waiting.pop()()
        return publish(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "publish", interrupted)
    world.erase(f"customer={SUBJECT}")
    kept = seen(world.store, "rows").filter(pl.col("partition") == DAYS[1]).drop("partition")
    assert kept.equals(late.filter(pl.col("customer") != SUBJECT))
    assert holding(world.root, ITS_ADDRESS) == []


def test_others_that_never_stop_publishing_end_it_with_a_transient_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: object, **options: object) -> object:
        raise ConflictError("another run published")

    monkeypatch.setattr(world.store, "publish", lost)
    with pytest.raises(UnavailableError, match="run it again"):
        world.erase(f"customer={SUBJECT}")


def test_an_audit_that_finds_another_row_changed_lets_nothing_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(world.store, "rows")
    drafts = rewriting._drafts

    def careless(*arguments: object) -> object:
        for draft in drafts(*arguments):  # type: ignore[arg-type]
            frame = draft.frame
            yield type(draft)(partition=draft.partition, frame=frame.reverse())

    monkeypatch.setattr(rewriting, "_drafts", careless)
    with pytest.raises(Exception, match="other_rows_unchanged_and_in_order"):
        world.erase(f"customer={SUBJECT}")
    assert seen(world.store, "rows").equals(before)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("customer", "not the form column=value"),
        ("=12", "not the form column=value"),
        ("customer=", "not the form column=value"),
        ("customer=   ", "not the form column=value"),
        ("client=12", "Allowed: order, customer, address, name, since"),
        ("customer=twelve", "Allowed: int"),
        ("customer=12.5", "Allowed: int"),
        ("since=1.1.2020", "Allowed: date"),
        ("amount=3", "names nobody"),
        ("gift=true", "names nobody"),
    ],
)
def test_a_key_that_names_nobody_is_refused_in_words(key: str, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        parse_subject(SPEC, key)


def test_no_message_and_no_repr_repeats_the_value() -> None:
    with pytest.raises(SpecError) as refused:
        parse_subject(SPEC, "customer=secret-of-its_rows")
    assert "secret-of-its_rows" not in str(refused.value)
    assert ITS_ADDRESS not in repr(parse_subject(SPEC, f"address={ITS_ADDRESS}"))


@pytest.mark.parametrize("reason", ["", "  ", f"asked by {ITS_ADDRESS}"])
def test_a_reason_is_needed_and_may_not_name_the_subject(world: World, reason: str) -> None:
    before = world.visible()
    with pytest.raises(SpecError, match="reason"):
        world.erase(f"address={ITS_ADDRESS}", reason=reason)
    assert world.visible() == before


def test_a_subject_is_typed_as_its_tables_have_it() -> None:
    assert parse_subject(SPEC, f"customer={SUBJECT}").values == {"rows": SUBJECT, "customers": SUBJECT}
    assert parse_subject(SPEC, "since=2020-01-01").values == {"customers": date(2020, 1, 1)}
    assert set(parse_subject(SPEC, "order=o-1").values) == {"rows", "labels", "predictions"}
    assert parse_subject(SPEC, "address=a=b").values == {"rows": "a=b"}
