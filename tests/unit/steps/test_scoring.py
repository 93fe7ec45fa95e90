"""What published predictions were made of, whatever commits brought them where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.ports import SnapshotStore
from pipelines.records import SnapshotRef
from pipelines.steps.predictions import PREDICTIONS, published_predictions
from tests.contracts.stores import RUN, audit, open_store, stage


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return open_store("delta", tmp_path)


def predict(store: SnapshotStore, day: str, value: float, inputs: str) -> SnapshotRef:
    staged = stage(store, day, value, table=PREDICTIONS)
    provenance = {"predictions": {day: {"model": 1, "inputs": inputs}}}
    return store.publish(PREDICTIONS, [staged], [audit(staged)], RUN, provenance=provenance).snapshot


def inputs(store: SnapshotStore) -> dict[str, str]:
    return {day: made["inputs"] for day, made in published_predictions(store).items()}


def test_the_newest_publish_of_a_partition_is_what_it_was_made_of(store: SnapshotStore) -> None:
    predict(store, "2013-01-01", 1, "a")
    predict(store, "2013-01-01", 2, "b")
    predict(store, "2013-01-02", 1, "c")
    assert inputs(store) == {"2013-01-01": "b", "2013-01-02": "c"}
    predict(store, "2013-01-01", 1, "d")  # the first bytes again, from other inputs
    assert inputs(store)["2013-01-01"] == "d"


def test_a_revert_brings_back_what_the_earlier_predictions_were_made_of_and_takes_away_later_ones(
    store: SnapshotStore,
) -> None:
    first = predict(store, "2013-01-01", 1, "a")
    predict(store, "2013-01-01", 2, "b")
    predict(store, "2013-01-02", 1, "c")
    store.revert(first, RUN, reason="test")
    assert inputs(store) == {"2013-01-01": "a"}
    predict(store, "2013-01-02", 3, "d")
    assert inputs(store) == {"2013-01-01": "a", "2013-01-02": "d"}
