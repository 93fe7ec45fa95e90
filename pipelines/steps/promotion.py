"""Gate, register, promote, roll back: the champion changes by compare-and-set on an append-only log.

The log is in `steps.promotions`; the aliases in the registry follow it, see `steps.aliases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import ConflictError, GateRefused, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.policies.gates import evaluate_gates
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import (
    Approval,
    Check,
    Evaluation,
    GateReport,
    ModelRef,
    Promotion,
    RunInfo,
    TrainedModel,
)
from pipelines.spec import UseCase
from pipelines.steps.aliases import APPROVAL, GATE, REFUSED, follow, warn_of_moves
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import append_entry, before, promotions, rolled_back

#: What a verdict and a registration may move: the champion has not changed.
_CHALLENGER = ("challenger",)


def champion(store: SnapshotStore, registry: ModelRegistry) -> ModelRef | None:
    """The champion by the log; None before the first promotion."""
    log = promotions(store)
    return registry.resolve(log[-1].version, log[-1].trained_by) if log else None


def gate(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, trained: TrainedModel, evaluation: Evaluation
) -> GateReport:
    """Evaluates every gate and stores the verdict with the training run, refusals too.

    A version of this run that was registered before is the challenger, or no longer is, as the verdict says.
    """
    report = evaluate_gates(evaluation, spec)
    registry.annotate(
        trained.run_id,
        {
            GATE: "passed" if report.passed else REFUSED,
            "overnight.gate_reason": report.reason,
            "overnight.champion_compared": str(evaluation.champion_version or "none"),
        },
    )
    failpoint("gate.told")
    if any(model.run_id == trained.run_id for model in registry.versions(staged="staging" in spec.stages)):
        follow(spec, store, registry, _CHALLENGER)
    return report


def register(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    trained: TrainedModel,
    evaluation: Evaluation,
    report: GateReport,
    provenance: Mapping[str, str],
) -> ModelRef:
    """Makes a model version of a training that passed its gates; a repeat gives the same version.

    Args:
        provenance: see `steps.registration`.

    Raises:
        GateRefused: the gates said no.
    """
    if not report.passed:
        raise GateRefused(explain(f"{spec.name}: registration", report.reason))
    tags = {
        **provenance,
        "overnight.snapshots": " ".join(ref.id for ref in trained.training_set.snapshots),
        "overnight.as_of": trained.training_set.as_of,
        "overnight.holdout": "..".join(evaluation.holdout.partitions),
        "overnight.metric": f"{evaluation.metric}={evaluation.challenger.metrics[evaluation.metric]:.6f}",
        "overnight.gates": report.reason,
    }
    model = registry.register(spec, trained.run_id, Path(trained.folder), tags)
    follow(spec, store, registry, _CHALLENGER)
    return model


def promote(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    model: ModelRef,
    evaluation: Evaluation,
    report: GateReport,
    run: RunInfo,
    *,
    reason: str,
    as_of: str,
    approval: Approval | None = None,
    by_hand: bool = False,
) -> Promotion:
    """Makes a version the champion, if the champion is still the one that it was compared with.

    Args:
        approval: what a person said; `promotion: manual` needs a yes.
        by_hand: a person asks for exactly this version and gives a reason, so that one that was rolled back may come
            back.

    Returns:
        The new entry; for a version that is the champion already, the entry that made it so.

    Raises:
        GateRefused: the gates or a person said no, nobody was asked, or the version was rolled back.
        ConflictError: another promotion came first; evaluate against the new champion.
        IntegrityError: the version's artifact is not what was registered.
    """
    where = f"{model.id}: promotion"
    if not report.passed:
        raise GateRefused(explain(where, report.reason))
    log = promotions(store)
    if log and log[-1].is_of(model):
        follow(spec, store, registry)  # promoted already, before a crash or a retry
        return log[-1]
    current = log[-1].version if log else None
    if current != evaluation.champion_version:
        raise ConflictError(
            explain(
                where,
                f"compared with champion {evaluation.champion_version}, but the champion is {current}",
                remedy="evaluate it again, against the new champion: in Airflow, clear the training run's `evaluate`",
            )
        )
    if evaluation.challenger_run not in ("", model.run_id):
        raise GateRefused(
            explain(where, f"the evaluation is of run {evaluation.challenger_run}, the version of run {model.run_id}")
        )
    if not by_hand and (back := rolled_back(log, model.version, model.run_id)) is not None:
        raise GateRefused(
            explain(
                where,
                f"it was taken back in epoch {back.epoch} ({back.reason}); a run does not promote it again",
                remedy=f"train a new challenger, or `overnight promote {spec.name} {model.version} --reason ...`",
            )
        )
    _need_approval(spec, model, approval, where)
    registry.fetch(model)  # its bytes must be whole before anybody scores with them
    model = registry.release(model)  # a staged version gets its production version; any other is its own
    warn_of_moves(spec, store, registry)
    entry = Promotion(
        epoch=len(log) + 1,
        kind="promote",
        version=model.version,
        previous=current,
        reason=reason,
        as_of=as_of,
        last_night=_last_night(store),
        run=run,
        trained_by=model.run_id,
        gates=report.gates,
        approval=approval,
    )
    checks = [Check(name=gate.name, passed=gate.passed, observed=gate.reason) for gate in report.gates]
    return _append(spec, store, registry, entry, checks)


def answered(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, run_id: str, approval: Approval, told: str
) -> None:
    """Keeps what a person said with the training's run. After a no, a version of it is no challenger any more.

    Args:
        run_id: the MLflow run of the training.
        told: for people; a no begins with `rejected`.
    """
    registry.annotate(run_id, {APPROVAL: told, "overnight.approval_at": approval.at})
    if not approval.approved:
        follow(spec, store, registry, _CHALLENGER)


def rollback(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    run: RunInfo,
    *,
    to: int | None,
    reason: str,
    approval: Approval | None = None,
) -> Promotion:
    """Makes an earlier champion the champion again; its drift reference and threshold, parts of its artifact, with it.

    A repeat by the same run, and of a command that died before it came to the end, changes nothing more.

    Args:
        to: a version that was champion before; the one before the present champion when None.
        approval: the person who asked for it.

    Returns:
        The new entry; for a version that is the champion already, the entry that made it so.

    Raises:
        NotFoundError: there is no such earlier champion.
        IntegrityError: the earlier version's artifact is not what was registered.
    """
    log = promotions(store)
    if log and (to == log[-1].version or _is_repeat(registry, log[-1], run, to, reason)):
        follow(spec, store, registry)
        return log[-1]
    current = log[-1].version if log else None
    earlier = [entry.version for entry in log if entry.version != current]
    target = to if to is not None else before(log)
    if target is None or target not in earlier:
        raise NotFoundError(
            explain(
                f"{spec.name}: rollback",
                f"version {target} was not champion before {current}" if target else "there is no earlier champion",
                allowed=", ".join(map(str, sorted(set(earlier)))) or "nothing: one champion so far",
            )
        )
    model = registry.get(target)
    registry.fetch(model)  # its bytes must still be whole
    warn_of_moves(spec, store, registry)
    check = Check(name="was_champion", passed=True, observed=f"version {target} was champion; its artifact verified")
    entry = Promotion(
        epoch=len(log) + 1,
        kind="rollback",
        version=target,
        previous=current,
        reason=reason,
        as_of=log[-1].as_of,
        last_night=_last_night(store),
        run=run,
        trained_by=model.run_id,
        approval=approval,
    )
    return _append(spec, store, registry, entry, [check])


def _last_night(store: SnapshotStore) -> str:
    """The newest partition that has predictions; empty where there are none."""
    head = store.head(PREDICTIONS)
    return "" if head is None else max(store.partitions(head), default="")


def _is_repeat(registry: ModelRegistry, last: Promotion, run: RunInfo, to: int | None, reason: str) -> bool:
    """Whether the last entry is this very rollback: by the same run, or by a command that died before its end."""
    if last.kind != "rollback" or to not in (None, last.version):
        return False
    cut_off = registry.epoch() < last.epoch
    return last.run == run or (cut_off and last.run.dag_id == run.dag_id and last.reason == reason)


def _need_approval(spec: UseCase, model: ModelRef, approval: Approval | None, where: str) -> None:
    """Does nothing where a person said yes, or where none is asked.

    Raises:
        GateRefused: a person said no, or nobody was asked.
    """
    if approval is not None and not approval.approved:
        raise GateRefused(explain(where, f"{approval.by} rejected it at {approval.at}"))
    if approval is None and spec.promotion == "manual":
        raise GateRefused(
            explain(
                where,
                "promotion is manual, and nobody approved it",
                remedy=f"approve it in Airflow, or `overnight promote {spec.name} {model.version} --reason ...`",
            )
        )


def _append(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, entry: Promotion, checks: Sequence[Check]
) -> Promotion:
    append_entry(spec, store, entry, checks)
    follow(spec, store, registry)
    return entry
