"""What the story promises, and what each promise is held against. A promise that cannot be checked is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from include.demo.plan import Plan
from include.demo.record import Record
from include.demo.story import USE_CASE
from pipelines import partitions
from pipelines.counts import NOTE
from pipelines.records import Counts


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One promise, and whether it held."""

    promise: str
    held: bool
    evidence: str


def _span(record: Record, low: str, high: str) -> list[str]:
    return partitions.span(low, high, record.runtime.spec.granularity)


def _wanted(plan: Plan, record: Record) -> list[str]:
    return [key for low, high in plan.scored for key in _span(record, low, high)]


def one_run_of_history(plan: Plan, record: Record) -> tuple[bool, str]:
    """History was one run of the scheduler's, and started no scoring."""
    low, high = plan.history
    days = set(_span(record, low, high))
    held = days <= set(record.rows)
    started = [run for run in record.runs if run.dag_id == f"{USE_CASE}_score" and run.partition in days]
    scored = days & set(record.scores)
    ingests = [run for run in record.runs if run.dag_id == f"{USE_CASE}_ingest" and run == record.played.history]
    return (
        held and not started and not scored and len(ingests) == 1,
        f"{len(days & set(record.rows))} of {len(days)} partitions published by {len(ingests)} run; "
        f"{len(started)} scoring runs for them",
    )


def one_scoring_run_a_night(plan: Plan, record: Record) -> tuple[bool, str]:
    """Each night's asset event started that night's scoring, once."""
    nights = [*plan.nights, plan.after_bad, plan.bad]
    started = [
        run.partition for run in record.runs if run.dag_id == f"{USE_CASE}_score" and run.run_type == "asset_triggered"
    ]
    return sorted(map(str, started)) == sorted(nights), f"{len(started)} runs for {len(nights)} nights"


def audited(plan: Plan, record: Record) -> tuple[bool, str]:  # noqa: ARG001 (every promise has this signature)
    """Whatever any reader ever could see had passed the audit of exactly those bytes."""
    commits = seen = bad = 0
    tables = (*record.runtime.spec.tables, "predictions", "promotions", "decisions")
    for table in tables:
        for commit in record.runtime.store.history(table):
            commits += 1
            seen += len(commit.partitions)
            bad += sum(key not in commit.audits or not commit.audits[key].checks for key in commit.partitions)
    return seen > 0 and bad == 0, f"{seen} partitions in {commits} commits of {len(tables)} tables, {bad} without audit"


def scored_once(plan: Plan, record: Record) -> tuple[bool, str]:
    """One prediction a flight, for every night of the story and for no other."""
    wanted = _wanted(plan, record)
    wrong = [key for key in wanted if record.scores.get(key) != record.rows.get(key, -1)]
    others = set(record.scores) - set(wanted)
    total = sum(record.scores.values())
    return (
        not wrong and not others and record.distinct_keys == total,
        f"{total:,} predictions of {len(record.scores)} nights, {record.distinct_keys:,} distinct flights; "
        f"{len(wrong)} nights with another number of rows than their input, {len(others)} nights too many",
    )


def counted_with_the_scores(plan: Plan, record: Record) -> tuple[bool, str]:
    """What drift is measured on was counted while scoring, over every row, and lies in the file of the scores."""
    store, wanted = record.runtime.store, _wanted(plan, record)
    head = store.head("predictions")
    if head is None:
        return False, "there are no predictions"
    notes = store.notes(head, wanted, NOTE)
    counts = {key: Counts.model_validate_json(text) for key, text in notes.items()}
    wrong = [key for key in wanted if key not in counts or counts[key].rows != record.scores.get(key)]
    largest = max(map(len, notes.values()), default=0)
    return not wrong, f"{len(counts)} nights, {len(wrong)} with another number of rows; at most {largest:,} bytes"


def bad_night_set_aside(plan: Plan, record: Record) -> tuple[bool, str]:
    """The bad night went to quarantine with its report, and changed nothing that anybody reads."""
    bad = record.played.bad
    if bad is None:
        return False, "the bad night was not played"
    reports = [entry for entry in record.quarantined if entry.table == "rows" and entry.partition == plan.bad]
    failed = sorted({check.name for entry in reports for check in entry.report.failed})
    before, after = record.played.bad_before, record.played.bad_after
    own = {key for key in after if after[key] != before.get(key) and key.split("/")[0] in ("rows", "predictions")}
    champion = {key: digest for key, digest in before.items() if key.startswith("promotions/")}
    same = all(after.get(key) == digest for key, digest in before.items())
    held = bool(reports and failed) and bad.ingest.state == "failed" and not own and same and bool(champion)
    return held, f"run {bad.ingest.state}; failed: {', '.join(failed)}; {len(own)} partitions of rows or scores changed"


def next_night_unharmed(plan: Plan, record: Record) -> tuple[bool, str]:
    """The night after the bad one was ingested and scored while the bad one still lay in quarantine."""
    night = next((each for each in record.played.nights if each.partition == plan.after_bad), None)
    healed = record.played.healed
    if night is None or night.score is None or healed is None or night.score.ended is None:
        return False, "the night was not scored"
    early = night.score.ended <= healed.ingest.queued
    rows = record.scores.get(plan.after_bad)
    when = "before" if early else "not before"
    return early and bool(rows), f"{night.partition}: {rows} predictions, {when} the repair"


def healed(plan: Plan, record: Record) -> tuple[bool, str]:
    """When the corrected file landed, a rerun published and scored the bad night."""
    rows, scores = record.rows.get(plan.bad), record.scores.get(plan.bad)
    return rows is not None and rows == scores, f"{plan.bad}: {rows} rows, {scores} predictions"


def champions_by_gates(plan: Plan, record: Record) -> tuple[bool, str]:  # noqa: ARG001
    """Every champion passed every gate, on a holdout that no training saw."""
    passed = {
        (training.run.run_id, training.promotion.version)
        for training in record.trainings
        if training.gates and training.gates.passed and training.promotion
    }
    logged = {(entry.run.run_id, entry.version) for entry in record.promotions if entry.kind == "promote"}
    epochs = [entry.epoch for entry in record.promotions]
    return (
        bool(logged) and logged <= passed and epochs == list(range(1, len(epochs) + 1)),
        f"{len(logged)} promotions, {len(logged & passed)} by a run whose gates passed; epochs {epochs}",
    )


def decisions_kept(plan: Plan, record: Record) -> tuple[bool, str]:
    """Every monitor run's decision is stored with its reasons, yes or no."""
    wanted = [high for _, high in plan.ranges] + [plan.drifted[1]]
    stored = {decision.as_of for decision in record.decisions if decision.reasons}
    shown = ", ".join(f"{each.as_of} {'yes' if each.retrain else 'no'}" for each in record.decisions)
    return set(wanted) <= stored, shown or "none"


def drift_starts_training(plan: Plan, record: Record) -> tuple[bool, str]:
    """December's decision was yes, and it started exactly one training by itself."""
    yes = [each for each in record.decisions if each.retrain and each.as_of == plan.drifted[1]]
    started = [training for training in record.trainings if yes and training.run.run_id == yes[0].id]
    return (
        len(yes) == 1 and len(started) == 1 and len(record.trainings) == 2,
        f"{len(yes)} yes as of {plan.drifted[1]}; {len(started)} training of its id; {len(record.trainings)} in all",
    )


def outcome_stored(plan: Plan, record: Record) -> tuple[bool, str]:  # noqa: ARG001
    """The challenger met the champion on the same holdout, and was promoted or refused with a reason."""
    last = record.trainings[-1] if len(record.trainings) > 1 else None
    if last is None or last.gates is None or last.evaluation is None or last.evaluation.champion is None:
        return False, "no second training was judged against a champion"
    entry = record.promotions[-1]
    consistent = (entry.run.run_id == last.run.run_id) == last.gates.passed
    # All gates' reasons fill a screen when none refused: then what the challenger gained says enough.
    told = next((gate.reason for gate in last.gates.gates if gate.name == "champion"), "")
    shown = (
        f"promoted by {len(last.gates.gates)} gates: {told}" if last.gates.passed else f"refused: {last.gates.reason}"
    )
    return consistent and bool(last.gates.reason), shown


def no_second_training(plan: Plan, record: Record) -> tuple[bool, str]:
    """After the yes, the same monitor run once more started nothing: a cool-down follows."""
    asked = record.played.asked_twice
    if asked is None:
        return False, "the monitor was not run again"
    run, before, after = asked
    yes = sum(each.retrain and each.as_of == plan.drifted[1] for each in record.decisions)
    held = run.state == "success" and before == after and yes == 1
    return held, f"{before} trainings before, {after} after; {yes} yes as of {plan.drifted[1]}"


def repeat_changes_nothing(plan: Plan, record: Record) -> tuple[bool, str]:
    """Scoring a night a second time left every published byte as it was."""
    before, after = record.played.repeat_before, record.played.repeat_after
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    repeat = record.played.repeat
    known = f"predictions/{plan.repeated}" in before
    held = repeat is not None and repeat.state == "success" and known and not changed
    return held, f"{len(before)} published partitions, {len(changed)} changed"


def one_record(plan: Plan, record: Record) -> tuple[bool, str]:  # noqa: ARG001
    """From predictions to model, run and snapshots: each commit names them, and each of them exists."""
    versions = {model.version: model for model in record.runtime.registry.versions()}
    runs = {run.run_id for run in record.runs}
    named = 0
    for commit in record.runtime.store.history("predictions"):
        made = commit.provenance.get("predictions", {}).values()
        if commit.run.run_id not in runs or not commit.provenance.get("snapshots"):
            return False, f"{commit.snapshot.id} does not say where it is from"
        if any(int(each["model"]) not in versions for each in made):
            return False, f"{commit.snapshot.id} names a model that does not exist"
        named += len(made)
    return named > 0, f"{named} prediction partitions name their model version, run and input snapshots"


PROMISES: tuple[Callable[[Plan, Record], tuple[bool, str]], ...] = (
    one_run_of_history,
    one_scoring_run_a_night,
    audited,
    scored_once,
    counted_with_the_scores,
    bad_night_set_aside,
    next_night_unharmed,
    healed,
    champions_by_gates,
    decisions_kept,
    drift_starts_training,
    outcome_stored,
    no_second_training,
    repeat_changes_nothing,
    one_record,
)


def check(plan: Plan, record: Record) -> list[Verdict]:
    """Every promise, each held against what the store, the registry and the scheduler say."""
    verdicts = []
    for promise in PROMISES:
        try:
            held, evidence = promise(plan, record)
        except Exception as error:
            held, evidence = False, f"could not be checked: {type(error).__name__}: {error}"
        verdicts.append(Verdict(promise=(promise.__doc__ or "").strip(), held=held, evidence=evidence))
    return verdicts
