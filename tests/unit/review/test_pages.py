"""Card and comparison: what they say, that nothing in them acts, that the same case gives the same bytes."""

from __future__ import annotations

import dataclasses
import html.parser
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from pipelines.backends.model_review import Reviews
from pipelines.backends.model_review_document import Grid, Page, Section, Text, markdown
from pipelines.backends.model_review_facts import gather
from pipelines.errors import IntegrityError
from pipelines.policies.gates import evaluate_gates

from .conftest import EVIL, Reviewed

PAGES = ("model_card.html", "comparison.html")
SECTIONS = (
    "What it is for",
    "How to undo its promotion",
    "What is known to be wrong",
    "How good it is",
    "Gates",
    "Data",
    "By slice",
    "Why it scores as it does",
    "Fairness",
    "Compression",
    "How it was trained",
    "Licences and more",
)


class Reader(html.parser.HTMLParser):
    """Collects tags, their attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        """Tags of the cells, by table and row."""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def rendered(card: str) -> Reader:
    """The Markdown as a viewer shows it, HTML in it allowed: the escaping must hold by itself."""
    return Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(card))


def test_the_card_says_all_that_a_reviewer_asks(reviewed: Reviewed) -> None:
    seen = rendered(reviewed.read("model_card.md"))
    assert seen.tags.count("h1") == 1
    headings = [line.removeprefix("## ") for line in reviewed.read("model_card.md").splitlines() if line[:3] == "## "]
    assert headings == list(SECTIONS)
    metric = reviewed.spec.gates.metric
    value = reviewed.case.evaluation.challenger.metrics[metric]
    for words in (
        f"{metric} {value:,.4f} (90% interval {value - 0.02:,.4f} to {value + 0.02:,.4f})",
        "Gain over champion 4: +0.0123 (90% interval -0.0045 to +0.0291)",
        f'overnight rollback {reviewed.spec.name} --to 4 --reason "..."',
        "Nothing but tests.",
        "made up here",
        "delta:toy/rows@3",
        "1,500 rows",
        "abc123",
        "teacher 6, student 8",
        "seed",
        reviewed.spec.digest,
        reviewed.case.trained.digest,
        "Nobody measured sanity checks.",
        "Could not be measured, fp32",
        "student int8",
    ):
        assert words in seen.text, words
    for gate in reviewed.case.report.gates:
        assert gate.name.replace("_", " ") in seen.text
    page = Reader(reviewed.read("model_card.html")).text
    assert all(heading in page for heading in SECTIONS)


def test_every_table_has_as_many_cells_as_heads(reviewed: Reviewed) -> None:
    for name in ("model_card.md", *PAGES):
        text = reviewed.read(name)
        seen = rendered(text) if name.endswith(".md") else Reader(text)
        assert seen.tags.count("table") >= 5, name
        for table in seen.tables:
            assert len(table) > 1, name
            assert len({len(row) for row in table}) == 1, (name, table)


def test_hostile_words_are_shown_and_do_nothing(reviewed: Reviewed) -> None:
    shown = EVIL.replace("\n", " ")
    for name in ("model_card.md", *PAGES):
        text = reviewed.read(name)
        assert "{{" not in text, name
        assert "{%" not in text, name
        seen = rendered(text) if name.endswith(".md") else Reader(text)
        assert not {"script", "link", "img", "iframe", "object", "form"} & set(seen.tags), name
        assert not [pair for pair in seen.attributes if pair[0].startswith("on") or pair[0] in ("src", "data")], name
        links = {value for key, value in seen.attributes if key == "href"}
        assert links <= {"comparison.html", "compression.html", "model_card.html", reviewed.case.url}, name
        assert shown in seen.text.replace("\n", " "), name
    heads = [line for line in reviewed.read("model_card.md").splitlines() if line.startswith("#")]
    assert len(heads) == 1 + len(SECTIONS)


def test_markdown_keeps_words_that_look_like_marks() -> None:
    words = [
        "- no item",
        "1. no item",
        "0.7054",
        "-0.0100",
        "+ plus",
        "# none",
        "a_b and _c_",
        "===",
        "&amp; <b>",
        "x|y",
    ]
    card = markdown(
        Page("T", "s", True, [Text(word) for word in words], [Section("S", [Grid(["h"], [[w] for w in words])])])
    )
    seen = rendered(card)
    assert not {"ul", "ol", "em", "b", "hr"} & set(seen.tags)
    assert (seen.tags.count("h1"), seen.tags.count("h2")) == (1, 1)
    told = [part for part in seen.words if part.strip()]
    assert told == ["T", "s", *words, "S", "h", *words]
    assert "0\\." not in card


def test_the_comparison_sets_both_models_side_by_side(reviewed: Reviewed) -> None:
    seen = Reader(reviewed.read("comparison.html")).text
    evaluation, metric = reviewed.case.evaluation, reviewed.spec.gates.metric
    assert evaluation.champion is not None
    mine, other = evaluation.challenger.metrics[metric], evaluation.champion.metrics[metric]
    for words in (
        f"{mine:,.4f}",
        f"{other:,.4f}",
        f"{mine - other:+,.4f}",
        "+0.0123 (90% interval -0.0045 to +0.0291)",
        "Where they disagree",
        "Data of both",
        "newest labels of champion 4",
        "KiB",
    ):
        assert words in seen, words
    first_slice = seen.index("script", seen.index("By slice, the worst first"))
    assert first_slice < seen.index("colour = red"), "the worst stands first"
    # Rows are shown by what the models see of them; keys are not even read.
    columns = gather(reviewed.spec, reviewed.case).frame.columns
    assert columns == [*reviewed.spec.features.columns, "label"]


def test_a_first_champion_is_shown_beside_the_baselines(binary: Reviewed, tmp_path: Path) -> None:
    alone = {"champion": None, "champion_version": None, "comparisons": (), "interval": None}
    evaluation = binary.case.evaluation.model_copy(update=alone)
    case = dataclasses.replace(
        binary.case, evaluation=evaluation, report=evaluate_gates(evaluation, binary.spec), champion=None, url=None
    )
    Reviews().write(binary.spec, case, tmp_path)
    page = Reader((tmp_path / "comparison.html").read_text("utf-8")).text
    assert "There is no champion yet" in page
    assert "lightgbm" in page
    assert "constant" in page
    assert "Where they disagree" not in page
    card = (tmp_path / "model_card.md").read_text("utf-8")
    assert "interval not measured" in card
    assert "nothing to go back to" in card
    assert f"overnight rollback {binary.spec.name} --reason" in card


def test_the_same_case_gives_the_same_bytes(reviewed: Reviewed, tmp_path: Path) -> None:
    Reviews().write(reviewed.spec, reviewed.case, tmp_path)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(reviewed.out) for path in reviewed.out.rglob("*") if path.is_file())
    assert len(names) > 10
    for name in names:
        assert (tmp_path / name).read_bytes() == (reviewed.out / name).read_bytes(), name


def test_every_plot_is_a_picture_of_its_own_with_words_for_it(reviewed: Reviewed) -> None:
    files = sorted((reviewed.out / "plots").glob("*.svg"))
    names = {path.stem.rstrip("_012") for path in files}
    curves = {"predicted_observed", "residuals"} if reviewed.task == "regression" else {"roc", "precision_recall"}
    assert names >= curves | {"calibration", "scores", "importance", "example"}
    for path in files:
        root = ET.fromstring(path.read_text("utf-8"))
        assert root.attrib["role"] == "img"
        assert len(root.attrib["aria-label"]) > 40
        assert len(list(root)) > 10
    pages = [reviewed.read(name) for name in PAGES]
    assert all(path.read_text("utf-8").strip() in "".join(pages) for path in files)
    for page in pages:
        assert "Missing from this" not in page


def test_a_holdout_that_is_not_the_one_that_was_measured_is_refused(binary: Reviewed, tmp_path: Path) -> None:
    holdout = binary.case.evaluation.holdout.model_copy(update={"digest": "0" * 64})
    case = dataclasses.replace(binary.case, evaluation=binary.case.evaluation.model_copy(update={"holdout": holdout}))
    with pytest.raises(IntegrityError, match="not the holdout that was measured"):
        Reviews().write(binary.spec, case, tmp_path)


def test_what_cannot_be_explained_is_named_and_the_rest_is_there(
    binary: Reviewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such sample")

    monkeypatch.setattr("pipelines.backends.model_review_reasons.explain_model", broken)
    Reviews().write(binary.spec, binary.case, tmp_path)
    card = (tmp_path / "model_card.md").read_text("utf-8")
    assert "Missing from this card, explanations: ValueError: no such sample" in card
    assert "Not measured: ValueError: no such sample." in card
    assert "ROC curve" in card
