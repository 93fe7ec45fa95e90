"""The text of the form: every figure that a decision needs, and nothing that data could make of it but text."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from pipelines.records import (
    Comparison,
    Evaluation,
    Fairness,
    Gate,
    GateReport,
    Group,
    Holdout,
    Interval,
    Latency,
    Scorecard,
    ServedAgainstFp32,
    Slice,
    SliceGain,
)
from pipelines.spec import UseCase

_NASTY = "a|b {{ 7*7 }} <script>alert(1)</script> **bold** [x](javascript:alert(1)) `c` &lt; \\| \u202e ~~s~~\n# head"


def _card(model: str, auc: float, **more: Any) -> Scorecard:
    return Scorecard(model=model, rows=9000, metrics={"auc": auc, "log_loss": 1 - auc}, **more)


def make_evaluation(**changes: Any) -> Evaluation:
    latency = {"p50_ms": 0.1, "repeats": 100}
    made: dict[str, Any] = {
        "use_case": "flights",
        "metric": "auc",
        "greater_is_better": True,
        "holdout": Holdout(
            path="holdout.parquet",
            partitions=("2013-09-01", "2013-09-14"),
            as_of="2013-09-15",
            snapshots=(),
            rows=9000,
            digest="0" * 64,
        ),
        "challenger": _card(
            "challenger",
            0.679,
            rows_per_second=2_000_000.0,
            bytes=30_000,
            calibration_error=0.011,
            latencies=(Latency(rows=1, p99_ms=0.2, **latency),),
        ),
        "champion": _card(
            "champion",
            0.6712,
            rows_per_second=1_000_000.0,
            bytes=40_000,
            calibration_error=0.021,
            latencies=(Latency(rows=1, p99_ms=0.4, **latency),),
        ),
        "champion_version": 3,
        "others": (_card("lightgbm", 0.674), _card("student_int8", 0.678)),
        "served": "student_int8",
        "comparisons": (
            Comparison(
                against="champion",
                gain=Interval(value=0.0078, low=0.0031, high=0.0125, deviation=0.003, level=0.95, resamples=1000),
                slices=tuple(
                    SliceGain(
                        slice=f"origin = S{number:02}", rows=400, mine=0.7, other=0.7 - number / 100, gain=number / 100
                    )
                    for number in range(-2, 14)
                ),
                worst=SliceGain(slice="distance in [529, 1076)", rows=500, mine=0.6, other=0.65, gain=-0.05),
            ),
        ),
        "fp32": ServedAgainstFp32(speed_ratio=2.5, latency_ratios={1: 0.8, 4096: 0.5}, size_ratio=0.31),
        "fairness": (
            Fairness(
                column="carrier",
                groups=(
                    Group(
                        value="AA",
                        rows=500,
                        selection_rate=0.2,
                        true_positive_rate=0.5,
                        false_positive_rate=0.1,
                        judged=True,
                    ),
                    Group(
                        value="B6",
                        rows=5,
                        selection_rate=0.9,
                        true_positive_rate=None,
                        false_positive_rate=0.9,
                        judged=False,
                    ),
                ),
                selection_ratio=0.91,
                odds_difference=None,
            ),
        ),
        "errors": {"sanity": "RuntimeError: it broke"},
    }
    return Evaluation(**{**made, **changes})


PASSED = GateReport(
    passed=True, gates=(Gate(name="bound", passed=True, reason="auc 0.6790, at least 0.6500 is asked for"),)
)


def _rendered(spec: UseCase, evaluation: Evaluation, report: GateReport = PASSED, **links: str | None) -> str:
    from usecase_dags.comparison import render

    return render(spec, evaluation, report, links)


def _cells(html: str) -> list[list[str]]:
    """The cells of every table's rows, as a reader sees them."""
    import re
    from html import unescape

    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    return [
        [
            unescape(re.sub(r"<[^>]+>", "", cell))
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)
        ]
        for row in rows
    ]


def _html(markdown: str) -> str:
    """As Airflow shows it: tables and strikethrough, raw HTML left out."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).render(markdown)


def test_it_shows_every_figure_of_champion_and_challenger(flights_spec: UseCase) -> None:
    rows = _cells(_html(_rendered(flights_spec, make_evaluation())))
    assert ["Figure", "Champion 3", "Challenger", "Change"] in rows
    assert ["auc (more is better)", "0.6712", "0.6790", "+0.0078 better (90% interval: +0.0031 to +0.0125)"] in rows
    assert ["log_loss", "0.3288", "0.3210", "-0.0078"] in rows
    assert ["calibration error", "0.0210", "0.0110", "-0.0100"] in rows
    assert ["rows a second", "1,000,000", "2,000,000", "+100%"] in rows
    assert ["size", "40.0 kB", "30.0 kB", "-25%"] in rows
    assert ["p99 of 1 rows, ms", "0.4000", "0.2000", "-50%"] in rows
    assert ["carrier", "0.9100", "-", "1 of 2"] in rows
    assert ["p99 of 4,096 rows", "0.50"] in rows
    assert ["bound", "passed", "auc 0.6790, at least 0.6500 is asked for"] in rows
    assert ["student_int8 (served)", "0.6780", "-", "-"] in rows
    assert ["sanity", "RuntimeError: it broke"] in rows


def test_slices_are_the_worst_first_and_say_how_many_are_left_out(flights_spec: UseCase) -> None:
    shown = _rendered(flights_spec, make_evaluation())
    rows = _cells(_html(shown))
    first = rows.index(["Slice", "Rows", "Champion 3", "Challenger", "Better by"]) + 1
    assert rows[first] == ["worst that was found: distance in [529, 1076)", "500", "0.6500", "0.6000", "-0.0500"]
    assert [row[-1] for row in rows[first + 1 : first + 13]] == [f"{number / 100:+.4f}" for number in range(-2, 10)]
    assert "and 4 more, none worse" in shown


def test_without_a_champion_it_shows_the_challenger_alone(flights_spec: UseCase) -> None:
    challenger = _card("challenger", 0.679, slices=(Slice(feature="origin", value="EWR", rows=400, metric=0.66),))
    alone = make_evaluation(champion=None, champion_version=None, comparisons=(), challenger=challenger)
    shown = _rendered(flights_spec, alone)
    rows = _cells(_html(shown))
    assert ["auc (more is better)", "0.6790"] in rows
    assert ["origin = EWR", "400", "0.6600"] in rows
    assert "becomes the first champion" in shown
    assert "Champion" not in shown


def test_what_was_not_measured_is_no_row(flights_spec: UseCase) -> None:
    bare = make_evaluation(
        challenger=_card("challenger", 0.6),
        champion=_card("champion", 0.5),
        comparisons=(),
        fairness=None,
        fp32=None,
        errors={},
    )
    names = [row[0] for row in _cells(_html(_rendered(flights_spec, bare)))]
    assert not {"calibration error", "size", "rows a second", "Sensitive column", "Part"} & set(names)


def test_whatever_data_or_a_spec_wrote_is_shown_as_it_is(flights_spec: UseCase) -> None:
    visible = " ".join(_NASTY.split()).replace("\u202e", "�")
    spec = flights_spec.model_copy(update={"title": _NASTY})
    comparison = make_evaluation().comparisons[0]
    evaluation = make_evaluation(
        comparisons=(
            comparison.model_copy(update={"slices": (SliceGain(slice=_NASTY, rows=1, mine=1, other=1, gain=0),)}),
        ),
        errors={_NASTY: _NASTY},
    )
    report = GateReport(passed=True, gates=(Gate(name="bound", passed=True, reason=_NASTY),))
    html = _html(_rendered(spec, evaluation, report))
    assert "<script" not in html
    assert "<a " not in html
    assert "<h1" not in html
    from html import unescape

    assert f"<strong>{visible}</strong>" in unescape(html)
    rows = _cells(html)
    assert ["bound", "passed", visible] in rows
    assert [visible, visible] in rows
    assert visible in [row[0] for row in rows]


def test_links_lead_where_they_should_and_those_that_lead_nowhere_are_left_out(flights_spec: UseCase) -> None:
    html = _html(
        _rendered(
            flights_spec,
            make_evaluation(),
            **{"Comparison": "/overnight/reports/flights/models/a(b) c/comparison.html", "Model card": None},
        )
    )
    assert '<a href="/overnight/reports/flights/models/a%28b%29%20c/comparison.html">Comparison</a>' in html
    assert "Model card" not in html


@pytest.mark.parametrize(("given", "shown"), [(24.0, "24 hours"), (1.0, "1 hour"), (0.5, "0.5 hours")])
def test_hours_read_as_people_say_them(given: float, shown: str) -> None:
    from usecase_dags.comparison import hours

    assert hours(given) == shown


def test_long_text_is_cut(flights_spec: UseCase) -> None:
    from usecase_dags.comparison import text

    assert text("x" * 1000) == "x" * 299 + "…"
    assert len(text("*" * 1000)) == 599
