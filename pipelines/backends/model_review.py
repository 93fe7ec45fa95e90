"""What a reviewer reads about a model: a card in Markdown and HTML, a comparison with the champion, and the plots.

The same models, rows and records give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipelines.errors import IntegrityError, TransientError
from pipelines.ports import UnderReview
from pipelines.spec import UseCase

if TYPE_CHECKING:
    from pipelines.backends.model_review_document import Page, Section
    from pipelines.backends.model_review_facts import Facts
    from pipelines.backends.model_review_svg import Figure

CARD, CARD_PAGE, COMPARISON = "model_card.md", "model_card.html", "comparison.html"
PLOTS = "plots"
#: The training's own page, which lies in the artifact.
_COMPRESSION = "compression.html"

T = TypeVar("T")


class Reviews:
    """Writes reviews. What it imports, NumPy and Polars apart, is the scoring engine's."""

    def write(self, spec: UseCase, case: UnderReview, out: Path) -> None:
        """See `ModelReviewer.write`."""
        from pipelines.backends.model_review_facts import gather

        out.mkdir(parents=True, exist_ok=True)
        facts = gather(spec, case)
        page = facts.challenger.folder / _COMPRESSION
        if page.is_file():
            shutil.copyfile(page, out / _COMPRESSION)
        card, comparison = _pages(facts, [_COMPRESSION] if page.is_file() else [])
        self._put(out, card, comparison)

    def _put(self, out: Path, card: Page, comparison: Page) -> None:
        from pipelines.backends.model_review_document import html, markdown

        (out / CARD).write_text(markdown(card), "utf-8")
        (out / CARD_PAGE).write_text(html(card), "utf-8")
        (out / COMPARISON).write_text(html(comparison), "utf-8")
        (out / PLOTS).mkdir(exist_ok=True)
        for figure in [*card.figures, *comparison.figures]:
            (out / PLOTS / f"{figure.name}.svg").write_text(figure.svg + "\n", "utf-8")


def _pages(facts: Facts, files: list[str]) -> tuple[Page, Page]:
    """The card and the comparison. A plot or an explanation that cannot be made is named there, and leaves the rest."""
    from pipelines.backends import model_review_card, model_review_comparison, model_review_plots

    failed: dict[str, str] = {}
    plots = _or_why("plots", lambda: model_review_plots.quality(facts), failed) or []
    reasons = _or_why("explanations", lambda: _reasons(facts), failed)
    distributions = _or_why("score distributions", lambda: model_review_plots.distributions(facts), failed) or []
    calibration: list[Figure] = [figure for figure in plots if figure.name.startswith(("calibration", "residuals"))]
    return (
        model_review_card.page(facts, plots, reasons, failed, files),
        model_review_comparison.page(facts, calibration, distributions, failed),
    )


def _reasons(facts: Facts) -> Section:
    from pipelines.backends.model_review_reasons import explain_model, section

    return section(facts, explain_model(facts))


def _or_why(name: str, make: Callable[[], T], failed: dict[str, str]) -> T | None:
    """What could be made; otherwise None, and why in `failed`. Bytes that are not what was sealed stop everything."""
    try:
        return make()
    except (TransientError, IntegrityError):
        raise
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
        return None
