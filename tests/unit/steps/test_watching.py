"""What a monitor run sees besides drift: quality before and after labels, what of the data is wrong, skew, slices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from pipelines import artifacts
from pipelines.cli import main
from pipelines.errors import IntegrityError, NotFoundError, SpecError
from pipelines.metrics import metrics
from pipelines.policies.retraining import decide
from pipelines.ports import Draft
from pipelines.records import Observations
from pipelines.runtime import Runtime
from pipelines.spec import UseCase
from pipelines.steps.decisions import entries
from pipelines.steps.watching import skew as skewed
from pipelines.steps.watching.quality import expected, measured, over_nights
from tests.cases.champions import DAYS, NAME, Champions
from tests.contracts.stores import RUN, audit
from tests.unit.steps.test_training_set import use_case

AS_OF, WINDOW = DAYS[11], 5


def score(runtime: Runtime, days: Sequence[str] = DAYS[7:12], version: int | None = None) -> None:
    runtime.publish_scores(runtime.audit_scores(runtime.score(days, version)))


def publish(runtime: Runtime, table: str, frames: dict[str, pl.DataFrame]) -> None:
    staged = runtime.store.stage(table, [Draft(partition=day, frame=frame) for day, frame in frames.items()], RUN)
    runtime.store.publish(table, staged, [audit(part) for part in staged], RUN)


def labels(runtime: Runtime, day: str) -> pl.DataFrame:
    head = runtime.store.head("labels")
    assert head is not None
    return runtime.store.scan(head, [day]).drop("partition").collect()


def champion(champions: Champions, folder: Path, **changes: object) -> Runtime:
    mine = champions.copy(folder, **changes)
    mine.promote(1, "first")
    made = mine.runtime()
    score(made)
    return made


@pytest.fixture
def runtime(registered: Champions, tmp_path: Path) -> Runtime:
    """Version 1 is champion and has scored the window; the last day's labels have not matured."""
    return champion(registered, tmp_path, drift={"min_rows": 100}, features={"slices": ["site"]})


def test_a_night_has_its_metric_with_an_interval_and_before_labels_what_the_scores_expect(runtime: Runtime) -> None:
    seen = runtime.observe(AS_OF, WINDOW)
    assert [each.labels for each in seen.window] == [150] * 4 + [0]
    assert [each.quality is None for each in seen.window] == [False] * 4 + [True]
    for each in seen.window:
        assert each.expected is not None
        assert each.expected.low < each.expected.value < each.expected.high
        if each.quality is not None:
            assert each.quality.low < each.quality.value < each.quality.high
    assert seen.live is not None
    assert seen.live.rows == seen.live_labels == 600
    assert seen.expected is not None
    assert seen.expected.rows == 150, "the day whose labels are to come"
    assert runtime.observe(AS_OF, WINDOW) == seen, "the same every time"


def test_the_window_shows_decisions_slices_freshness_and_no_skew(runtime: Runtime) -> None:
    seen = runtime.observe(AS_OF, WINDOW)
    for each in seen.window:
        assert set(each.decisions) <= {"true", "false"}
        assert sum(each.decisions.values()) == pytest.approx(1)
    assert sorted((part.column, part.value) for part in seen.slices) == [("site", "north"), ("site", "south")]
    assert sum(part.labels for part in seen.slices) == 600
    assert all(part.quality is not None for part in seen.slices)
    found = seen.health
    assert (found.newest, found.behind, found.missing, found.late_labels) == (AS_OF, 0, (), ())
    assert found.skew is not None
    assert (found.skew.partition, found.skew.rows, found.skew.columns) == (AS_OF, 150, {})
    assert seen.champion_as_of == DAYS[7]


def test_features_that_depend_on_their_neighbours_are_skew_and_stop_a_retraining(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = skewed.build_features

    def leaning(spec: UseCase, store: object, snapshots: object, partitions: Sequence[str]) -> pl.LazyFrame:
        """Wear is told by the mean of all rows that are at hand."""
        return right(spec, store, snapshots, partitions).with_columns(  # type: ignore[arg-type]
            (pl.col("wear") - pl.col("wear").mean()).cast(pl.Float32)
        )

    monkeypatch.setattr(skewed, "build_features", leaning)
    seen = runtime.observe(AS_OF, WINDOW)
    assert seen.health.skew is not None
    assert set(seen.health.skew.columns) == {"wear"}
    decision = decide(seen, runtime.spec, past=[], backfill=False)
    assert any("features differ between scoring and training: wear" in reason for reason in decision.reasons)
    assert not decision.retrain


def test_labels_that_are_late_missing_strange_or_disagree_are_counted_and_not_believed(runtime: Runtime) -> None:
    before = runtime.observe(AS_OF, WINDOW)
    told = labels(runtime, DAYS[9])
    first, second, *_ = told.get_column("id")
    changed = pl.concat(
        [
            told.filter(~pl.col("id").is_in(told.get_column("id").tail(10).implode())),  # ten never come
            told.filter(pl.col("id") == first).with_columns(~pl.col("stuck")),  # the other label of a key
            told.filter(pl.col("id") == second),  # the same label again
            pl.DataFrame({"id": ["nobody"], "stuck": [True]}),
        ]
    )
    publish(runtime, "labels", {DAYS[9]: changed})
    seen = runtime.observe(AS_OF, WINDOW)
    assert (seen.health.strange_labels, seen.health.disagreeing_labels, seen.health.unlabelled) == (1, 1, 11)
    assert [each.unlabelled for each in seen.window] == [0, 0, 11, 0, 0]
    assert seen.window[2].labels == 139
    assert seen.health.restated_labels == (DAYS[9],)
    assert [each.quality for each in seen.window if each.partition != DAYS[9]] == [
        each.quality for each in before.window if each.partition != DAYS[9]
    ]


def test_labels_that_do_not_come_are_late_and_drift_is_seen_without_them(registered: Champions, tmp_path: Path) -> None:
    runtime = champion(registered, tmp_path, label={"maturity": 1})
    head = runtime.store.head("labels")
    assert head is not None
    held = {day: labels(runtime, day) for day in DAYS[:8]}
    other = Runtime(runtime.spec, runtime.settings, runtime.run)
    moved = other.spec.model_copy(
        update={
            "label": other.spec.label.model_copy(update={"table": "outcomes"}),
            "tables": {**other.spec.tables, "outcomes": other.spec.tables["labels"]},
        }
    )
    other.spec = moved
    nothing = other.observe(AS_OF, WINDOW)
    assert (nothing.live, nothing.live_labels, nothing.new_labels) == (None, 0, 0)
    assert nothing.health.late_labels == tuple(DAYS[7:11])
    assert all(each.drift for each in nothing.window)
    publish(other, "outcomes", held)
    some = other.observe(AS_OF, WINDOW)
    assert some.health.late_labels == tuple(DAYS[8:11])
    assert some.live_labels == 150


def test_a_label_that_is_changed_after_it_matured_changes_what_is_seen_now_and_not_what_was_decided(
    runtime: Runtime,
) -> None:
    seen = runtime.observe(AS_OF, WINDOW)
    decision = runtime.decide(seen)
    head = runtime.store.head("labels")
    assert head is not None
    told = labels(runtime, DAYS[9])
    publish(runtime, "labels", {DAYS[9]: told.with_columns(~pl.col("stuck"))})
    anew = runtime.observe(AS_OF, WINDOW)
    assert anew.health.restated_labels == (DAYS[9],)
    assert seen.live is not None
    assert anew.live is not None
    assert anew.live.value < seen.live.value, "the relation is another on that day"
    assert runtime.decide(anew).id != decision.id
    (first,) = (entry for entry in entries(runtime.store) if entry.decision.id == decision.id)
    assert (first.decision, first.evidence) == (decision, seen), "what was decided on stays"
    assert_frame_equal(runtime.store.scan(head, [DAYS[9]]).drop("partition").collect(), told)


def test_a_window_reaches_into_days_that_are_not_there(runtime: Runtime) -> None:
    seen = runtime.observe("2024-05-14", 5)
    assert [each.state for each in seen.window][-2:] == ["missing", "missing"]
    assert (seen.health.missing, seen.health.newest, seen.health.behind) == (
        ("2024-05-13", "2024-05-14"),
        AS_OF,
        2,
    )


def test_what_cannot_be_watched_says_so(registered: Champions, tmp_path: Path) -> None:
    none = registered.copy(tmp_path / "none").runtime()
    with pytest.raises(NotFoundError):
        none.observe(AS_OF)
    mine = champion(registered, tmp_path / "mine")
    folder = mine.registry.fetch(mine.model())
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folder.iterdir():
        if file.name not in ("reference.json", artifacts.DIGESTS):
            (bare / file.name).write_bytes(file.read_bytes())
    digest = artifacts.seal(bare)

    class Stripped:
        def fetch(self, _: object) -> Path:
            return bare

    mine.registry = Stripped()  # type: ignore[assignment]
    model = registered.copy(tmp_path / "ref").runtime().candidate(1).model_copy(update={"digest": digest})
    mine.model = lambda *_: model  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match=r"reference\.json"):
        mine.observe(AS_OF, WINDOW)


# -- estimates ---------------------------------------------------------------------------------------------------------


def scored(rows: int, seed: int, *, honest: bool = True) -> pl.DataFrame:
    """Scores that are calibrated, or labels that have nothing to do with them."""
    generator = np.random.default_rng(seed)
    score = generator.beta(2, 3, rows)
    label = generator.random(rows) < (score if honest else score.mean())
    return pl.DataFrame({"score": score.astype(np.float32), "label": label.astype(np.float32)})


def binary(metric: str) -> UseCase:
    raw = use_case().model_dump(mode="json")
    raw["label"] = {**raw["label"], "task": "binary", "positive": {"above": 0}}
    return UseCase.model_validate({**raw, "gates": {"metric": metric, "bound": 0.5}})


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_calibrated_scores_expect_what_labels_show_and_are_wrong_when_the_relation_changes(metric: str) -> None:
    spec, within = binary(metric), 0
    for seed in range(40):
        rows = scored(800, seed)
        found = expected(spec, rows)
        truth = metrics("binary", rows["label"].to_numpy(), rows["score"].to_numpy())[metric]
        assert found is not None
        within += found.low <= truth <= found.high
    assert within >= 33, "95 % of 40, with luck of one in a thousand"
    lost = scored(800, 1, honest=False)
    estimate, real = expected(spec, lost), measured(spec, lost)
    assert estimate is not None
    assert real is not None
    assert not estimate.low <= real.value <= estimate.high, "it is an estimate, and only labels tell"


def test_an_interval_covers_what_more_rows_would_show() -> None:
    spec = binary("auc")
    far = scored(200_000, 99)
    truth = metrics("binary", far["label"].to_numpy(), far["score"].to_numpy())["auc"]
    found = [measured(spec, scored(500, seed)) for seed in range(40)]
    assert sum(each is not None and each.low <= truth <= each.high for each in found) >= 33
    whole = measured(spec, far)
    assert whole is not None
    assert whole.high - whole.low < 0.01, "of many rows, though it is made from some of them"


def test_nights_that_share_their_weather_make_the_interval_of_a_window_wider() -> None:
    """Each night has a mood of its own, which rows alone know nothing of."""
    spec, generator = binary("log_loss"), np.random.default_rng(8)

    def night(rows: int) -> pl.DataFrame:
        mood, score = generator.normal(0, 0.8), generator.beta(2, 3, rows)
        odds = np.log(score / (1 - score)) + mood
        label = generator.random(rows) < 1 / (1 + np.exp(-odds))
        return pl.DataFrame({"score": score.astype(np.float32), "label": label.astype(np.float32)})

    truth = measured(spec, pl.concat([night(50) for _ in range(8000)]))
    assert truth is not None
    alone = together = 0
    for _ in range(60):
        nights = [night(400) for _ in range(8)]
        figures = [found for each in nights if (found := measured(spec, each)) is not None]
        rows = measured(spec, pl.concat(nights))
        wide = over_nights(spec, rows, figures)
        assert rows is not None
        assert wide is not None
        alone += rows.low <= truth.value <= rows.high
        together += wide.low <= truth.value <= wide.high
    assert together >= 51, "95 % of 60, with luck of one in a thousand"
    assert alone < 51
    assert over_nights(spec, rows, figures[:1]) == rows
    assert over_nights(spec, None, figures) is None
    apart = [figures[0].model_copy(update={"value": value}) for value in (0.1, 0.99)]
    loss, order = over_nights(spec, rows, apart), over_nights(binary("auc"), rows, apart)
    assert loss is not None
    assert order is not None
    assert (loss.low, order.low, order.high) == (0.0, 0.0, 1.0)
    assert loss.high > 1.0, "a loss has no highest value"


def test_a_regression_expects_nothing_and_few_rows_or_one_class_have_no_metric() -> None:
    assert expected(use_case(), scored(500, 1)) is None
    assert measured(binary("auc"), scored(49, 1)) is None
    assert measured(binary("auc"), scored(500, 1).with_columns(label=pl.lit(1.0, dtype=pl.Float32))) is None
    bad = scored(500, 1).with_columns(score=pl.lit(float("nan"), dtype=pl.Float32))
    assert (measured(binary("auc"), bad), expected(binary("auc"), bad)) == (None, None)


def test_multiclass_scores_expect_their_accuracy() -> None:
    spec = use_case("multiclass")
    generator = np.random.default_rng(3)
    low = generator.random(2000)
    rows = pl.DataFrame({"score_low": low, "score_high": 1 - low})
    found = expected(spec, rows)
    assert found is not None
    assert found.value == pytest.approx(np.maximum(low, 1 - low).mean(), abs=0.01)


# -- the command line --------------------------------------------------------------------------------------------------


def overnight(runtime: Runtime, *arguments: str) -> tuple[int, str]:
    settings = runtime.settings
    environment = {"OVERNIGHT_PROJECT": str(settings.project), "OVERNIGHT_HOME": str(settings.home), "COLUMNS": "600"}
    done = CliRunner(env=environment).invoke(main, list(arguments))
    return done.exit_code, done.output


def test_watch_prints_expected_beside_measured_and_keeps_nothing(runtime: Runtime) -> None:
    code, said = overnight(runtime, "watch", NAME, "--window", str(WINDOW))
    assert code == 0, said
    assert [line.split()[0] for line in said.splitlines()[1:6]] == list(DAYS[7:12])
    assert "auc expected" in said
    assert "an estimate from the scores alone" in said
    code, told = overnight(runtime, "watch", NAME, "--as-of", AS_OF, "--window", str(WINDOW), "--json")
    assert Observations.model_validate_json(told) == runtime.observe(AS_OF, WINDOW)
    assert runtime.decisions() == []


@pytest.fixture
def decided(registered: Champions, tmp_path: Path) -> Runtime:
    """A champion whose last nights were decided on; one of them is drifted far."""
    retraining = {"min_labels": 100, "cooldown": 1, "signals": ["inputs"]}
    made = champion(registered, tmp_path, drift={"min_rows": 100, "window": 1}, retraining=retraining)
    head = made.store.head("rows")
    assert head is not None
    rows = made.store.scan(head, [DAYS[10]]).drop("partition").collect()
    publish(made, "rows", {DAYS[10]: rows.with_columns(pl.col("pressure") + 3)})
    score(made, [DAYS[10]])
    for day in DAYS[8:12]:
        made.decide(made.observe(day))
    return made


def test_decisions_say_what_was_loud_and_simulate_reproduces_them_and_plays_others(
    decided: Runtime, tmp_path: Path
) -> None:
    log = decided.decisions()
    assert [each.retrain for each in log] == [False, False, True, False]
    assert log[2].signals[0].columns[0] == "pressure"
    code, said = overnight(decided, "decisions", NAME)
    assert (code, [line.split()[1] for line in said.splitlines()[1:]]) == (0, ["no", "no", "yes", "no"])
    code, told = overnight(decided, "decisions", NAME, "--since", DAYS[10], "--json")
    assert [json.loads(line)["id"] for line in told.splitlines()] == [each.id for each in log[2:]]
    code, lines = overnight(decided, "decisions", NAME, "--reasons")
    assert lines.count("    ") == 4 * 11

    def played(policy: dict[str, object]) -> dict[str, object]:
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump(policy), "utf-8")
        code, said = overnight(decided, "simulate", NAME, "--policy", str(path), "--json")
        assert code == 0, said
        return dict(json.loads(said))

    spec = decided.spec.model_dump(mode="json")
    same = played({"retraining": spec["retraining"], "drift": spec["drift"]})
    assert [night["simulated"] for night in same["nights"]] == [each.retrain for each in log]  # type: ignore[attr-defined]
    assert (same["retrainings"], same["certain_nights"], same["unread"]) == (1, 4, 0)
    patient = played({"retraining": {**spec["retraining"], "raised": 2, "of": 3}})
    assert (patient["retrainings"], patient["certain_nights"]) == (0, 3)
    blind = played({"drift": {**spec["drift"], "warn": 50.0, "alarm": 60.0}})
    assert blind["retrainings"] == 0
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump({"retraining": {"raised": 2, "of": 2}}), "utf-8")
    code, table = overnight(decided, "simulate", NAME, "--policy", str(path))
    assert (code, "0 simulated" in table) == (0, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("gates: {metric: auc}", "there is no policy in it"),
        ("retraining: {raised: 1}\ngates: {metric: auc}", "no part of a policy: gates"),
        ("name: other\nretraining: {}", "'other'"),
        ("retraining: {raised: 3, of: 2}", "raised 3 is above of 2"),
        ("drift: {window: 0}", "drift.window"),
    ],
)
def test_what_is_no_policy_is_refused(runtime: Runtime, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(SpecError, match=said):
        runtime.simulate(path)


def test_a_refused_training_is_known_as_such_and_a_training_window_starts_where_it_is_told(runtime: Runtime) -> None:
    from pipelines.steps.outcomes import outcomes

    found = outcomes(runtime.spec, runtime.store, runtime.registry, AS_OF)
    assert [(each.version, each.promoted, each.refused) for each in found if each.version == 1] == [(1, True, False)]
    (first, *_) = found
    assert (first.as_of, first.newest, first.new_labels) == (DAYS[7], DAYS[6], 4 * 150)
    runtime.registry.annotate(runtime.candidate(2).run_id, {"overnight.gate": "refused"})
    again = outcomes(runtime.spec, runtime.store, runtime.registry, AS_OF)
    assert {each.version for each in again if each.refused} == {2}
    some = runtime.build_training_set(AS_OF, DAYS[5])
    assert some.train == (DAYS[5], DAYS[7])
    assert some.digest != runtime.build_training_set(AS_OF).digest


# -- what people are told ----------------------------------------------------------------------------------------------


def test_people_are_told_of_the_night_once_and_of_its_end_and_of_no_night_that_has_passed(
    registered: Champions, tmp_path: Path
) -> None:
    runtime = champion(registered, tmp_path, drift={"min_rows": 100, "window": 2})
    head = runtime.store.head("rows")
    assert head is not None
    rows = runtime.store.scan(head, [DAYS[9]]).drop("partition").collect()
    publish(runtime, "rows", {DAYS[9]: rows.with_columns(pl.col("pressure") + 3)})
    score(runtime, [DAYS[9]])

    def look(day: str, *, backfill: bool = False) -> list[tuple[str, str, str]]:
        run = runtime.run.model_copy(update={"backfill": backfill, "dag_id": "runs", "run_id": day})
        mine = Runtime(runtime.spec, runtime.settings, run)
        seen = mine.observe(day)
        return [(told.kind, told.state, told.partition) for told in mine.alert(seen, mine.decide(seen))]

    assert look(DAYS[8]) == []
    assert look(DAYS[9], backfill=True) == []
    began = look(DAYS[9])
    assert ("inputs", "open", DAYS[9]) in began
    assert look(DAYS[9]) == [], "a repeat"
    over = look(DAYS[11])
    assert ("inputs", "resolved", DAYS[9]) in over
    assert look(DAYS[9]) == [], "a look at a night that a later one followed"
    assert runtime.alerts.open() == []
    code, said = overnight(runtime, "alerts", NAME)
    assert (code, "nothing is wrong" in said) == (0, True)
    code, said = overnight(runtime, "alerts", NAME, "--all", "--json")
    told = [json.loads(line) for line in said.splitlines()]
    assert [each["evidence"] for each in told if each["kind"] == "inputs"] == [
        f"{NAME}/drift/{DAYS[9]}-champion-1.html"
    ] * 2
    code, said = overnight(runtime, "alerts", NAME, "--all")
    assert (code, "pressure PSI" in said) == (0, True)


@pytest.mark.parametrize("years", [[0, -30, 20], [0, 20, -30]])
def test_a_clock_that_moved_changes_no_decision_and_no_incident(
    registered: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: list[int]
) -> None:
    def nights(
        folder: Path, moved: list[int]
    ) -> tuple[list[tuple[str, bool, tuple[str, ...]]], list[tuple[str, str, str]]]:
        runtime = champion(registered, folder, drift={"min_rows": 100, "window": 2}, retraining={"min_labels": 100})
        head = runtime.store.head("rows")
        assert head is not None
        rows = runtime.store.scan(head, [DAYS[9]]).drop("partition").collect()
        publish(runtime, "rows", {DAYS[9]: rows.with_columns(pl.col("pressure") + 3)})
        score(runtime, [DAYS[9]])
        told: list[tuple[str, str, str]] = []
        for day, by in zip((DAYS[8], DAYS[9], DAYS[11]), moved, strict=True):
            now = datetime(2024 + by, 5, 12, tzinfo=UTC)
            monkeypatch.setattr("pipelines.runtime.watching.datetime", SimpleNamespace(now=lambda _, now=now: now))
            run = runtime.run.model_copy(update={"at": now, "dag_id": "runs", "run_id": day})
            mine = Runtime(runtime.spec, runtime.settings, run)
            seen = mine.observe(day)
            told += [(one.kind, one.state, one.partition) for one in mine.alert(seen, mine.decide(seen))]
        return [(each.as_of, each.retrain, each.reasons) for each in runtime.decisions()], told

    steady, moved = nights(tmp_path / "steady", [0, 0, 0]), nights(tmp_path / "moved", years)
    assert moved == steady
    assert [retrain for _, retrain, _ in steady[0]] == [False, True, False], "and a cool-down"
    assert {("inputs", "open", DAYS[9]), ("inputs", "resolved", DAYS[9])} <= set(steady[1])
