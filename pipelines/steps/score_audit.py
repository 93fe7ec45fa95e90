"""Judges staged scores like any data, before anybody sees them."""

from __future__ import annotations

import hashlib

import polars as pl

from pipelines.errors import QuarantinedError, explain
from pipelines.intervals import HIGH, LOW
from pipelines.ports import SnapshotStore
from pipelines.records import AuditedScores, Check, Scored, SnapshotRef, StagedPartition, Validated, ValidationReport
from pipelines.scoring import reasons
from pipelines.spec import UseCase
from pipelines.steps.predictions import DECISION, PREDICTIONS, refuse_removed, score_columns

#: From so many rows on, too few distinct scores mean a broken model.
_DISTINCT_FROM = 100
#: Rows in which enough distinct scores are looked for first.
_DISTINCT_IN = 100_000


def audit_scores(spec: UseCase, store: SnapshotStore, scored: Scored) -> AuditedScores:
    """Judges staged scores like any data. One failure quarantines that partition's scores and fails the step.

    Raises:
        QuarantinedError: naming each partition and check; what was published before stays.
        RemovedError: the rows were erased or collected since they were scored.
    """
    refuse_removed(store, scored)
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
    names = score_columns(spec)
    frame = store.read_staged(staged)
    found = _found(frame, names)
    height = found["rows"]
    strays, twice, moved = _keys(spec, frame, store.scan(rows, [staged.partition], spec.rows.key))
    broken = found["broken"]
    distinct = _distinct(frame, names, spec.scoring.min_distinct) if height else 0
    fewest = spec.scoring.min_distinct if height >= _DISTINCT_FROM else min(height, 1)
    worst = max(scored.unseen[staged.partition].items(), key=lambda item: item[1], default=("none", 0.0))
    bound = spec.scoring.max_unseen_share
    checks = [
        Check(
            name="row_count_equals_input",
            passed=height == scored.rows_in[staged.partition],
            observed=f"{height} rows",
            allowed=f"{scored.rows_in[staged.partition]} rows",
        ),
        Check(
            name="keys_match_one_to_one",
            passed=strays == twice == moved == 0,
            observed=f"{strays} keys on one side only, {twice} repeated, {moved} rows out of place",
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
        outside = found["outside"]
        checks.append(
            Check(name="scores_in_range", passed=outside == 0, observed=f"{outside} outside", allowed="0 to 1")
        )
        wrong = _one(frame.select((pl.col(DECISION).ne_missing(_decision(spec, scored))).sum()))
        checks.append(
            Check(
                name="decisions_match_scores",
                column=DECISION,
                passed=wrong == 0,
                observed=f"{wrong} decided otherwise than their scores say",
                allowed="0",
            )
        )
    if spec.scoring.interval is not None:
        checks.append(_rowwise("interval_holds_score", frame, _beside(), "without low <= score <= high, all finite"))
    if spec.scoring.reasons:
        checks.append(_rowwise("reasons", frame, _unreasonable(spec), "not of features, twice, or not finite"))
    return checks


def _rowwise(name: str, frame: pl.LazyFrame, wrong: pl.Expr, words: str) -> Check:
    """A check that no row may fail."""
    count = _one(frame.select(wrong.fill_null(True).sum()))
    return Check(name=name, passed=count == 0, observed=f"{count} {words}", allowed="0")


def _beside() -> pl.Expr:
    """Whether a row's score is not in its interval."""
    low, high = pl.col(LOW), pl.col(HIGH)
    return ~(low.is_finite() & high.is_finite() & (low <= pl.col("score")) & (pl.col("score") <= high))


def _unreasonable(spec: UseCase) -> pl.Expr:
    """Whether a row's reasons are none: each names another feature and a finite effect, none greater than the one
    before it; where there are no more, both are null.
    """
    wrong = pl.lit(False)
    before: list[tuple[str, str]] = []
    for feature, effect in reasons.names(spec.scoring.reasons):
        name, size = pl.col(feature), pl.col(effect)
        none = name.is_null() & size.is_null()
        good = name.is_in(list(spec.features.columns)) & size.is_finite() & (size != 0)
        for other, theirs in before:
            good = good & (name != pl.col(other)) & (size.abs() <= pl.col(theirs).abs())
        wrong = wrong | ~(none | good.fill_null(False))
        before.append((feature, effect))
    return wrong


def _found(frame: pl.LazyFrame, names: list[str]) -> dict[str, int]:
    """Rows, rows without a finite score, and rows with a score outside 0 to 1, in one pass of bounded memory."""
    scores = pl.col(names)
    counted = frame.select(
        rows=pl.len(),
        broken=pl.any_horizontal(scores.is_null() | ~scores.is_finite()).sum(),
        outside=pl.any_horizontal((scores < 0) | (scores > 1)).sum(),
    ).collect(engine="streaming")
    return {name: int(count or 0) for name, count in counted.row(0, named=True).items()}


def _keys(spec: UseCase, frame: pl.LazyFrame, inputs: pl.LazyFrame) -> tuple[int, int, int]:
    """Keys that are on one side only, keys that are there more than once, and rows that are not beside their input's.

    Scores come in the order of their input rows, whose keys are unique since they were published. So the same keys in
    the same places are one to one, and that takes no memory; only where they are not is it looked up how they differ.
    Keys in another order may have got each other's scores.
    """
    key = list(spec.rows.key)
    theirs = {name: f"__input_{name}" for name in key}
    mine, wanted = frame.select(key), inputs.select(key)
    if (height := _one(mine.select(pl.len()))) != _one(wanted.select(pl.len())):
        return _strays(mine, wanted, key), height - _one(mine.unique(key).select(pl.len())), 0
    beside = pl.concat([frame.select(key), inputs.select(pl.col(key)).rename(theirs)], how="horizontal")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(other)) for name, other in theirs.items())
    if (moved := _one(beside.select((~same).sum()))) == 0:
        return 0, 0, 0
    return _strays(mine, wanted, key), height - _one(mine.unique(key).select(pl.len())), moved


def _strays(mine: pl.LazyFrame, wanted: pl.LazyFrame, key: list[str]) -> int:
    sides = mine.join(wanted, on=key, how="anti"), wanted.join(mine, on=key, how="anti")
    return sum(_one(rows.select(pl.len())) for rows in sides)


def _distinct(frame: pl.LazyFrame, names: list[str], enough: int) -> int:
    """Distinct scores; where the first rows have enough, theirs."""
    first = frame.select(names).head(_DISTINCT_IN).unique()
    if (found := _one(first.select(pl.len()))) >= enough:
        return found
    return _one(frame.select(names).unique().select(pl.len()))


def _one(query: pl.LazyFrame) -> int:
    return int(query.collect(engine="streaming").item() or 0)


def _decision(spec: UseCase, scored: Scored) -> pl.Expr:
    """What a row's scores decide: binary, or the first of the highest classes."""
    if spec.label.task == "binary":
        return pl.col("score").cast(pl.Float64) >= scored.threshold
    highest = pl.concat_list(score_columns(spec)).list.arg_max()
    return highest.replace_strict(dict(enumerate(spec.label.classes)), return_dtype=pl.String)
