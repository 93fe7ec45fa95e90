"""The report's samples, files and run, on a real store and a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from pipelines import artifacts
from pipelines.backends.evidently_report import compare
from pipelines.errors import NotFoundError
from pipelines.records import Observations
from pipelines.runtime import Runtime
from pipelines.steps.training import SAMPLE
from tests.cases.champions import DAYS, NAME, Champions

AS_OF, WINDOW, ROWS = DAYS[11], 5, 400


@pytest.fixture
def runtime(registered: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Version 1 is champion and has scored the window."""
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    mine = registered.copy(tmp_path, drift={"min_rows": 100, "report_rows": ROWS})
    mine.promote(1, "first")
    made = mine.runtime()
    made.publish_scores(made.audit_scores(made.score(DAYS[7:12])))
    return made


def looked(runtime: Runtime) -> Observations:
    return runtime.observe(AS_OF, WINDOW)


def test_the_json_is_of_the_champions_sample_and_of_the_windows_rows_with_the_smallest_hashes(runtime: Runtime) -> None:
    seen = looked(runtime)
    html = runtime.drift_report(seen)
    assert html == runtime.settings.reports / NAME / "drift" / f"{AS_OF}-champion-1.html"
    told = json.loads(html.with_suffix(".json").read_text("utf-8"))
    # The same samples, made another way.
    head = runtime.store.head("rows")
    assert head is not None
    rows = runtime.store.scan(head, DAYS[7:12]).collect()
    assert rows.height > ROWS
    hashes = rows.select(pl.col("id")).hash_rows(seed=20130901)
    kept = set(sorted(hashes)[:ROWS])
    current = rows.filter(hashes.is_in(list(kept)))
    folder = runtime.registry.fetch(seen.champion)
    reference = pl.read_parquet(artifacts.read(folder, seen.champion.digest, SAMPLE)[0])
    assert current.height == ROWS
    again = json.loads(compare(runtime.spec, reference, current, as_of=AS_OF, champion=1).json())
    assert [each["config"] for each in told["metrics"]] == [each["config"] for each in again["metrics"]]
    for one, other in zip(told["metrics"][1:], again["metrics"][1:], strict=True):
        # The rows come in another order.
        assert one["value"] == pytest.approx(other["value"], rel=1e-9)
    other_rows = compare(runtime.spec, reference, rows.head(ROWS), as_of=AS_OF, champion=1)
    assert json.loads(other_rows.json())["metrics"][1]["value"] != told["metrics"][1]["value"]


def test_a_repeat_writes_the_same_figures_and_leaves_one_run(runtime: Runtime) -> None:
    seen = looked(runtime)
    first = runtime.drift_report(seen).with_suffix(".json").read_bytes()
    html = runtime.drift_report(seen)
    assert html.with_suffix(".json").read_bytes() == first
    assert sorted(path.name for path in html.parent.iterdir()) == [
        f"{AS_OF}-champion-1.html",
        f"{AS_OF}-champion-1.json",
    ]
    from evidently.ui.workspace import Workspace

    workspace = Workspace.create(str(runtime.settings.reports / "evidently"))
    (project,) = workspace.search_project(NAME)
    (run,) = workspace.list_runs(project.id)
    found = workspace.get_run(project.id, run)
    assert found is not None
    assert found.metadata == {"use_case": NAME, "as_of": AS_OF, "champion": "1"}


def test_a_workspace_that_cannot_be_written_does_not_fail_the_step(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.settings.reports.mkdir(parents=True, exist_ok=True)
    (runtime.settings.reports / "evidently").write_text("in the way")
    assert runtime.drift_report(looked(runtime)).is_file()
    assert "is not in Evidently's workspace" in caplog.text


def test_an_erasure_finds_the_page_the_figures_and_the_run_of_a_feature(runtime: Runtime) -> None:
    html = runtime.drift_report(looked(runtime))
    (run,) = (runtime.settings.reports / "evidently").glob("*/snapshots/*.json")
    would = runtime.erase("site=north", "x", act=False)
    for path in (html, html.with_suffix(".json"), run):
        assert str(path) in would.files
    assert str(run.parents[1] / "metadata.json") not in would.files


def test_a_window_without_published_partitions_is_refused_and_leaves_nothing(runtime: Runtime) -> None:
    seen = looked(runtime)
    window = [each.model_copy(update={"partition": "2031-01-01"}) for each in seen.window]
    with pytest.raises(NotFoundError, match="no partition of the window is published"):
        runtime.drift_report(seen.model_copy(update={"window": window}))
    assert not runtime.settings.reports.exists() or not list(runtime.settings.reports.rglob("*champion*"))
