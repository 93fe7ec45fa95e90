"""A registered version before the gates again, because a person asks: on the newest holdout, against the champion."""

from __future__ import annotations

from pathlib import Path

from pipelines.ports import FairnessAuditor, ModelRegistry, SnapshotStore
from pipelines.records import Approval, Evaluation, ModelRef, Promotion, RunInfo, TrainedModel
from pipelines.spec import UseCase
from pipelines.steps import holdouts
from pipelines.steps.aliases import follow
from pipelines.steps.evaluation import evaluate
from pipelines.steps.inputs import heads
from pipelines.steps.promotion import champion, gate, promote
from pipelines.steps.promotions import promotions
from pipelines.steps.training import read_scorecards, told


def candidate(registry: ModelRegistry, model: ModelRef, work: Path) -> TrainedModel:
    """The training of a registered version, rebuilt from its verified artifact.

    Args:
        work: where the training set's folder is, if it is still on this machine.

    Raises:
        IntegrityError: the artifact is not what was registered.
    """
    folder = registry.fetch(model)
    training_set = told(folder, model.digest)
    learned = work / training_set.use_case / "sets" / training_set.digest[:16]
    return TrainedModel(
        folder=str(folder),
        digest=model.digest,
        run_id=model.run_id,
        training_set=training_set.model_copy(update={"folder": str(learned)}),
        scorecards=read_scorecards(folder),
        seconds=0.0,
    )


def newest_partition(spec: UseCase, store: SnapshotStore) -> str:
    """The newest published partition of `rows`.

    Raises:
        NotFoundError: nothing is published yet.
    """
    return max(store.partitions(heads(spec, store, ["rows"])["rows"]))


def examine(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    auditor: FairnessAuditor,
    incumbent: ModelRef | None,
    model: ModelRef,
    as_of: str | None,
    work: Path,
) -> tuple[TrainedModel, Evaluation]:
    """Measures a registered version and the champion on the newest rows that neither learned from.

    Args:
        as_of: the newest partition that may be used; the newest published one when None.

    Raises:
        GateRefused: too few partitions are newer than what both learned from.
    """
    trained = candidate(registry, model, work)
    seen = [trained.training_set, *([candidate(registry, incumbent, work).training_set] if incumbent else [])]
    learned = [each.learned for each in seen]
    holdout = holdouts.newest(spec, store, as_of or newest_partition(spec, store), learned, work)
    return trained, evaluate(spec, store, registry, auditor, incumbent, trained, holdout)


def promote_by_hand(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    auditor: FairnessAuditor,
    model: ModelRef,
    run: RunInfo,
    approval: Approval,
    *,
    reason: str,
    as_of: str | None,
    work: Path,
) -> tuple[Promotion, bool]:
    """Makes a registered version the champion because a person asks, through the same gates as a run's.

    Returns:
        The log's entry, and whether it is new: a version that is the champion already stays it.

    Raises:
        GateRefused: a gate said no, with every reason, or there is no holdout to judge on.
        ConflictError: another promotion came first.
    """
    log = promotions(store)
    if log and log[-1].is_of(model):
        follow(spec, store, registry)
        return log[-1], False
    incumbent = champion(store, registry)
    trained, evaluation = examine(spec, store, registry, auditor, incumbent, model, as_of, work)
    report = gate(spec, store, registry, trained, evaluation)
    entry = promote(
        spec,
        store,
        registry,
        model,
        evaluation,
        report,
        run,
        reason=reason,
        as_of=evaluation.holdout.as_of,
        approval=approval,
        by_hand=True,
    )
    return entry, True
