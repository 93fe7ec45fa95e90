"""The unlabelled part of a training set: which rows are in it, and what is recorded of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipelines.backends.files import Files
from pipelines.ports import STATIC, SnapshotStore
from pipelines.records import TrainingSet
from pipelines.spec import UseCase
from pipelines.steps.erasure import Places, erase, parse_subject
from pipelines.steps.training import build_training_set
from tests.cases.orders import RUN, SPEC, SUBJECT, customers, orders, put, returns
from tests.contracts.stores import open_store
from tests.registries import open_registry

#: Labels of the 2nd never came, those of the 1st did not come for all; those of the 7th are there too early.
DAYS = tuple(f"2024-03-0{day}" for day in range(1, 8))
LABELLED = (DAYS[0], DAYS[2], DAYS[3], DAYS[4], DAYS[6])


def make_spec(**training: object) -> UseCase:
    told = SPEC.model_dump()
    told["label"]["maturity"] = 1
    told["training"] |= {"validation": 1, "holdout": 1, "min_rows": 2, **training}
    return UseCase.model_validate(told)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    made = open_store("delta", tmp_path)
    for day in DAYS:
        put(made, "rows", day, orders(day))
    for day in LABELLED:
        put(made, "labels", day, returns(day))
    some = returns(DAYS[0]).slice(1).with_columns(returned=pl.when(pl.col("order") > "o-2024-03-01-8").then("returned"))
    put(made, "labels", DAYS[0], some)
    put(made, "customers", STATIC, customers())
    return made


def unlabelled(made: TrainingSet) -> pl.DataFrame:
    return pl.read_parquet(Path(made.folder) / "unlabelled.parquet")


def test_rows_of_the_train_stretch_without_a_label_and_newer_ones_are_written_without_any_label(
    store: SnapshotStore, tmp_path: Path
) -> None:
    made = build_training_set(make_spec(), store, DAYS[6], tmp_path / "work")
    assert (made.train, made.validation, made.holdout) == ((DAYS[0], DAYS[2]), (DAYS[3],) * 2, (DAYS[4],) * 2)
    rows = unlabelled(made)
    assert rows.columns == ["partition", "order", "amount", "gift"]
    assert dict(rows.get_column("partition").value_counts().iter_rows()) == {
        DAYS[0]: 2,
        DAYS[1]: 6,
        DAYS[5]: 6,
        DAYS[6]: 6,
    }
    assert made.rows["unlabelled"] == 20
    known = pl.concat([pl.read_parquet(Path(made.folder) / f"{part}.parquet") for part in ("train", "validation")])
    assert rows.join(known, on="order", how="semi").is_empty()
    assert made.unlabelled == (DAYS[5], DAYS[6])
    assert made.reads["rows"] == ((DAYS[0], DAYS[6]),)
    assert made.reads["labels"] == ((DAYS[0], DAYS[4]),), "no label newer than the holdout's is read"


def test_no_partition_newer_than_as_of_is_read(store: SnapshotStore, tmp_path: Path) -> None:
    made = build_training_set(make_spec(), store, DAYS[5], tmp_path / "work")
    assert unlabelled(made).get_column("partition").max() == DAYS[5]
    assert made.unlabelled == (DAYS[5], DAYS[5])


def test_the_digest_covers_the_unlabelled_rows_and_labels_that_are_not_mature_change_nothing(
    store: SnapshotStore, tmp_path: Path
) -> None:
    spec, work = make_spec(), tmp_path / "work"
    first = build_training_set(spec, store, DAYS[6], work)
    put(store, "labels", DAYS[6], returns(DAYS[6]).with_columns(returned=~pl.col("returned")))
    again = build_training_set(spec, store, DAYS[6], work)
    assert again.digest == first.digest
    put(store, "rows", DAYS[6], orders(DAYS[6]).with_columns(amount=pl.col("amount") + 1))
    assert build_training_set(spec, store, DAYS[6], work).digest != first.digest


def test_a_spec_that_wants_none_gets_none(store: SnapshotStore, tmp_path: Path) -> None:
    made = build_training_set(make_spec(student={"unlabelled": False}), store, DAYS[6], tmp_path / "work")
    assert made.rows["unlabelled"] == 0
    assert made.unlabelled is None
    assert made.reads["rows"] == ((DAYS[0], DAYS[0]), (DAYS[2], DAYS[4]))
    assert not (Path(made.folder) / "unlabelled.parquet").exists()


def test_an_erasure_finds_the_subject_in_unlabelled_rows_alone_and_names_the_part(
    store: SnapshotStore, tmp_path: Path
) -> None:
    for day in DAYS[:6]:
        put(store, "rows", day, orders(day).filter(pl.col("customer") != SUBJECT))
    made = build_training_set(make_spec(), store, DAYS[6], tmp_path / "work")
    assert made.unlabelled is not None
    registry = open_registry("uc", f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "models")
    tags = {f"overnight.{part}": "..".join(getattr(made, part)) for part in ("train", "validation", "holdout")}
    tags |= {"overnight.snapshots": " ".join(ref.id for ref in made.snapshots if ref.table == "rows")}
    without = registry.start_training(SPEC, {"overnight.training_key": "0" * 64, **tags})
    new = {"overnight.training_key": "1" * 64, **tags, "overnight.unlabelled": "..".join(made.unlabelled)}
    run_id = registry.start_training(SPEC, new)
    done = erase(
        SPEC,
        store,
        Files(tmp_path / "landing"),
        registry,
        parse_subject(SPEC, f"customer={SUBJECT}"),
        Places(reports=tmp_path / "reports", work=tmp_path / "work", cache=tmp_path / "none"),
        RUN,
        reason="request 12",
        act=False,
    )
    named = {model.run_id: model.parts for model in done.models}
    assert named[run_id] == ("unlabelled",)
    assert without not in named
    assert [Path(path).parent.name for path in done.files] == ["sets"]
