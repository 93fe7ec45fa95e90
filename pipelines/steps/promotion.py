"""Gate, register, promote, roll back: the champion changes by compare-and-set on an append-only log.

The log is the table `promotions`; its partition `e000001` is the first epoch. An epoch can be published once, so of
any number of promoters one wins and the others get a ConflictError. The aliases in the registry follow the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipelines.errors import ConflictError, GateRefused, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.policies.gates import evaluate_gates
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import (
    AliasState,
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
from pipelines.steps.logs import append

PROMOTIONS = "promotions"


def epoch_key(epoch: int) -> str:
    """The partition of an epoch's entry."""
    return f"e{epoch:06d}"


def promotions(store: SnapshotStore) -> list[Promotion]:
    """The promotion log, oldest epoch first."""
    head = store.head(PROMOTIONS)
    if head is None:
        return []
    rows = store.scan(head).sort("epoch").collect()
    return [Promotion.model_validate_json(text) for text in rows.get_column("entry")]


def champion(store: SnapshotStore, registry: ModelRegistry) -> ModelRef | None:
    """The champion by the log; None before the first promotion."""
    log = promotions(store)
    return registry.get(log[-1].version) if log else None


def alias_state(store: SnapshotStore, registry: ModelRegistry) -> AliasState:
    """Where the aliases are and where the log says that they belong. Changes nothing."""
    log = promotions(store)
    expected = {"champion": log[-1].version if log else None, "previous": _before(log)}
    return AliasState(expected=expected, found={name: registry.alias(name) for name in expected})


def gate(spec: UseCase, registry: ModelRegistry, trained: TrainedModel, evaluation: Evaluation) -> GateReport:
    """Evaluates every gate and stores the verdict with the training run, refusals too."""
    report = evaluate_gates(evaluation, spec)
    registry.annotate(
        trained.run_id,
        {
            "overnight.gate": "passed" if report.passed else "refused",
            "overnight.gate_reason": report.reason,
            "overnight.champion_compared": str(evaluation.champion_version or "none"),
        },
    )
    return report


def register(
    spec: UseCase, registry: ModelRegistry, trained: TrainedModel, evaluation: Evaluation, report: GateReport
) -> ModelRef:
    """Makes a model version of a training that passed its gates; a repeat gives the same version.

    Raises:
        GateRefused: the gates said no.
    """
    if not report.passed:
        raise GateRefused(explain(f"{spec.name}: registration", report.reason))
    tags = {
        "overnight.snapshots": " ".join(ref.id for ref in trained.training_set.snapshots),
        "overnight.as_of": trained.training_set.as_of,
        "overnight.holdout": "..".join(evaluation.holdout.partitions),
        "overnight.metric": f"{evaluation.metric}={evaluation.challenger.metrics[evaluation.metric]:.6f}",
        "overnight.gates": report.reason,
    }
    model = registry.register(spec, trained.run_id, Path(trained.folder), tags)
    registry.set_alias("challenger", model.version)
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
) -> Promotion:
    """Makes a version the champion, if the champion is still the one that it was compared with.

    Args:
        approval: what a person said; it is kept in the log.

    Raises:
        GateRefused: the gates said no.
        ConflictError: another promotion came first; evaluate against the new champion.
    """
    if not report.passed:
        raise GateRefused(explain(f"{spec.name}: promotion", report.reason))
    log = promotions(store)
    if log and log[-1].version == model.version:
        _follow(registry, log)  # promoted already, before a crash or a retry
        return log[-1]
    current = log[-1].version if log else None
    if current != evaluation.champion_version:
        raise ConflictError(
            explain(
                f"{spec.name}: promotion",
                f"compared with champion {evaluation.champion_version}, but the champion is {current}",
                remedy="run the training DAG's evaluate task again",
            )
        )
    checks = [Check(name=gate.name, passed=gate.passed, observed=gate.reason) for gate in report.gates]
    entry = Promotion(
        epoch=len(log) + 1,
        kind="promote",
        version=model.version,
        previous=current,
        reason=reason,
        as_of=as_of,
        run=run,
        approval=approval,
    )
    return _append(spec, store, registry, log, entry, checks)


def rollback(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, run: RunInfo, *, to: int | None, reason: str
) -> Promotion:
    """Makes an earlier champion the champion again; its drift reference comes back with it.

    Args:
        to: a version that was champion before; the one before the present champion when None.

    Raises:
        NotFoundError: there is no such earlier champion.
    """
    log = promotions(store)
    if log and log[-1].kind == "rollback" and log[-1].run == run:
        _follow(registry, log)
        return log[-1]
    current = log[-1].version if log else None
    earlier = [entry.version for entry in log if entry.version != current]
    target = to if to is not None else _before(log)
    if target is None or target not in earlier:
        raise NotFoundError(
            explain(
                f"{spec.name}: rollback",
                f"version {target} was not champion before {current}" if target else "there is no earlier champion",
                allowed=", ".join(map(str, sorted(set(earlier)))) or "nothing: one champion so far",
            )
        )
    registry.fetch(registry.get(target))  # its bytes must still be whole
    check = Check(name="was_champion", passed=True, observed=f"version {target} was champion; its artifact verified")
    entry = Promotion(
        epoch=len(log) + 1,
        kind="rollback",
        version=target,
        previous=current,
        reason=reason,
        as_of=log[-1].as_of,
        run=run,
    )
    return _append(spec, store, registry, log, entry, [check])


def _before(log: Sequence[Promotion]) -> int | None:
    """The champion before the present one, rollbacks undone: what `previous` means to a person."""
    stack: list[int] = []
    for entry in log:
        if entry.version in stack:
            del stack[stack.index(entry.version) + 1 :]
        else:
            stack.append(entry.version)
    return stack[-2] if len(stack) > 1 else None


def _append(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    log: Sequence[Promotion],
    entry: Promotion,
    checks: Sequence[Check],
) -> Promotion:
    append(
        store,
        spec.name,
        PROMOTIONS,
        epoch_key(entry.epoch),
        pl.DataFrame({"epoch": [entry.epoch], "version": [entry.version], "entry": [entry.model_dump_json()]}),
        checks,
        entry.run,
        suite=f"{spec.name}.gates",
        suite_digest=hashlib.sha256(spec.gates.model_dump_json().encode()).hexdigest(),
    )
    failpoint("promote.appended")
    _follow(registry, [*log, entry])
    return entry


def _follow(registry: ModelRegistry, log: Sequence[Promotion]) -> None:
    """Moves the aliases to where the log says they are."""
    registry.set_alias("champion", log[-1].version)
    registry.set_alias("previous", _before(log))
    if registry.alias("challenger") == log[-1].version:
        registry.set_alias("challenger", None)
