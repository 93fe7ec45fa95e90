"""Judges staged scores like any data, before anybody sees them."""

from __future__ import annotations

import hashlib

import polars as pl

from pipelines.errors import QuarantinedError, explain
from pipelines.ports import SnapshotStore
from pipelines.records import AuditedScores, Check, Scored, SnapshotRef, StagedPartition, Validated, ValidationReport
from pipelines.spec import UseCase
from pipelines.steps.scoring import DECISION, PREDICTIONS, score_columns

#: From so many rows on, too few distinct scores mean a broken model.
_DISTINCT_FROM = 100


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
        wrong = frame.select((pl.col(DECISION).ne_missing(_decision(spec, scored))).sum()).item()
        checks.append(
            Check(
                name="decisions_match_scores",
                column=DECISION,
                passed=wrong == 0,
                observed=f"{wrong} decided otherwise than their scores say",
                allowed="0",
            )
        )
    return checks


def _decision(spec: UseCase, scored: Scored) -> pl.Expr:
    """What a row's scores decide: binary, or the first of the highest classes."""
    if spec.label.task == "binary":
        return pl.col("score").cast(pl.Float64) >= scored.threshold
    highest = pl.concat_list(score_columns(spec)).list.arg_max()
    return highest.replace_strict(dict(enumerate(spec.label.classes)), return_dtype=pl.String)
