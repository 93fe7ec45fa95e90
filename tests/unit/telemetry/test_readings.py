"""What the readings say is what the records say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.records import Estimate, GroupRates, Skew
from pipelines.runtime import Runtime
from pipelines.telemetry.catalogue import METRICS
from pipelines.telemetry.look import look
from pipelines.telemetry.readings import LEVELS, Look, Reading, readings
from tests.cases.champions import DAYS, NAME
from tests.unit.telemetry.conftest import AS_OF, WINDOW


def told(found: tuple[Reading, ...], name: str, **attributes: str) -> float:
    """The value of one series."""
    (value,) = [
        each.value for each in found if each.name == name and each.attributes == {"use_case": NAME, **attributes}
    ]
    return value


@pytest.fixture(scope="module")
def seen(watched: Runtime) -> Look:
    return look(watched)


def test_drift_of_every_column_and_of_the_score_is_that_of_the_newest_decision(seen: Look) -> None:
    found, evidence = readings(seen), seen.evidence
    assert evidence is not None
    assert evidence.as_of == AS_OF
    newest = evidence.window[-1]
    columns = {each.column: each for each in newest.drift}
    assert set(columns) == {"pressure", "wear", "site"}
    assert columns["pressure"].level == "alarm"
    assert newest.score is not None
    assert evidence.pooled_score is not None
    pooled = {each.column: each for each in evidence.pooled}
    drifts = [
        *(("input", "partition", each) for each in columns.values()),
        *(("input", "window", each) for each in pooled.values()),
        ("score", "partition", newest.score),
        ("score", "window", evidence.pooled_score),
    ]
    for kind, scope, each in drifts:
        of = {"kind": kind, "column": each.column, "scope": scope}
        assert told(found, "overnight.drift.psi", **of) == each.psi
        assert told(found, "overnight.drift.level", **of) == LEVELS[each.level]
        assert told(found, "overnight.drift.threshold", **of, level="warning") == each.warn_at
        assert told(found, "overnight.drift.threshold", **of, level="alarm") == each.alarm_at
        assert told(found, "overnight.drift.null.share", **of) == each.null_share
        assert told(found, "overnight.drift.unseen.share", **of) == each.unseen_share
        assert told(found, "overnight.drift.vanished", **of) == len(each.vanished)
    site = {"kind": "input", "column": "site", "scope": "partition"}
    assert told(found, "overnight.drift.vanished", **site) == 1, "nothing is south any more"
    assert told(found, "overnight.drift.js", **site) == columns["site"].js
    assert sum(each.name == "overnight.drift.psi" for each in found) == 8
    for decision, share in newest.decisions.items():
        assert told(found, "overnight.decided.share", decision=decision) == share


def test_quality_has_its_interval_measured_and_expected_beside_the_holdout(seen: Look) -> None:
    found, evidence = readings(seen), seen.evidence
    assert evidence is not None
    figures = {
        ("overnight.quality.measured", "window"): evidence.live,
        ("overnight.quality.measured", "partition"): evidence.window[-2].quality,
        ("overnight.quality.expected", "window"): evidence.expected,
        ("overnight.quality.expected", "partition"): evidence.window[-1].expected,
    }
    assert evidence.window[-1].quality is None, "its labels have not matured"
    for (name, scope), figure in figures.items():
        assert figure is not None
        for end, value in {"": figure.value, ".low": figure.low, ".high": figure.high}.items():
            assert told(found, f"{name}{end}", metric="auc", scope=scope) == value
    assert told(found, "overnight.quality.champion", metric="auc") == evidence.champion_metric
    assert told(found, "overnight.labels.matured") == evidence.live_labels == 450
    assert told(found, "overnight.labels.new") == evidence.new_labels
    for part in evidence.slices:
        of = {"column": part.column, "value": part.value}
        assert told(found, "overnight.slice.rows", **of) == part.rows
        assert told(found, "overnight.slice.labels", **of) == part.labels
        assert part.quality is not None
        assert told(found, "overnight.slice.quality", **of, metric="auc") == part.quality.value
    assert sum(each.name == "overnight.slice.rows" for each in found) == 2


def test_decisions_champion_nights_and_alerts_are_counted(seen: Look) -> None:
    found, decision = readings(seen), seen.decision
    assert decision is not None
    assert told(found, "overnight.retrain.decision") == decision.retrain == 1
    assert told(found, "overnight.retrain.escalated") == 0
    assert told(found, "overnight.retrain.month") == 1
    for signal in decision.signals:
        assert told(found, "overnight.signal.level", signal=signal.name) == LEVELS[signal.level]
    assert told(found, "overnight.signal.level", signal="inputs") == LEVELS["alarm"]
    end = datetime.fromisoformat(AS_OF).replace(tzinfo=UTC) + timedelta(days=1)
    assert told(found, "overnight.observed.timestamp") == end.timestamp()
    assert told(found, "overnight.scored.timestamp") == end.timestamp()
    assert told(found, "overnight.champion.version") == 1
    assert told(found, "overnight.champion.age") == 4  # DAYS[7] to DAYS[11]
    assert told(found, "overnight.champion.changes", change="promote") == 1
    assert told(found, "overnight.champion.changes", change="rollback") == 0
    assert told(found, "overnight.nights", state="scored") == 5
    assert told(found, "overnight.nights", state="unscored") == 7
    later = [night for night in seen.nights if night.partition > AS_OF]
    assert told(found, "overnight.nights", state="missing") == len(later)
    assert told(found, "overnight.scored.behind") == len(later) > 0
    assert sum(each.value for each in found if each.name == "overnight.nights") == len(seen.nights)
    assert told(found, "overnight.window.partitions", state="observed") == WINDOW
    (alert,) = [each for each in seen.alerts if each.kind == "inputs"]
    assert told(found, "overnight.alerts.open", kind="inputs") == 1
    assert told(found, "overnight.alerts.since.timestamp", kind="inputs") == alert.since.timestamp()
    assert told(found, "overnight.alerts.open", kind="late") == 0


def test_skew_groups_and_troubled_labels_are_told(seen: Look) -> None:
    assert seen.evidence is not None
    health = seen.evidence.health.model_copy(
        update={
            "skew": Skew(partition=AS_OF, rows=90, columns={"wear": 7}),
            "late_labels": (DAYS[9],),
            "unlabelled": 3,
            "strange_labels": 4,
            "disagreeing_labels": 5,
            "restated_labels": (DAYS[8], DAYS[9]),
            "failed": 6,
            "behind": 2,
        }
    )
    fairness = (GroupRates(column="site", selected={"north": 0.2, "south": 0.4}, ratio=0.5),)
    troubled = readings(_with(seen, health=health, fairness=fairness))
    expected = {
        "overnight.skew.sample": 90,
        "overnight.skew.columns": 1,
        "overnight.labels.late": 1,
        "overnight.labels.missing": 3,
        "overnight.labels.strange": 4,
        "overnight.labels.disagreeing": 5,
        "overnight.labels.restated": 2,
        "overnight.validation.failed": 6,
        "overnight.data.behind": 2,
    }
    assert {name: told(troubled, name) for name in expected} == expected
    assert told(troubled, "overnight.skew.rows", column="wear") == 7
    assert told(troubled, "overnight.fairness.ratio", column="site") == 0.5
    assert told(troubled, "overnight.fairness.selected.share", column="site", group="south") == 0.4
    names = {each.name for each in (*readings(seen), *troubled)}
    assert names == set(METRICS) - {"overnight.read.success", "overnight.read.age"}, "no metric is never told"


def test_what_is_not_known_has_no_reading(seen: Look) -> None:
    assert seen.evidence is not None
    blank = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), rows=0)
    found = readings(_with(seen, live=blank, expected=None, window=(), pooled=(), pooled_score=None))
    assert not any(each.name.startswith("overnight.drift") for each in found)
    assert not any(each.name.startswith(("overnight.quality.m", "overnight.quality.e")) for each in found)
    nobody = readings(_changed(seen, champion=None, decision=None, evidence=None, decisions=(), promotions=()))
    assert {each.name.split(".")[1] for each in nobody} == {"nights", "scored", "alerts"}
    assert readings(_changed(seen, champion=None, decision=None, evidence=None, nights=(), alerts=())) != ()


def test_a_decision_about_a_former_champion_is_not_shown_and_of_a_night_looked_at_twice_the_last_one_counts(
    watched: Runtime, seen: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen.champion is not None
    other = seen.champion.model_copy(update={"version": 2})
    monkeypatch.setattr(watched, "champion", lambda: other)
    replaced = look(watched)
    assert (replaced.decision, replaced.evidence) == (None, None)
    assert told(readings(replaced), "overnight.champion.version") == 2
    monkeypatch.undo()
    assert seen.evidence is not None
    first = watched.decide(seen.evidence)  # it is in the log
    for rows in (7, 8, 9):  # ids are digests: none of them is in order by chance thrice
        again = watched.decide(seen.evidence.model_copy(update={"new_labels": rows}))
        assert again.id != first.id
        assert look(watched).decision == again
    late = watched.run.model_copy(update={"backfill": True})
    filled = Runtime(watched.spec, watched.settings, late).decide(seen.evidence.model_copy(update={"new_labels": 10}))
    assert filled in watched.decisions()
    assert look(watched).decision == again, "a backfill looks at the past"


def _with(seen: Look, **changes: object) -> Look:
    assert seen.evidence is not None
    return _changed(seen, evidence=seen.evidence.model_copy(update=changes))


def _changed(seen: Look, **changes: object) -> Look:
    told = {name: getattr(seen, name) for name in Look.__dataclass_fields__}
    return Look(**{**told, **changes})  # type: ignore[arg-type]
