"""What a registration says of the suites that judged the data."""

from __future__ import annotations

from pathlib import Path

from pipelines.records import TrainingSet
from pipelines.steps.registration import suites
from tests.contracts.stores import open_store, put


def test_the_suites_of_exactly_what_was_read_are_named(tmp_path: Path) -> None:
    store = open_store("delta", tmp_path)
    put(store, "2013-09-01", 1)
    snapshot = put(store, "2013-09-02", 2).snapshot
    put(store, "2013-09-03", 3)
    days = ("2013-09-01", "2013-09-02")
    training_set = TrainingSet(
        use_case="uc",
        folder="",
        as_of=days[1],
        snapshots=(snapshot,),
        train=days,
        validation=days,
        holdout=days,
        reads={"rows": (days,)},
        rows={},
        digest="",
    )
    (commit, *_) = store.history("rows")
    digest = next(iter(commit.audits.values())).suite_digest[:16]
    assert suites(store, training_set) == f"rows={digest}"
    nothing = training_set.model_copy(update={"reads": {"rows": ()}})
    assert suites(store, nothing) == "rows="
