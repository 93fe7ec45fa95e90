"""The model card: what a model is for, what it learned from, how good it is, why it scores so, and how to undo it.

The sections follow Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993); what a reviewer needs first
stands first, because a registry keeps only the beginning of a long description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.backends import model_review_evidence as evidence
from pipelines.backends import model_review_tables as tables
from pipelines.backends.model_review_document import Block, Code, Items, Link, Page, Pairs, Pictures, Section, Text
from pipelines.backends.model_review_facts import Facts
from pipelines.backends.model_review_svg import Figure, cut
from pipelines.backends.model_review_tables import NOT_MEASURED, figure

_UNSTATED = "The spec does not say (card in the use case's YAML file)."
#: Licence of this project's code; the model is made by it from the data.
_CODE_LICENCE = "Apache-2.0"


def page(
    facts: Facts, plots: Sequence[Figure], reasons: Section | None, failed: Mapping[str, str], files: Sequence[str]
) -> Page:
    """The card.

    Args:
        plots: of the model's quality.
        reasons: the explanations; None where there are none.
        failed: what of the review itself could not be made, and why.
        files: names of what else lies beside the card.
    """
    report, run = facts.case.report, facts.case.trained.run_id
    sections = [
        _use(facts),
        _undo(facts),
        _wrong(facts, failed),
        Section("How good it is", [*tables.overall(facts), *([Pictures(plots)] if plots else [])]),
        Section("Gates", [tables.gates(facts)]),
        _data(facts),
        _slices(facts),
        reasons or Section("Why it scores as it does", [Text(_missing(failed, "explanations"))]),
        evidence.fairness(facts),
        evidence.compression(facts),
        evidence.training(facts),
        _licences(facts, files),
    ]
    state = "gates passed" if report.passed else "gates refused"
    return Page(f"{facts.spec.title}: model card", state, report.passed, [_lead(facts, run)], sections)


def _missing(failed: Mapping[str, str], part: str) -> str:
    return f"{NOT_MEASURED.capitalize()}: {failed.get(part, 'nobody looked')}."


def _lead(facts: Facts, run: str) -> Block:
    evaluation = facts.case.evaluation
    refused = [gate.name for gate in facts.case.report.gates if not gate.passed]
    against = facts.rival if facts.champion else "no champion: it would be the first"
    pairs = [
        ("use case", facts.spec.name),
        ("judged by", f"{evaluation.metric} {tables.interval(evaluation.interval)}"),
        ("compared with", against),
        ("verdict", "every gate passed" if not refused else f"refused by {', '.join(refused)}"),
        ("MLflow run", run),
    ]
    if evaluation.interval is None:
        value = evaluation.challenger.metrics.get(evaluation.metric)
        pairs[1] = ("judged by", f"{evaluation.metric} {figure(value)}, interval {NOT_MEASURED}")
    return Pairs(pairs)


def _use(facts: Facts) -> Section:
    spec = facts.spec
    kind = {
        "binary": "the probability of yes",
        "multiclass": f"the probability of each of {len(spec.label.classes)} classes",
        "regression": "a value in the label's unit",
    }[spec.label.task]
    blocks: list[Block] = [
        Text(spec.description),
        Pairs(
            [
                ("owner", spec.owner),
                ("gives", kind),
                ("predicts", f"{spec.label.table}.{spec.label.column}{_positive(facts)}"),
                ("intended use", spec.card.intended_use or _UNSTATED),
            ]
        ),
        Text("Limits:"),
        Items(spec.card.limits or (_UNSTATED,)),
    ]
    return Section("What it is for", blocks)


def _positive(facts: Facts) -> str:
    positive = facts.spec.label.positive
    if positive is None:
        return ""
    told = positive.model_dump(exclude_none=True)
    return f", yes where it is {' and '.join(f'{name} {value}' for name, value in told.items())}"


def _undo(facts: Facts) -> Section:
    name, version = facts.spec.name, facts.case.evaluation.champion_version
    if version is None:
        return Section(
            "How to undo its promotion",
            [
                Text(
                    "It would be the first champion, so there is nothing to go back to: train again, or pause the "
                    f"scoring DAG {name}_score. Once a later model is champion, this one is come back to with:"
                ),
                Code(f'overnight rollback {name} --reason "..."'),
            ],
        )
    return Section(
        "How to undo its promotion",
        [
            Text(f"To {facts.rival}, its drift reference included; the promotion log keeps the reason:"),
            Code(f'overnight rollback {name} --to {version} --reason "..."'),
            Text(f"Or in Airflow: trigger the DAG {name}_rollback and fill in its form."),
        ],
    )


def _wrong(facts: Facts, failed: Mapping[str, str]) -> Section:
    report, evaluation = facts.case.report, facts.case.evaluation
    lines = [f"Gate {gate.name} refused: {gate.reason}" for gate in report.gates if not gate.passed]
    lines += [f"Could not be measured, {part}: {why}" for part, why in sorted(evaluation.errors.items())]
    lines += [f"Missing from this card, {part}: {why}" for part, why in sorted(failed.items())]
    told = {
        "an interval of the metric": evaluation.interval,
        "sanity checks": evaluation.sanity,
        "an audit of the training data": evaluation.data,
    }
    lines += [f"Nobody measured {name}." for name, value in told.items() if value is None]
    lines += _unsound(facts)
    return Section("What is known to be wrong", [Items(lines)] if lines else [Text("Nothing that was looked for.")])


def _unsound(facts: Facts) -> list[str]:
    sanity = facts.case.evaluation.sanity
    if sanity is None:
        return []
    return [
        f"Golden rows {row.name}: from {figure(row.before)} to {figure(row.after)}, not as the spec expects."
        for row in sanity.golden
        if not row.passed
    ]


def _data(facts: Facts) -> Section:
    told, holdout = facts.case.trained.training_set, facts.case.evaluation.holdout
    lines = []
    for part, count in facts.gaps.items():
        if count:
            lines.append(f"{count} partitions between the ends of {part} have no labelled row.")
    if told.unlabelled or told.rows.get("unlabelled"):
        newer = f", {' to '.join(told.unlabelled)} among them" if told.unlabelled else ""
        lines.append(
            f"{told.rows.get('unlabelled', 0):,} rows without a label{newer} were learned from by the teacher's "
            "output alone; they are in no metric."
        )
    else:
        lines.append("Rows without a label are left out.")
    lines.append(
        f"Not matured: what is newer than {told.holdout[1]} ({told.as_of} was the newest; partitions that a label "
        f"waits before it is used: {max(facts.spec.label.maturity, facts.spec.tables[facts.spec.label.table].lag)})."
    )
    lines.append(_audit(facts))
    blocks: list[Block] = [
        tables.data(facts.challenger),
        Pairs(
            [
                ("met on", f"{' to '.join(holdout.partitions)}, {holdout.rows:,} rows, as of {holdout.as_of}"),
                ("read from", ", ".join(ref.id for ref in holdout.snapshots)),
                ("SHA-256", holdout.digest),
            ]
        ),
        Text("Left out:"),
        Items(lines),
    ]
    return Section("Data", blocks)


def _audit(facts: Facts) -> str:
    audit = facts.case.evaluation.data
    if audit is None:
        return (
            "Quarantined partitions were never published and cannot be read; whether each partition that was read had "
            f"passed its audit was {NOT_MEASURED} again."
        )
    bad = [f"without an audit: {', '.join(audit.unaudited)}"] if audit.unaudited else []
    bad += [f"in quarantine: {', '.join(audit.quarantined)}"] if audit.quarantined else []
    found = "; ".join(bad) or "all of them audited, none of them in quarantine"
    return f"Quarantined partitions are not read. Of {audit.partitions:,} partitions that were read: {found}."


def _slices(facts: Facts) -> Section:
    blocks: list[Block] = []
    if facts.against_champion:
        blocks += tables.gains(facts, facts.against_champion)
    own = tables.own_slices(facts)
    if own:
        blocks += [Text(f"{facts.case.evaluation.metric} of what is served, on its training's holdout:"), *own]
    if not blocks:
        named = bool(facts.spec.features.slices)
        blocks.append(Text(f"{NOT_MEASURED.capitalize()}." if named else "The use case names no slices."))
    return Section("By slice", blocks)


def _licences(facts: Facts, files: Sequence[str]) -> Section:
    blocks: list[Block] = [
        Pairs(
            [
                ("data", facts.spec.card.data_licence or _UNSTATED),
                ("code that made the model", _CODE_LICENCE),
                ("model", f"the owner's to grant: {facts.spec.owner}"),
            ]
        )
    ]
    blocks += [Link(words, name) for words, name in (("Champion against challenger", "comparison.html"),)]
    if "compression.html" in files:
        blocks.append(Link("The training's compression report", "compression.html"))
    if facts.case.url:
        blocks.append(Link(f"MLflow run {cut(facts.case.trained.run_id, 40)}", facts.case.url))
    return Section("Licences and more", blocks)
