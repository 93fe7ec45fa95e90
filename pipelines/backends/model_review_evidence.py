"""Sections of the card: fairness, compression, and how the model was trained."""

from __future__ import annotations

from pipelines.backends import model_review_tables as tables
from pipelines.backends.model_review_document import Block, Grid, Pairs, Section, Text
from pipelines.backends.model_review_facts import Facts
from pipelines.backends.model_review_tables import NOT_MEASURED, figure
from pipelines.records import Fairness, Scorecard


def fairness(facts: Facts) -> Section:
    """What is decided between the groups of each sensitive column."""
    gate, found = facts.spec.gates.fairness, facts.case.evaluation.fairness
    if not gate.columns:
        return Section("Fairness", [Text("The use case names no sensitive columns, so nothing was compared.")])
    if found is None:
        why = facts.case.evaluation.errors.get("fairness", "nobody looked")
        return Section("Fairness", [Text(f"{', '.join(gate.columns)}: {NOT_MEASURED} ({why}).")])
    blocks: list[Block] = [
        Text(
            f"Asked for: a selection-rate ratio of at least {gate.min_selection_ratio:.2f} and an odds difference of "
            f"at most {gate.max_odds_difference:.2f} between groups of {gate.min_rows} rows or more."
        )
    ]
    for one in found:
        blocks += _groups(one)
    return Section("Fairness", blocks)


def _groups(one: Fairness) -> list[Block]:
    lines = [
        [
            tables.word(group.value),
            f"{group.rows:,}",
            figure(group.selection_rate),
            _or_dash(group.true_positive_rate),
            _or_dash(group.false_positive_rate),
            "yes" if group.judged else "too few rows",
        ]
        for group in one.groups
    ]
    told = f"{one.column}: selection-rate ratio {_or_dash(one.selection_ratio)}, "
    told += f"odds difference {_or_dash(one.odds_difference)}."
    heads = [one.column, "rows", "selected", "true positives", "false positives", "judged"]
    return [Text(told), Grid(heads, lines)]


def _or_dash(value: float | None) -> str:
    return "not defined" if value is None else figure(value)


def compression(facts: Facts) -> Section:
    """What the served student cost against its own fp32 and its teacher."""
    evaluation = facts.case.evaluation
    named = {card.model: card for card in evaluation.others}
    chain = dict.fromkeys(("teacher", "student_fp32", "student_int8", "student_fp16", evaluation.served))
    wanted = [name for name in chain if name in named]
    if not wanted:
        return Section("Compression", [Text(f"{NOT_MEASURED.capitalize()}.")])
    cards: list[tuple[str, Scorecard]] = [(name.replace("_", " "), named[name]) for name in wanted]
    metric = evaluation.metric
    lines = [[name, figure(card.metrics.get(metric)), figure(card.calibration_error)] for name, card in cards]
    blocks: list[Block] = [Grid(["model", metric, "calibration error"], lines), tables.speed(cards)]
    if evaluation.fp32:
        told = evaluation.fp32
        late = ", ".join(f"batch of {rows:,}: {ratio:.2f}" for rows, ratio in sorted(told.latency_ratios.items()))
        blocks.append(
            Text(
                f"What is served against its own fp32, in turn on the same rows and machine: {told.speed_ratio:.2f} "
                f"times the rows a second, {told.size_ratio:.2f} times the bytes, p99 {late or NOT_MEASURED}."
            )
        )
        if told.slices:
            worst = sorted(told.slices, key=lambda part: (part.gain, part.slice))
            blocks.append(tables.slice_gains(["slice", "rows", "served", "fp32", "gain"], worst))
    else:
        why = evaluation.errors.get("fp32", "nobody looked")
        blocks.append(Text(f"Served against its own fp32 in the same minute: {NOT_MEASURED} ({why})."))
    return Section("Compression", blocks)


def training(facts: Facts) -> Section:
    """Seed, epochs, code, settings: what is needed to do it again."""
    about, trained, tags = facts.challenger.about, facts.case.trained, facts.case.tags
    seconds = {name: f"{value:,.1f}" for name, value in about.get("seconds", {}).items()}
    libraries = about.get("libraries", {})
    searched = trained.training_set.searched
    pairs = [
        ("served", str(about.get("served", "unknown"))),
        ("seed", str(about.get("seed", "unknown"))),
        ("epochs", ", ".join(f"{name} {count}" for name, count in facts.challenger.epochs.items()) or "none: trees"),
        ("seconds", ", ".join(f"{name} {value}" for name, value in seconds.items()) or f"{trained.seconds:,.1f}"),
        ("code", tags.get("overnight.code_version", "unknown")),
        ("spec", f"SHA-256 {about.get('spec_digest', tags.get('overnight.spec', 'unknown'))}"),
        ("made by", tags.get("overnight.dag_run", "unknown")),
        ("artifact", f"SHA-256 {trained.digest}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()))),
    ]
    if searched is None:
        pairs.append(("search", "none: the spec's own settings"))
    else:
        chosen = ", ".join(f"{name} {value}" for name, value in searched.parameters.items())
        tried = f"{searched.complete} complete, {searched.pruned} pruned, {searched.failed} failed trials"
        pairs.append(("search", f"{searched.study}: {tried}; chose trial {searched.trial} ({chosen})"))
    return Section("How it was trained", [Pairs(pairs)])
