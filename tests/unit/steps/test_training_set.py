"""What a training set takes from published tables: weights beside the label, and no label outside the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.errors import SpecError
from pipelines.ports import Draft, SnapshotStore
from pipelines.spec import UseCase
from pipelines.steps.training import build_training_set
from pipelines.steps.watching.labels import labelled_scores
from tests.contracts.stores import RUN, audit, open_store

DAYS = [f"2024-01-{day:02d}" for day in range(1, 7)]


def use_case(task: str = "regression", **training: Any) -> UseCase:
    label: dict[str, Any] = {"column": "y", "task": task, "maturity": 0}
    if task == "multiclass":
        label["classes"] = ["low", "high"]
    kind = "string" if task == "multiclass" else "float"
    columns = {"id": {"type": "string"}, "x": {"type": "float"}, "trust": {"type": "int"}}
    return UseCase.model_validate(
        {
            "name": "uc",
            "title": "Use case",
            "description": "A small table.",
            "owner": "tests",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {
                "rows": {"path": "rows/{partition}.csv", "key": ["id"], "columns": columns},
                "labels": {
                    "path": "labels/{partition}.csv",
                    "key": ["id"],
                    "columns": {"id": {"type": "string"}, "y": {"type": kind}, "cost": {"type": "float"}},
                },
            },
            "label": label,
            "features": {"numeric": ["x"]},
            "training": {"validation": 1, "holdout": 1, "min_rows": 2, **training},
            "gates": {"metric": "accuracy" if task == "multiclass" else "rmse", "bound": 1},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return open_store("delta", tmp_path)


def publish(store: SnapshotStore, table: str, frames: dict[str, pl.DataFrame]) -> None:
    staged = store.stage(table, [Draft(partition=day, frame=frame) for day, frame in frames.items()], RUN)
    store.publish(table, staged, [audit(part) for part in staged], RUN)


def fill(store: SnapshotStore, outcome: list[Any]) -> None:
    """The same three keys every day: only the partition tells the rows apart."""
    ids = ["a", "b", "c"]
    rows = {
        day: pl.DataFrame({"id": ids, "x": [1.0, 2.0, 3.0], "trust": [10 * n, 10 * n + 1, None]})
        for n, day in enumerate(DAYS)
    }
    labels = {day: pl.DataFrame({"id": ids, "y": outcome, "cost": [0.5, 1.5, 2.5]}) for day in DAYS}
    publish(store, "rows", rows)
    publish(store, "labels", labels)


def built(spec: UseCase, store: SnapshotStore, folder: Path, part: str) -> pl.DataFrame:
    made = build_training_set(spec, store, DAYS[-1], folder)
    return pl.read_parquet(Path(made.folder) / f"{part}.parquet")


def test_a_weight_of_the_labels_table_comes_with_the_label(store: SnapshotStore, tmp_path: Path) -> None:
    fill(store, [1.0, None, 3.0])
    frame = built(use_case(sample_weight="cost"), store, tmp_path / "sets", "holdout")
    assert frame.select("id", "label", "weight").rows() == [("a", 1.0, 0.5), ("c", 3.0, 2.5)]


def test_a_weight_of_rows_is_each_rows_own_and_a_null_stays_for_the_training_to_refuse(
    store: SnapshotStore, tmp_path: Path
) -> None:
    fill(store, [1.0, 2.0, 3.0])
    spec = use_case(sample_weight="trust")
    assert built(spec, store, tmp_path / "sets", "validation").get_column("weight").to_list() == [40, 41, None]
    assert built(spec, store, tmp_path / "sets", "holdout").get_column("weight").to_list() == [50, 51, None]
    assert "weight" not in built(use_case(), store, tmp_path / "sets", "train").columns


def test_a_key_that_comes_back_in_every_partition_gets_its_own_label_and_weight(
    store: SnapshotStore, tmp_path: Path
) -> None:
    fill(store, [1.0, 2.0, 3.0])
    frame = built(use_case(sample_weight="trust"), store, tmp_path / "sets", "train")
    assert frame.height == 3 * 4
    assert frame.filter(pl.col("id") == "a").get_column("weight").to_list() == [0, 10, 20, 30]
    assert frame.filter(pl.col("id") == "b").get_column("label").to_list() == [2] * 4


def test_a_key_that_comes_back_is_judged_by_the_label_of_its_own_partition(store: SnapshotStore) -> None:
    ids = ["a", "b", "c"]
    labels = {day: pl.DataFrame({"id": ids, "y": [n, n, n], "cost": [1.0] * 3}) for n, day in enumerate(DAYS)}
    publish(store, "labels", {day: frame.cast({"y": pl.Float64}) for day, frame in labels.items()})
    head = store.head("labels")
    assert head is not None
    scores = pl.DataFrame({"partition": [day for day in DAYS for _ in ids], "id": ids * len(DAYS), "score": 0.5})
    judged = labelled_scores(use_case(), store, {"labels": head}, scores, list(DAYS)).rows
    assert judged.height == scores.height
    assert judged.sort("partition", "id").get_column("label").to_list() == [n for n in range(len(DAYS)) for _ in ids]


def test_a_row_without_a_label_is_unlabelled_whatever_its_key_has_elsewhere(
    store: SnapshotStore, tmp_path: Path
) -> None:
    fill(store, [1.0, None, 3.0])
    late = pl.DataFrame({"id": ["b"], "y": [2.0], "cost": [1.0]})
    publish(store, "labels", {DAYS[1]: late})
    frame = built(use_case(), store, tmp_path / "sets", "unlabelled")
    assert frame.select("partition", "id").rows() == [
        (DAYS[0], "b"),
        (DAYS[1], "a"),
        (DAYS[1], "c"),
        *((day, "b") for day in DAYS[2:4]),
    ]


def test_labels_outside_the_classes_are_named_with_the_classes(store: SnapshotStore, tmp_path: Path) -> None:
    fill(store, ["low", "hgih", None])
    with pytest.raises(SpecError, match=r"labels column 'y': 1 values are no classes: hgih\. Allowed: low, high\."):
        build_training_set(use_case("multiclass"), store, DAYS[-1], tmp_path / "sets")
