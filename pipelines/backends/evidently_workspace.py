"""A folder that Evidently's own UI opens: one project a use case, one run a look back. No server is asked.

Evidently's `Workspace` reads every run of every project when it is opened. What it writes with is used here instead, on
drafts that are moved into place: the UI may be looking, and another process may write the same.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from pipelines.spec import UseCase

#: Of the ids that are made of names, so that whoever makes a project or a run twice makes the same one.
_NAMES = uuid.UUID("6f2c1d0e-5a6b-4c1f-9d0e-0a7e1f2b3c4d")


def publish(spec: UseCase, snapshot: Any, workspace: Path, drafts: Path, *, as_of: str, champion: int) -> None:
    """Adds a run to the use case's project, or replaces the run of the same partition and champion.

    The project is found by name and made when there is none. Its dashboard is written once and is people's from then
    on: later on, only features that the panel of features does not have are added to it.

    Args:
        snapshot: Evidently's, of `evidently_report.compare`.
        workspace: made when it is not there.
        drafts: an empty folder on the same file system. The UI must not watch it: it takes what is moved within the
            folder that it watches for gone.

    Raises:
        OSError: the workspace cannot be written.
        ValueError: something in it is not what Evidently writes.
    """
    from evidently.ui.storage.local.base import DASHBOARD_FILE_NAME, PROJECT_FILE_NAME, LocalState

    state, draft = LocalState(str(workspace)), LocalState(str(drafts))
    project = _found(state, spec.name) or uuid.uuid5(_NAMES, spec.name)
    if not (workspace / str(project) / PROJECT_FILE_NAME).is_file():
        draft.write_project(_project(spec, project))
    if not (workspace / str(project) / DASHBOARD_FILE_NAME).is_file():
        dashboard: Any = _dashboard(spec, project)
    else:
        dashboard = _grown(state.read_dashboard(project), spec, project)
    draft.write_snapshot(project, run_id(project, as_of, champion), snapshot.to_snapshot_model())
    if dashboard is not None:
        draft.write_dashboard(project, dashboard)
    # In this order the dashboard comes before the project, by which the UI knows it, and the project before its run.
    for path in sorted(drafts.rglob("*.json")):
        target = workspace / path.relative_to(drafts)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def run_id(project: uuid.UUID, as_of: str, champion: int) -> uuid.UUID:
    """The id of the run of a partition and a champion's version, in a project."""
    return uuid.uuid5(uuid.UUID(str(project)), f"{as_of}/{champion}")


def _found(state: Any, name: str) -> uuid.UUID | None:
    """The project that Overnight made, whatever people call it now, else one of this name."""
    known = [uuid.UUID(str(each)) for each in state.list_projects()]
    own = uuid.uuid5(_NAMES, name)
    if own in known:
        return own
    for each in sorted(known):
        try:
            if state.read_project(each).name == name:
                return each
        except (OSError, ValueError):
            continue  # not a project, or one that is being made or deleted
    return None


def _project(spec: UseCase, project: uuid.UUID) -> Any:
    from evidently.sdk.models import ProjectModel

    return ProjectModel(id=project, name=spec.name, description=f"{spec.title}. {spec.description}")


def _dashboard(spec: UseCase, project: uuid.UUID) -> Any:
    """One tab: how many features drifted, and the PSI of each, over the nights."""
    from evidently.sdk.models import DashboardModel, DashboardTabModel, PanelMetric
    from evidently.sdk.panels import counter_panel, line_plot_panel, text_panel

    share = PanelMetric(legend="share", metric="DriftedColumnsCount", metric_labels={"value_type": "share"})
    sampled = (
        "Evidently's PSI between the champion's training sample and a sample of the window, at most "
        f"{spec.drift.report_rows:,} rows a side. Alarms and retraining are decided on exact counts of every row."
    )
    panels = {
        "about": text_panel(title=spec.title, description=sampled),
        "last": counter_panel(title="Share of drifted features, last night", values=[share], size="half"),
        "share": line_plot_panel(title="Share of drifted features", values=[share], size="half"),
        "psi": line_plot_panel(title="PSI of each feature", values=[_line(name) for name in spec.features.columns]),
    }
    for name, panel in panels.items():
        panel.id = _panel(project, name)
    tab = DashboardTabModel(id=_panel(project, "tab"), title="Drift", panels=[panel.id for panel in panels.values()])
    return DashboardModel(tabs=[tab], panels=list(panels.values()))


def _grown(dashboard: Any, spec: UseCase, project: uuid.UUID) -> Any:
    """The dashboard with the features that its panel lacks; None when it lacks none, or people removed the panel."""
    for panel in dashboard.panels:
        if str(panel.id) == str(_panel(project, "psi")):
            shown = {value.metric_labels.get("column") for value in panel.values}
            more = [name for name in spec.features.columns if name not in shown]
            panel.values.extend(_line(name) for name in more)
            return dashboard if more else None
    return None


def _line(column: str) -> Any:
    from evidently.sdk.models import PanelMetric

    return PanelMetric(legend=column, metric="ValueDrift", metric_labels={"column": column})


def _panel(project: uuid.UUID, name: str) -> uuid.UUID:
    return uuid.uuid5(project, f"dashboard/{name}")
