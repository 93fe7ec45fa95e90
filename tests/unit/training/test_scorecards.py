"""Scorecards and the compression report: what is measured, what is left out, and a page that a person can read."""

from __future__ import annotations

import html.parser
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.records import Latency, Scorecard, Slice
from pipelines.spec import UseCase
from pipelines.training import measures, report, scorecards
from pipelines.training.compress import Compression
from pipelines.training.data import Table

from .conftest import Trained, make_spec
from .test_entry import cards

EVIL = "<script>alert('1')</script>&\"$lead"
DONE = Compression(
    method="int8",
    widths=(32, 16),
    layers=("fp32", "int8", "fp32"),
    sensitive_layers="fp32",
    metric="auc",
    validation={"fp32": 0.8, "int8": 0.79, "int8_fp32_ends": float("nan")},
    calibration_rows=512,
)


def sliced(task: str = "binary", *slices: str) -> UseCase:
    told = make_spec(task).model_dump()
    told["features"]["slices"] = slices or ("colour",)
    return UseCase.model_validate(told)


def table(colours: list[str | None], label: np.ndarray[Any, Any]) -> Table:
    columns = (colours, ["round"] * len(colours))
    words = tuple(pa.array(column, pa.large_string()).dictionary_encode() for column in columns)
    return Table(np.zeros((len(colours), 3), np.float32), words, label.astype(np.float32))


def test_slices_are_the_most_frequent_values_and_untellable_ones_have_a_count_alone() -> None:
    rng = np.random.default_rng(0)
    colours: list[str | None] = ["red"] * 200 + ["blue"] * 100 + [None] * 60 + ["few"] * 9 + ["x" * 500] * 70
    colours += [f"once{i}" for i in range(30)]
    label = rng.integers(0, 2, len(colours)).astype(float)
    label[200:300] = 1
    score = np.clip(label * 0.5 + rng.uniform(0, 0.6, len(colours)), 0, 1)
    found = measures.by_slice(sliced(), table(colours, label), score)
    assert len(found) == 20
    assert [(part.value, part.rows) for part in found[:5]] == [
        ("red", 200),
        ("blue", 100),
        ("x" * 59 + "…", 70),
        (None, 60),
        ("few", 9),
    ]
    assert [part.metric is None for part in found[:5]] == [False, True, False, False, True]
    from sklearn.metrics import roc_auc_score

    assert found[0].metric == pytest.approx(roc_auc_score(label[:200], score[:200]), abs=1e-6)


def test_a_scorecard_has_calibration_slices_and_latency_and_stays_small(trained: Trained) -> None:
    found = cards(trained.out)
    for name, card in found.items():
        assert (card.calibration_error is None) == (trained.task == "regression"), name
        assert [latency.rows for latency in card.latencies] == ([] if name == "constant" else [1, 4096])
        for latency in card.latencies:
            assert 0 < latency.p50_ms <= latency.p99_ms
            assert latency.repeats > 0
    served = found["student_int8"].flat
    assert {"student_int8_p99_ms_batch_4096", "student_int8_rows_per_second"} <= set(served)
    assert ("student_int8_calibration_error" in served) == (trained.task != "regression")


def test_a_scorecard_of_many_slices_is_small_and_comes_back_from_json() -> None:
    rng = np.random.default_rng(0)
    spec = sliced("binary", "colour", "shape")
    colours: list[str | None] = [f"value {i % 1000}" for i in range(5000)]
    holdout = table(colours, rng.integers(0, 2, 5000).astype(float))
    card = scorecards.measure(spec, "toy", lambda rows: np.full(len(rows), 0.5), holdout, 10)
    text = card.model_dump_json()
    assert len(text) < 4096
    assert Scorecard.model_validate_json(text) == card


def test_a_scorecard_of_an_older_store_still_parses() -> None:
    old = '{"model": "teacher", "rows": 4, "metrics": {"auc": NaN}, "rows_per_second": null, "bytes": 12}'
    card = Scorecard.model_validate(json.loads(old))
    assert (card.slices, card.latencies, card.calibration_error) == ((), (), None)


class Reader(html.parser.HTMLParser):
    """Collects tags, what they ask for from elsewhere, and the cells of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.asks: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def example(model: str) -> Scorecard:
    return Scorecard(
        model=model,
        rows=400,
        metrics={"auc": 0.8123, "log_loss": float("nan"), "brier": 0.1},
        rows_per_second=123456.7,
        bytes=2048,
        calibration_error=0.0123,
        slices=(
            Slice(feature="colour", value=EVIL, rows=200, metric=0.75),
            Slice(feature="colour", value=None, rows=9, metric=None),
        ),
        latencies=(
            Latency(rows=1, p50_ms=0.1, p99_ms=0.2, repeats=9),
            Latency(rows=4096, p50_ms=3.0, p99_ms=4.25, repeats=9),
        ),
    )


def test_the_page_shows_every_figure_escapes_every_word_and_asks_for_nothing() -> None:
    names = ("teacher", "student_fp32", "student_int8", "lightgbm", "constant")
    page = report.page(sliced(), DONE, [example(name) for name in names], 2)
    assert "<script" not in page
    reader = Reader()
    reader.feed(page)
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert reader.asks == []
    assert "url(" not in page
    said = " ".join(reader.text)
    for words in (EVIL, "student int8", "0.8123", "0.0123", "2.0", "123,457", "4.250", "p99 of a batch of 4,096, ms"):
        assert words in said, words
    assert reader.tags.count("table") == 2


def test_the_report_of_a_training_compares_teacher_fp32_and_served_student(trained: Trained) -> None:
    told = json.loads((trained.out / "compression.json").read_text("utf-8"))
    assert [model["model"] for model in told["models"]][:3] == ["teacher", "student_fp32", "student_int8"]
    assert told["compression"]["method"] == "int8"
    found = cards(trained.out)
    for model in told["models"]:
        assert model["metrics"] == pytest.approx(found[model["model"]].metrics)
    page = (trained.out / "compression.html").read_text("utf-8")
    assert f"{found['teacher'].metrics[trained.spec.gates.metric]:,.4f}" in page


def test_figures_that_are_not_defined_are_null_in_the_report(tmp_path: Path) -> None:
    report.write(sliced(), tmp_path, DONE, [example("teacher"), example("student_fp32")], 2)
    told = json.loads((tmp_path / "compression.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert told["models"][0]["metrics"]["log_loss"] is None
    assert told["compression"]["validation"]["int8_fp32_ends"] is None


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium on PATH")
def test_a_browser_renders_the_page(tmp_path: Path) -> None:
    names = ("teacher", "student_fp32", "student_int8", "lightgbm", "constant")
    report.write(sliced(), tmp_path, DONE, [example(name) for name in names], 2)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dumped = subprocess.run(
        [*browser, "--dump-dom", (tmp_path / "compression.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert dumped.count("<table>") == 2
    assert "<script" not in dumped
    assert "&lt;script&gt;" in dumped
