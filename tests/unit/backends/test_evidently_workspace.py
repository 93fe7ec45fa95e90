"""The workspace folder: Evidently's own classes and its own UI find in it what was published, once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import polars as pl
import pytest

from pipelines.backends.evidently_report import Evidently
from pipelines.spec import UseCase
from tests.unit.backends.test_evidently_report import SPEC, sample, values
from tests.unit.backends.test_psi import use_case

T = TypeVar("T")
NIGHT = "2024-03-05"


@pytest.fixture(autouse=True)
def _untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")


def report(
    root: Path, now: pl.DataFrame | None = None, as_of: str = NIGHT, champion: int = 3, spec: UseCase = SPEC
) -> Path:
    """Writes a night's report below `root`; gives its page."""
    html = root / spec.name / "drift" / f"{as_of}-champion-{champion}.html"
    current = sample(2, rows=300) if now is None else now
    Evidently().write(
        spec, sample(1, rows=300), current, html, workspace=root / "evidently", as_of=as_of, champion=champion
    )
    return html


def opened(root: Path) -> Any:
    from evidently.ui.workspace import Workspace

    return Workspace.create(str(root / "evidently"))


def runs(root: Path) -> dict[str, dict[str, Any]]:
    """What Evidently's own class finds: name -> what it says of the run."""
    workspace = opened(root)
    (project,) = workspace.search_project(SPEC.name)
    found = [workspace.get_run(project.id, each) for each in workspace.list_runs(project.id)]
    named = {each.name: {"tags": each.tags, "at": each.timestamp.isoformat(), **each.metadata} for each in found}
    assert len(named) == len(found)
    return named


def test_two_reports_of_a_night_leave_one_run_and_another_night_or_champion_adds_one(tmp_path: Path) -> None:
    report(tmp_path)
    html = report(tmp_path, sample(2, shift=2.0, rows=300))
    told = {"use_case": "parcels", "as_of": NIGHT, "champion": "3", "tags": ["champion 3"], "at": f"{NIGHT}T00:00:00"}
    assert runs(tmp_path) == {f"{NIGHT}, champion 3": told}
    # The second report replaced the first: the run's figures are those of the JSON beside the page.
    workspace = opened(tmp_path)
    (project,) = workspace.list_projects()
    (run,) = workspace.list_runs(project.id)
    from evidently.core.report import Snapshot

    again = Snapshot.load_model(workspace.get_run(project.id, run))
    assert json.loads(again.json()) == json.loads(html.with_suffix(".json").read_text("utf-8"))
    assert values(again.json())["moved"] > 1.0
    report(tmp_path, as_of="2024-03-06")
    report(tmp_path, champion=4)
    assert set(runs(tmp_path)) == {
        f"{NIGHT}, champion 3",
        "2024-03-06, champion 3",
        f"{NIGHT}, champion 4",
    }
    assert sorted(path.suffix for path in html.parent.iterdir()) == [".html"] * 3 + [".json"] * 3, "no draft is left"


def test_a_use_case_has_a_project_of_its_own_and_keeps_the_one_that_a_person_made_or_renamed(tmp_path: Path) -> None:
    mine = opened(tmp_path).create_project("parcels", "made by hand")
    report(tmp_path)
    other = SPEC.model_copy(update={"name": "letters"})
    report(tmp_path, spec=other)
    workspace = opened(tmp_path)
    projects = {each.name: each for each in workspace.list_projects()}
    assert sorted(projects) == ["letters", "parcels"]
    assert projects["parcels"].id == mine.id
    assert projects["parcels"].description == "made by hand"
    assert len(projects["parcels"].dashboard.model().panels) == 4
    projects["letters"].name = "Our letters"
    projects["letters"].save()
    report(tmp_path, spec=other, as_of="2024-03-06")
    (renamed,) = [each for each in opened(tmp_path).list_projects() if each.name != "parcels"]
    assert renamed.name == "Our letters"
    assert len(workspace.list_runs(renamed.id)) == 2


def test_the_dashboard_is_peoples_own_but_for_features_that_came_later(tmp_path: Path) -> None:
    report(tmp_path)
    (project,) = opened(tmp_path).list_projects()
    before = project.dashboard.model()
    (tab,) = before.tabs
    assert tab.panels == [panel.id for panel in before.panels]
    lines = before.panels[-1]
    assert [value.metric_labels for value in lines.values] == [{"column": name} for name in SPEC.features.columns]
    project.dashboard.delete_panel("Share of drifted features", "Drift")
    report(tmp_path)
    left = [panel.title for panel in project.dashboard.model().panels]
    assert left == [panel.title for panel in before.panels if panel.title != "Share of drifted features"]
    wider = use_case(numeric=("calm", "moved", "constant", "added"), categorical=("steady", "other"))
    rows = sample(1, rows=300).with_columns(added=pl.col("calm"))
    Evidently().write(wider, rows, rows, tmp_path / "x.html", workspace=tmp_path / "evidently", as_of=NIGHT, champion=5)
    after = project.dashboard.model()
    assert [panel.title for panel in after.panels] == left
    assert [value.legend for value in after.panels[-1].values] == [*SPEC.features.columns, "added"]
    project.dashboard.delete_panel("PSI of each feature", "Drift")
    report(tmp_path)
    assert "PSI of each feature" not in [panel.title for panel in project.dashboard.model().panels]


_RACER = """
import sys, time
from pathlib import Path
from tests.unit.backends.test_evidently_report import SPEC, sample
from pipelines.backends import evidently_workspace
from pipelines.backends.evidently_report import compare
root, name, nights = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
made = {night: compare(SPEC, sample(1, rows=50), sample(2, rows=50), as_of=night, champion=3) for night in nights}
found = evidently_workspace._found
def slowly(*args):
    # Both have looked, and found nothing, before either goes on.
    known = found(*args)
    (root / f"{name}.looked").touch()
    while len(list(root.glob("*.looked"))) < 2:
        time.sleep(0.005)
    return known
evidently_workspace._found = slowly
for night, snapshot in made.items():
    drafts = root / f"drafts-{name}-{night}"
    evidently_workspace.publish(SPEC, snapshot, root / "evidently", drafts, as_of=night, champion=3)
"""


def test_two_processes_at_once_make_one_project_and_lose_no_run(tmp_path: Path) -> None:
    nights = {"one": "2024-03-05,2024-03-06", "two": "2024-03-06,2024-03-07"}
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, str(tmp_path), name, told], stderr=subprocess.PIPE, text=True)
        for name, told in nights.items()
    ]
    said = [racer.communicate(timeout=300)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert set(runs(tmp_path)) == {f"2024-03-0{day}, champion 3" for day in (5, 6, 7)}


def test_a_project_that_a_killed_process_left_half_made_is_finished(tmp_path: Path) -> None:
    report(tmp_path)
    (project,) = (tmp_path / "evidently").iterdir()
    whole = sorted(str(path.relative_to(project)) for path in project.rglob("*.json"))
    for name in ("metadata.json", "dashboard.json"):
        (project / name).unlink()
    report(tmp_path)
    assert sorted(str(path.relative_to(project)) for path in project.rglob("*.json")) == whole
    assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize("spoiled", ["a file in the workspace's place", "a broken dashboard", "no right to write"])
def test_a_workspace_that_fails_is_logged_and_does_not_fail_the_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoiled: str
) -> None:
    workspace = tmp_path / "evidently"
    if spoiled.startswith("a file"):
        workspace.write_text("not a folder")
    elif spoiled.startswith("a broken"):
        report(tmp_path, as_of="2024-03-04")
        (project,) = workspace.iterdir()
        (project / "dashboard.json").write_text("{")
    else:
        # A link into /proc: nobody may make a folder there, root neither.
        workspace.symlink_to("/proc/1/fd/evidently")
    html = report(tmp_path)
    assert html.stat().st_size > 100_000
    assert html.with_suffix(".json").is_file()
    (record,) = [each for each in caplog.records if each.name == "pipelines.backends.evidently_report"]
    assert f"{NIGHT}-champion-3 is not in Evidently's workspace {workspace}" in record.getMessage()
    assert not list(html.parent.glob(".*")), "no draft is left"


def test_what_a_reader_of_the_workspace_sees_is_always_whole(tmp_path: Path) -> None:
    """Every file comes into its place by a rename: none of them is ever opened for writing there."""
    written: list[str] = []
    watching = True

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(args[0])

    sys.addaudithook(watch)  # for good: there is no taking it back
    try:
        report(tmp_path)
    finally:
        watching = False
    mine = [path for path in written if path.startswith(str(tmp_path))]
    assert len(mine) == 5, "page, figures, project, dashboard and run, all of them drafts"
    assert not [path for path in mine if path.startswith(str(tmp_path / "evidently"))]


# -- Evidently's own UI ------------------------------------------------------------------------------------------------


def eventually(look: Callable[[], T], patience: float = 120.0) -> T:
    """What a look gives as soon as it gives something true."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if found := look():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)


@contextmanager
def ui(workspace: Path, home: Path) -> Iterator[httpx.Client]:
    """The program `evidently ui`, listening on this machine alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("evidently"), "ui", "--workspace", workspace, "--port", str(port)]
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(home)}
    with (home / "ui.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, env=environment)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
                eventually(lambda: process.poll() is not None or client.get("/api/version").is_success)
                assert process.poll() is None, (home / "ui.log").read_text()[-2000:]
                yield client
        finally:
            process.kill()
            process.wait()


def test_evidentlys_own_ui_lists_the_project_and_its_runs_draws_them_and_sees_new_ones(tmp_path: Path) -> None:
    html = report(tmp_path, sample(2, shift=2.0, rows=300))
    with ui(tmp_path / "evidently", tmp_path) as client:
        assert client.get("/api/version").json()["application"] == "Evidently UI"
        (project,) = client.get("/api/projects").json()
        assert project["name"] == SPEC.name
        at = f"/api/projects/{project['id']}"

        def listed() -> dict[str, str]:
            return {each["name"]: each["id"] for each in client.get(f"{at}/snapshots").json()}

        assert list(listed()) == [f"{NIGHT}, champion 3"]
        run = listed()[f"{NIGHT}, champion 3"]
        figures = client.get(f"{at}/{run}/download", params={"report_format": "json"})
        assert figures.json() == json.loads(html.with_suffix(".json").read_text("utf-8"))
        page = client.get(f"{at}/{run}/download", params={"report_format": "html"})
        assert page.is_success
        assert "moved" in page.text
        # What is published while it runs is seen without a restart: another night, and a repeat of this one.
        report(tmp_path, as_of="2024-03-06")
        eventually(lambda: "2024-03-06, champion 3" in listed())
        report(tmp_path)
        dashboard = client.get(f"/api/v2/dashboards/{project['id']}").json()
        lines = dashboard["panels"][-1]
        asked = {"series_filter": [{**value, "tags": [], "metadata": {}} for value in lines["values"]]}

        def series() -> dict[str, list[float]]:
            told = client.post(f"/api/v2/snapshots/{project['id']}/data_series_batch", json=asked).json()
            assert [source["timestamp"][:10] for source in told["sources"]] == [NIGHT, "2024-03-06"]
            return {each["params"]["column"]: each["values"] for each in told["series"]}

        assert list(series()) == list(SPEC.features.columns)
        calm = values(report(tmp_path).with_suffix(".json").read_text("utf-8"))
        eventually(lambda: {name: each[0] for name, each in series().items()} == calm)
        share = client.post(
            f"/api/v2/snapshots/{project['id']}/data_series_batch",
            json={"series_filter": [{**dashboard["panels"][1]["values"][0], "tags": [], "metadata": {}}]},
        ).json()
        assert [each["params"]["value_type"] for each in share["series"]] == ["share"]
        # A project that is made while it runs.
        report(tmp_path, spec=SPEC.model_copy(update={"name": "letters"}))
        eventually(lambda: {each["name"] for each in client.get("/api/projects").json()} == {SPEC.name, "letters"})
