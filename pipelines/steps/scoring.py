"""Score: champion -> scores -> audit -> publish. The same inputs and model never give a second set of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from pipelines.errors import NotFoundError, QuarantinedError, explain
from pipelines.ports import Draft, ModelRegistry, SnapshotStore
from pipelines.records import (
    AuditedScores,
    Check,
    ModelRef,
    Prediction,
    RunInfo,
    Scored,
    SnapshotRef,
    StagedPartition,
    Validated,
    ValidationReport,
)
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase
from pipelines.steps.features import build_features, context_keys
from pipelines.steps.reads import prediction_notes

PREDICTIONS = "predictions"
#: In an erase commit's provenance: the digest of each partition that it replaced.
REPLACES = "replaces"
#: Partitions whose features are held in memory at once.
_CHUNK = 32
#: From so many rows on, too few distinct scores mean a broken model.
_DISTINCT_FROM = 100


def heads(spec: UseCase, store: SnapshotStore, tables: Sequence[str]) -> dict[str, SnapshotRef]:
    """The newest snapshot of each table.

    Raises:
        NotFoundError: a table was never published.
    """
    found = {}
    for table in tables:
        head = store.head(table)
        if head is None:
            raise NotFoundError(explain(f"{spec.name}/{table}", "nothing is published yet", remedy="ingest it first"))
        found[table] = head
    return found


def published_predictions(store: SnapshotStore) -> dict[str, dict[str, Any]]:
    """What each published prediction partition was made of: {partition: {model, inputs, read}}.

    A partition that a revert brought back is what its own publish made it.
    """
    now: dict[str, str | None] = {}
    made: dict[str, dict[str, Any]] = {}
    for commit in store.history(PREDICTIONS):  # newest first: the first word on a partition is the last
        for partition in commit.removed:
            now.setdefault(partition, None)
        told = commit.provenance.get("predictions", {})
        for partition, digest in commit.partitions.items():
            if now.setdefault(partition, digest) == digest and partition in told:
                made.setdefault(partition, told[partition])
    return {partition: made.get(partition, {}) for partition, digest in now.items() if digest is not None}


def input_digests(store: SnapshotStore, snapshot: SnapshotRef) -> dict[str, str]:
    """What stands for each partition of an input table in fingerprints: the digest of its bytes.

    An erasure restates nothing, so what it left counts as the partition that it replaced, and nothing is scored anew.
    Rows that were erased and came back, in the very same bytes, count as new ones: their scores are gone.
    """
    replaced: dict[tuple[str, str], str] = {}
    for commit in store.history(snapshot.table):
        if commit.kind == "erase":
            for name, old in commit.provenance.get(REPLACES, {}).items():
                replaced[name, commit.partitions[name]] = old
    erased = {(name, old) for (name, _), old in replaced.items()}
    digests = {}
    for name, part in store.partitions(snapshot).items():
        digest = part.digest
        if snapshot.table == "rows" and (name, digest) in erased:
            digest += " again"
        while (name, digest) in replaced:  # an erasure leaves fewer rows, so this ends
            digest = replaced[name, digest]
        digests[name] = digest
    return digests


def score(
    spec: UseCase,
    store: SnapshotStore,
    registry: ModelRegistry,
    model: ModelRef,
    partitions: Sequence[str],
    run: RunInfo,
    *,
    anew: bool = False,
) -> Scored:
    """Scores whole partitions and stages the scores.

    A partition that has predictions from the same inputs is left as it is, whichever model made them, unless
    `anew` asks for this model. A restated input is scored again.

    Args:
        anew: the model was named by a person: score again where another model did.

    Raises:
        NotFoundError: a partition is not published.
        SchemaMismatch: the model and the snapshot disagree about a column.
    """
    snapshots = heads(spec, store, ("rows", *(name for name in spec.context if name != "rows")))
    digests = {table: input_digests(store, snapshot) for table, snapshot in snapshots.items()}
    held = store.partitions(snapshots["rows"])
    if absent := sorted(set(partitions) - set(held)):
        raise NotFoundError(
            explain(
                f"{spec.name}/rows",
                f"not published: {', '.join(absent[:5])}",
                remedy="ingest the partition; if it is in quarantine, mend its file first",
            )
        )
    used = {partition: _used(spec, digests, partition) for partition in partitions}
    fingerprints = {partition: _fingerprint(used[partition]) for partition in partitions}
    made = published_predictions(store)
    due = []
    for partition in partitions:
        before = made.get(partition, {})
        same_inputs = before.get("inputs") == fingerprints[partition]
        if not same_inputs or (anew and before.get("model") != model.version):
            due.append(partition)
    unseen: dict[str, dict[str, float]] = {}
    staged: tuple[StagedPartition, ...] = ()
    if due:
        engine = Engine(registry.fetch(model), digest=model.digest, tile_rows=spec.scoring.tile_rows)

        def drafts() -> Iterator[Draft]:
            for start in range(0, len(due), _CHUNK):
                chunk = due[start : start + _CHUNK]
                for partition, frame, part in score_partitions(spec, store, snapshots, engine, model, chunk):
                    unseen[partition] = engine.unseen(part)
                    yield Draft(partition=partition, frame=frame)

        staged = store.stage(PREDICTIONS, drafts(), run)
    return Scored(
        model=model,
        inputs=tuple(snapshots.values()),
        staged=staged,
        rows_in={partition: held[partition].rows for partition in partitions},
        fingerprints=fingerprints,
        reads={
            partition: {table: (min(parts), max(parts)) for table, parts in used[partition].items() if parts}
            for partition in due
        },
        spec=spec.digest,
        unseen=unseen,
        unchanged=tuple(sorted(set(partitions) - set(due))),
    )


def score_partitions(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    engine: Engine,
    model: ModelRef,
    partitions: Sequence[str],
) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """Scores whole partitions together: each one's key, its predictions as they are published, and its features."""
    features = build_features(spec, store, snapshots, partitions).collect()
    scored = _with_scores(spec, features, engine, model)
    by_partition = scored.partition_by("partition", as_dict=True, include_key=False)
    parts = features.partition_by("partition", as_dict=True)
    for partition in partitions:
        frame = by_partition.get((partition,), scored.drop("partition").clear())
        yield partition, frame, parts.get((partition,), features.clear())


def _used(spec: UseCase, digests: Mapping[str, Mapping[str, str]], partition: str) -> dict[str, dict[str, str]]:
    """What stands for every published partition that this partition's features read, by table and key."""
    used = {"rows": {partition: digests["rows"][partition]}}
    for table in spec.context:
        wanted = context_keys(spec, table, [partition], list(digests[table]))
        used[table] = {key: digests[table][key] for key in wanted}
    return used


def _fingerprint(used: Mapping[str, Mapping[str, str]]) -> str:
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def _with_scores(spec: UseCase, features: pl.DataFrame, engine: Engine, model: ModelRef) -> pl.DataFrame:
    scores = engine.score(features)
    if spec.label.task == "multiclass":
        names = spec.label.classes
        columns = [pl.Series(f"score_{name}", scores[:, index]) for index, name in enumerate(names)]
        best = pl.Series("prediction", names, dtype=pl.String).gather(scores.argmax(axis=1))
        columns.append(best.alias("prediction"))
    else:
        columns = [pl.Series("score", scores)]
    return features.select("partition", *spec.rows.key).with_columns(
        *columns, pl.lit(model.version, dtype=pl.Int64).alias("model_version")
    )


def score_columns(spec: UseCase) -> list[str]:
    """The columns of the predictions table that hold scores."""
    if spec.label.task == "multiclass":
        return [f"score_{name}" for name in spec.label.classes]
    return ["score"]


def audit_scores(spec: UseCase, store: SnapshotStore, scored: Scored) -> AuditedScores:
    """Judges staged scores like any data. One failure quarantines that partition's scores and fails the step.

    Raises:
        QuarantinedError: naming each partition and check; what was published before stays.
    """
    reports, bad = [], []
    rows = next(ref for ref in scored.inputs if ref.table == "rows")
    for staged in scored.staged:
        checks = _checks(spec, store, scored, staged, rows)
        report = ValidationReport(
            use_case=spec.name,
            table=PREDICTIONS,
            partition=staged.partition,
            digest=staged.digest,
            suite=f"{spec.name}.scores",
            suite_digest=hashlib.sha256(spec.scoring.model_dump_json().encode()).hexdigest(),
            rows=staged.rows,
            passed=all(check.passed for check in checks),
            checks=tuple(checks),
        )
        reports.append(report)
        if not report.passed:
            store.quarantine(report, staged, [])
            bad.append(report)
    if bad:
        found = "; ".join(
            f"{report.partition}: {', '.join(f'{check.name} {check.observed}' for check in report.failed)}"
            for report in bad
        )
        raise QuarantinedError(
            explain(
                f"{spec.name}/{PREDICTIONS}",
                f"the scores failed their audit ({found})",
                remedy="look at the input partition and at the champion; roll back if the model is at fault",
            )
        )
    validated = Validated(table=PREDICTIONS, staged=scored.staged, reports=tuple(reports))
    return AuditedScores(scored=scored, validated=validated)


def _checks(
    spec: UseCase, store: SnapshotStore, scored: Scored, staged: StagedPartition, rows: SnapshotRef
) -> list[Check]:
    key = list(spec.rows.key)
    frame = store.read_staged(staged).collect()
    inputs = store.scan(rows, [staged.partition], key).select(key).collect()
    names = score_columns(spec)
    strays = frame.join(inputs, on=key, how="anti").height + inputs.join(frame, on=key, how="anti").height
    twice = frame.height - frame.unique(key).height
    broken = frame.select(pl.any_horizontal(pl.col(names).is_null() | ~pl.col(names).is_finite()).sum()).item()
    distinct = frame.n_unique(names) if frame.height else 0
    fewest = spec.scoring.min_distinct if frame.height >= _DISTINCT_FROM else min(frame.height, 1)
    worst = max(scored.unseen[staged.partition].items(), key=lambda item: item[1], default=("none", 0.0))
    bound = spec.scoring.max_unseen_share
    checks = [
        Check(
            name="row_count_equals_input",
            passed=frame.height == scored.rows_in[staged.partition],
            observed=f"{frame.height} rows",
            allowed=f"{scored.rows_in[staged.partition]} rows",
        ),
        Check(
            name="keys_match_one_to_one",
            passed=strays == 0 and twice == 0,
            observed=f"{strays} keys on one side only, {twice} repeated",
            allowed="none",
        ),
        Check(name="scores_are_finite", passed=broken == 0, observed=f"{broken} null, NaN or infinite", allowed="0"),
        Check(
            name="scores_differ",
            passed=distinct >= fewest,
            observed=f"{distinct} distinct scores",
            allowed=f"at least {fewest}",
        ),
        Check(
            name="unseen_share",
            column=worst[0],
            passed=worst[1] <= bound,
            observed=f"{worst[1]:.3f} of {worst[0]} unseen in training",
            allowed=f"at most {bound}",
        ),
    ]
    if spec.label.task != "regression":
        outside = frame.select(pl.any_horizontal((pl.col(names) < 0) | (pl.col(names) > 1)).sum()).item()
        checks.append(
            Check(name="scores_in_range", passed=outside == 0, observed=f"{outside} outside", allowed="0 to 1")
        )
    return checks


def publish_scores(store: SnapshotStore, audited: AuditedScores, run: RunInfo) -> tuple[Prediction, ...]:
    """Publishes audited scores in one commit that names the model and the input snapshots.

    Returns:
        One record a partition, the unchanged ones included.
    """
    scored, validated = audited.scored, audited.validated
    fresh: set[str] = set()
    if validated.staged:
        provenance = prediction_notes(store, scored, validated.staged)
        done = store.publish(PREDICTIONS, validated.staged, validated.reports, run, provenance=provenance)
        fresh = {part.partition for part in done.published}
    head = store.head(PREDICTIONS)
    if head is None:
        return ()
    held = store.partitions(head)
    made_by = published_predictions(store)
    return tuple(
        Prediction(
            partition=partition,
            # An erasure may have left exactly these bytes, and says nothing of a model.
            model_version=int(made_by[partition].get("model", scored.model.version)),
            inputs=scored.inputs,
            rows_in=rows_in,
            rows_scored=held[partition].rows,
            digest=held[partition].digest,
            state="published" if partition in fresh else "unchanged",
            snapshot=head,
        )
        for partition, rows_in in sorted(scored.rows_in.items())
    )
