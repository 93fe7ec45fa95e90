"""`promotion: manual` under a real scheduler and API server: the form, the answers, and what is kept of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from include.demo.airflow_api import Airflow, ApiError, Run
from include.local import servers
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import load_spec
from tests.cases import REPOSITORY, Case
from tests.chain.conftest import ingest, runtime_of

_SECONDS = 120.0
_APPROVE = "promotion.approve"
T = TypeVar("T")


@dataclass(frozen=True)
class Live:
    """Airflow and MLflow, running, on a use case whose promotions a person decides."""

    airflow: Airflow
    runtime: Runtime
    case: Case
    scheduler: Path
    """Its log."""

    def train(self, as_of: str) -> Run:
        """Starts a training run, which comes to the form."""
        return self.airflow.trigger("readings_train", as_of=as_of, reason="a live test")

    def wait_for_form(self, run: Run) -> dict[str, Any]:
        """Waits until the task is parked, and the scheduler knows that it left its worker; what it asks.

        An answer that comes before that makes the scheduler take the task for killed, and retry it.
        """
        wait_for(lambda: self.airflow.states(run)[_APPROVE] == "awaiting_input")
        (tries,) = {task.tries for task in self.airflow.tasks(run) if task.task_id == _APPROVE}
        left = f"task_id='{_APPROVE}', run_id='{run.run_id}', try_number={tries},"
        wait_for(
            lambda: [
                line for line in self.scheduler.read_text().splitlines() if "executor event" in line and left in line
            ]
        )
        asked = self.airflow.question(run, _APPROVE)
        assert asked is not None
        return asked

    def finish(self, run: Run) -> tuple[Run, dict[str, str | None]]:
        """Waits for the run's end: it, and the state of each of its tasks."""
        ended = self.airflow.wait(run, _SECONDS, lambda _: None)
        return ended, self.airflow.states(ended)

    def tags(self, run: Run) -> dict[str, str]:
        """What the MLflow run of this training says."""
        trained = self.airflow.result(run, "challenger.train")["record"]["run_id"]
        return next(found.tags for found in self.runtime.registry.trainings() if found.run_id == trained)


def wait_for(there: Callable[[], T]) -> T:
    """Waits until it is true."""
    deadline = time.monotonic() + _SECONDS
    while not (found := there()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def live(third_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("approval")
    project = shutil.copytree(third_case.project, root / "project")
    path = project / third_case.path.relative_to(third_case.project)
    written = yaml.safe_load(path.read_text())
    written["promotion"] = "manual"
    written["title"] = "Pumps {{ 7*7 }} <script>alert(1)</script>"
    written["gates"]["margin_over_champion"] = -1.0  # a person decides here; the gates are tested elsewhere
    path.write_text(yaml.safe_dump(written))
    # The DAGs of this case: dags/ finds its project by where it lies.
    shutil.copytree(REPOSITORY / "plugins", project / "plugins")
    shutil.copytree(REPOSITORY / "dags" / "usecase_dags", project / "dags" / "usecase_dags")
    shipped = (REPOSITORY / "dags" / "flights.py").read_text()
    (project / "dags" / "readings.py").write_text(shipped.replace("flights", "readings"))
    case = replace(third_case, project=project, path=path, spec=load_spec(path))
    home = root / "var"
    ingest(runtime_of(case, home), list(case.keys))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "OVERNIGHT_PROJECT": str(project),
            "OVERNIGHT_LANDING": str(case.landing),
            **servers.direct_loopback(),
        }.items():
            environment.setenv(name, value)
        where = servers.Places(home=home)
        with servers.running(where) as running:
            airflow = Airflow(running.airflow_url, servers.USER, servers.password(where))
            airflow.wait_for_dags({"readings_train"}, _SECONDS)
            runtime = runtime_of(case, home)
            settings = Settings(project=project, landing=case.landing, home=home, mlflow_uri=running.mlflow_url)
            yield Live(airflow, Runtime(case.spec, settings, runtime.run), case, where.logs / "scheduler.log")


@pytest.mark.timeout(400)
def test_a_promotion_waits_for_a_person_and_the_log_names_them(live: Live) -> None:
    run = live.train(live.case.keys[-4])
    asked = live.wait_for_form(run)
    assert asked["subject"] == f"readings: shall the challenger as of {live.case.keys[-4]} become the first champion?"
    assert (asked["options"], asked["defaults"]) == (["Approve", "Reject"], ["Reject"])
    assert "Pumps {{ 7\\*7 }} \\<script\\>alert(1)\\</script\\>" in asked["body"], "text, neither template nor HTML"
    assert "| bound | passed |" in asked["body"]
    assert live.runtime.promotions() == []
    links = live.airflow.links(run, _APPROVE)
    assert links["MLflow run"] is not None
    assert links["MLflow run"] in asked["body"]

    live.airflow.answer(run, _APPROVE, "Approve")
    ended, states = live.finish(run)
    assert (ended.state, set(states.values())) == ("success", {"success"})
    (entry,) = live.runtime.promotions()
    assert entry.approval is not None
    assert (entry.approval.by, entry.approval.approved) == (servers.USER, True)
    assert live.airflow.result(run, _APPROVE)["record"] == entry.approval.model_dump()
    assert live.tags(run)["overnight.approval"] == f"approved by {servers.USER}"


@pytest.mark.timeout(400)
def test_a_rejection_leaves_the_champion_and_clearing_the_task_asks_again(live: Live) -> None:
    before = live.runtime.promotions()
    run = live.train(live.case.keys[-1])
    first = live.wait_for_form(run)
    assert f"replace champion {before[-1].version}?" in first["subject"]
    live.airflow.answer(run, _APPROVE, "Reject")
    ended, states = live.finish(run)
    assert ended.state == "success", "a no is no failure"
    assert [states[f"promotion.{task}"] for task in ("approve", "register", "promote")] == [
        "success",
        "skipped",
        "skipped",
    ]
    assert live.airflow.result(run, _APPROVE)["record"]["approved"] is False
    assert live.tags(run)["overnight.approval"] == f"rejected by {servers.USER}"
    assert live.runtime.promotions() == before

    live.airflow.clear(run, _APPROVE)
    again = live.wait_for_form(run)
    assert not again["response_received"]
    assert again["body"] == first["body"]
    live.airflow.answer(run, _APPROVE, "Approve")
    _, states = live.finish(run)
    assert states["promotion.promote"] == "success"
    assert len(live.runtime.promotions()) == len(before) + 1


@pytest.mark.timeout(400)
def test_nobodys_answer_in_time_is_a_no_and_a_form_that_says_something_else_is_not_asked_again(live: Live) -> None:
    before = live.runtime.promotions()
    written = live.case.path.read_text()
    live.case.path.write_text(yaml.safe_dump({**yaml.safe_load(written), "approval_hours": 0.0005}))
    run = live.train(live.case.keys[-1])
    ended, states = live.finish(run)
    assert (ended.state, states["promotion.register"]) == ("success", "skipped")
    assert live.tags(run)["overnight.approval"] == "rejected: nobody answered in 0.0005 hours"
    assert live.runtime.promotions() == before

    live.case.path.write_text(written)
    live.airflow.clear(run, _APPROVE)
    ended, states = live.finish(run)
    assert (ended.state, states[_APPROVE]) == ("failed", "failed"), "Airflow would show the text of the first form"
    assert live.runtime.promotions() == before


@pytest.mark.timeout(400)
def test_a_night_goes_by_the_log_and_warns_of_an_alias_that_was_moved_by_hand(live: Live) -> None:
    champion = live.runtime.promotions()[-1].version
    live.runtime.registry.set_alias("champion", champion - 1)
    try:
        key = live.case.keys[-1]
        run, states = live.finish(live.airflow.trigger("readings_score", partition=key))
        assert run.state == "success", states
    finally:
        live.runtime.registry.set_alias("champion", champion)
    task = "predictions.score"
    (scored,) = live.airflow.step(run, task)["record"]
    assert scored["model"]["version"] == champion
    remedy = "overnight aliases readings --restore, or --adopt"
    moved = {"alias": "champion", "expected": champion, "found": champion - 1, "remedy": remedy}
    assert live.airflow.result(run, task, "aliases") == [moved]
    (warning,) = [line for line in live.airflow.log(run, task).splitlines() if "moved in MLflow by hand" in line]
    assert f"it is at version {champion - 1}, the promotion log says version {champion}" in warning
    assert remedy in warning


@pytest.mark.timeout(400)
def test_a_rollback_shows_in_the_log_and_refuses_a_version_that_never_was_champion(live: Live) -> None:
    before = live.runtime.promotions()
    wrong, states = live.finish(live.airflow.trigger("readings_rollback", to=99, reason="a live test"))
    assert (wrong.state, states) == ("failed", {"champion.rollback": "failed"}), "at once, without retries"
    assert "version 99 was not champion before" in live.airflow.log(wrong, "champion.rollback")
    assert live.runtime.promotions() == before

    with pytest.raises(ApiError, match="reason"):
        live.airflow.trigger("readings_rollback", to=None)
    back, _ = live.finish(live.airflow.trigger("readings_rollback", reason="a live test"))
    assert back.state == "success"
    entry = live.runtime.promotions()[-1]
    assert (entry.kind, entry.version, entry.previous) == ("rollback", before[-2].version, before[-1].version)
    said = f"the champion of readings is version {entry.version}, instead of {entry.previous} (a live test)"
    assert said in live.airflow.log(back, "champion.rollback")
