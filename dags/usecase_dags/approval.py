"""The task `approve` for `promotion: manual`: a person is asked between the gates and the registration.

While it waits it is parked (awaiting input): neither a worker nor the triggerer holds it. Nobody's answer within
`approval_hours` is a no. The answer outlives a failure to write it down: what was said is kept in the task's state
until it is recorded, so that a retry does not ask again.

Airflow writes a task's form once and keeps it when the task is cleared, its text as it was. A person is therefore never
asked about a comparison that differs from the one on the form: that takes a new run, which finds the training again.
An answer in the very moment in which the task parks can make Airflow take the task for killed: the retry asks again.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import NEVER_EXPIRE
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from pipelines.errors import explain
from pipelines.records import Approval, Evaluation, GateReport, TrainedModel
from usecase_dags.comparison import hours, render
from usecase_dags.context import open_runtime
from usecase_dags.steps import CARD, COMPARISON, MODEL, review_url, timed, training_url

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from pipelines.runtime import Runtime
    from pipelines.spec import UseCase

#: Keys of the task's state: the digest of what the form shows, and an answer that is not recorded yet.
_ASKED, _ANSWER = "asked", "answer"


def ask(spec: UseCase, trained: XComArg, evaluated: XComArg, gated: XComArg) -> XComArg:
    """The task, given what the tasks before it returned."""
    return Approve(spec=spec, trained=trained, evaluated=evaluated, gated=gated, task_id="approve").output


class Approve(ApprovalOperator):
    """Asks, waits, and says who decided; see the module. Returns an Approval, as a step does."""

    # The results of other tasks, and no text: what data or a spec wrote is never a template.
    template_fields = ("trained", "evaluated", "gated")
    ui_color: ClassVar[str] = "#dfe9f7"

    def __init__(self, *, spec: UseCase, trained: Any, evaluated: Any, gated: Any, **kwargs: Any) -> None:
        super().__init__(
            subject=f"{spec.name}: a challenger",
            defaults=self.REJECT,
            response_timeout=timedelta(hours=spec.approval_hours),
            **kwargs,
        )
        self.spec = spec
        self.trained = trained
        self.evaluated = evaluated
        self.gated = gated
        self.operator_extra_links = (COMPARISON, CARD, MODEL)
        self.made: dict[str, str] = {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Asks, unless an answer about this very comparison waits to be recorded.

        Raises:
            AirflowSkipException: a gate refused: nobody is asked.
            AirflowFailException: the form would show another comparison.
        """
        report = GateReport.model_validate(self.gated["record"])
        if not report.passed:
            raise AirflowSkipException(f"a gate refused, so nobody is asked; the champion stays: {report.reason}")
        state, compared = context["task_state_store"], self._compared()
        kept: Any = state.get(_ANSWER)
        if kept and kept["compared"] == compared:
            return self._conclude(context, kept["event"])
        if state.get(_ASKED, compared) != compared:
            raise AirflowFailException(self._outdated("the form that Airflow keeps shows an earlier comparison"))
        state.set(_ASKED, compared, retention=NEVER_EXPIRE)
        timed("approve", lambda: self._write_form(open_runtime(self.spec)))
        super().execute(context)
        raise AssertionError("asking parks the task")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Called when somebody has answered, or nobody in time: a no skips what follows.

        Raises:
            AirflowFailException: what was compared changed while the task waited.
        """
        if "error" in event:
            self.process_trigger_event_error(event)
        state, compared = context["task_state_store"], self._compared()
        if state.get(_ASKED) != compared:
            raise AirflowFailException(self._outdated("the comparison was made anew while this task waited"))
        said = {**event, "responded_at": event["responded_at"].astimezone(UTC).isoformat()}
        state.set(_ANSWER, {"compared": compared, "event": said}, retention=NEVER_EXPIRE)
        return self._conclude(context, said)

    def _conclude(self, context: Context, said: dict[str, Any]) -> dict[str, Any]:
        """Records the answer, then acts on it."""
        user = said["responded_by_user"]
        approval = Approval(
            by=_who(user) if user else "nobody",
            at=said["responded_at"],
            approved=said["chosen_options"] == [self.APPROVE],
        )
        told = self._told(approval)
        self.log.info("%s, at %s", told, approval.at)

        def record() -> Approval:
            runtime = open_runtime(self.spec)
            self._link(runtime)
            runtime.answered(self._run_id, approval, told)
            return approval

        done = timed("approve", record)
        context["task_state_store"].delete(_ANSWER)
        context["ti"].xcom_push(key="return_value", value=done)  # a no ends in an exception that returns nothing
        super().execute_complete(context, {**said, "responded_at": datetime.fromisoformat(approval.at)})
        return done

    def _told(self, approval: Approval) -> str:
        if approval.by == "nobody":
            return f"rejected: nobody answered in {hours(self.spec.approval_hours)}"
        return f"{'approved' if approval.approved else 'rejected'} by {approval.by}"

    def _write_form(self, runtime: Runtime) -> None:
        evaluation = Evaluation.model_validate(self.evaluated["record"])
        self._link(runtime)
        version, as_of = evaluation.champion_version, evaluation.holdout.as_of
        becomes = f"replace champion {version}" if version is not None else "become the first champion"
        self.subject = f"{self.spec.name}: shall the challenger as of {as_of} {becomes}?"
        links = {link.name: self.made.get(link.key) for link in (COMPARISON, CARD, MODEL)}
        self.body = self._form(links)
        self.log.info("asked; without an answer in %s it is a no", hours(self.spec.approval_hours))

    def _link(self, runtime: Runtime) -> None:
        run_id = self._run_id
        for link, url in (
            (COMPARISON, review_url(runtime, run_id, "comparison")),
            (CARD, review_url(runtime, run_id, "model_card")),
            (MODEL, training_url(runtime, run_id)),
        ):
            if url:
                self.made[link.key] = url

    @property
    def _run_id(self) -> str:
        return TrainedModel.model_validate(self.trained["record"]).run_id

    def _compared(self) -> str:
        """SHA-256 of what the form shows, but for its links."""
        return hashlib.sha256(self._form({}).encode()).hexdigest()

    def _form(self, links: dict[str, str | None]) -> str:
        evaluation = Evaluation.model_validate(self.evaluated["record"])
        return render(self.spec, evaluation, GateReport.model_validate(self.gated["record"]), links)

    def _outdated(self, why: str) -> str:
        name = self.spec.name
        return explain(
            f"{name}_train: approval",
            why,
            remedy=f"trigger {name}_train again with the same form: the training is found again, and the form is new",
        )


def _who(user: dict[str, str]) -> str:
    """The name that Airflow shows, and the login where it is another."""
    return user["name"] if user["name"] == user["id"] else f"{user['name']} ({user['id']})"
