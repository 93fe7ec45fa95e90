"""The third use case: a spec alone, hourly, three classes, JSON lines and Parquet."""

from __future__ import annotations

from pathlib import Path

from tests.cases import Case
from tests.chain.conftest import command_line, runtime_of


def test_a_table_is_onboarded_by_a_spec_alone(third_case: Case, home: Path) -> None:
    first, last = third_case.keys[0], third_case.keys[-1]
    done = command_line(third_case, home, "run", "readings", "--from", first, "--to", last, "--monitor")
    assert done.exit_code == 0, done.output
    assert "champion: readings@1" in done.output
    runtime = runtime_of(third_case, home)
    scored = runtime.store.scan(runtime.store.head("predictions")).collect()
    names = ["score_idle", "score_running", "score_fault"]
    assert scored.columns == [
        "partition",
        "pump",
        "read_at",
        *names,
        "prediction",
        "model_version",
        "snapshot",
        "scored_at",
    ]
    assert (scored.select(names).sum_horizontal() - 1).abs().max() < 1e-5
    assert scored.height == 60 * len(third_case.keys)
    assert set(scored.get_column("prediction").unique()) <= {"idle", "running", "fault"}


def test_labels_that_lag_are_taken_of_earlier_partitions(third_case: Case, home: Path) -> None:
    first, last = third_case.keys[0], third_case.keys[9]
    done = command_line(third_case, home, "run", "readings", "--from", first, "--to", last, "--no-train")
    assert done.exit_code == 0, done.output
    runtime = runtime_of(third_case, home)
    labels = runtime.store.partitions(runtime.store.head("labels"))
    assert list(labels) == list(third_case.keys[:8])
