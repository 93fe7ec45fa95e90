"""Review: what a person reads before, and long after, a model is promoted; refused models have theirs too."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pipelines import __version__, artifacts
from pipelines.errors import NotFoundError, explain
from pipelines.ports import ModelRegistry, ModelReviewer, UnderReview
from pipelines.records import Evaluation, GateReport, ModelRef, TrainedModel
from pipelines.spec import UseCase

CARD = "model_card.md"
#: SHA-256 of everything that a review was made of: the same again is not made again.
_MADE_OF = "made_of.txt"
#: Characters of a version's description that MLflow's database keeps (String(5000)); SQLite keeps more, Postgres errs.
MAX_DESCRIPTION = 5000


def review(
    spec: UseCase,
    registry: ModelRegistry,
    reviewer: ModelReviewer,
    trained: TrainedModel,
    evaluation: Evaluation,
    report: GateReport,
    reports: Path,
) -> Path:
    """Writes card, comparison and plots, stores them in the training's run, and, once there is a version of it, makes
    the card its description. A repeat changes nothing; after another evaluation the folder is replaced whole.

    Args:
        reports: folder below which people find reports: `<use case>/models/<run>/`.

    Returns:
        The folder.

    Raises:
        IntegrityError: an artifact or the holdout is not what was measured.
    """
    out = _folder(spec, trained.run_id, reports)
    made_of = _digest(spec, trained, evaluation, report)
    if not _is_made_of(out, made_of):
        folder = Path(trained.folder)
        artifacts.verify(folder, trained.digest)
        rival = evaluation.champion_version
        case = UnderReview(
            trained=trained,
            evaluation=evaluation,
            report=report,
            champion=registry.fetch(registry.get(rival)) if rival is not None else None,
            tags=_tags(registry, trained.run_id),
            url=registry.url(trained.run_id),
        )
        with artifacts.building(out) as building:
            reviewer.write(spec, case, building)
            (building / _MADE_OF).write_text(made_of, "utf-8")
            # A folder takes the place of an empty one only. Gone for a moment, it is made again by a repeat.
            shutil.rmtree(out, ignore_errors=True)
    registry.log_review(trained.run_id, out)
    text = (out / CARD).read_text("utf-8")
    for model in registry.versions():
        if model.run_id == trained.run_id:
            registry.describe(model, description(text, trained.run_id))
    return out


def find_card(spec: UseCase, model: ModelRef, reports: Path) -> Path:
    """The Markdown card of a version on this machine.

    Raises:
        NotFoundError: it was made elsewhere, or before there were cards.
    """
    path = _folder(spec, model.run_id, reports) / CARD
    if not path.is_file():
        raise NotFoundError(
            explain(
                f"{model.id}: model card",
                f"it is not at {path}",
                remedy=f"see review/ among the artifacts of MLflow run {model.run_id}, or train again",
            )
        )
    return path


def description(card: str, run_id: str) -> str:
    """The card as a version's description: whole sections from the beginning, as many as a registry keeps."""
    if len(card) <= MAX_DESCRIPTION:
        return card
    rest = f"\n\nThe rest of this card, with its plots: `review/` among the artifacts of run {run_id}.\n"
    sections = card.split("\n\n## ")
    kept = sections[0]
    for section in sections[1:]:
        longer = f"{kept}\n\n## {section}"
        if len(longer) + len(rest) > MAX_DESCRIPTION:
            break
        kept = longer
    return kept[: MAX_DESCRIPTION - len(rest)] + rest


def _folder(spec: UseCase, run_id: str, reports: Path) -> Path:
    return reports / spec.name / "models" / run_id


def _digest(spec: UseCase, trained: TrainedModel, evaluation: Evaluation, report: GateReport) -> str:
    parts = (__version__, spec.digest, *(record.model_dump_json() for record in (trained, evaluation, report)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_made_of(out: Path, made_of: str) -> bool:
    note = out / _MADE_OF
    return note.is_file() and note.read_text("utf-8") == made_of


def _tags(registry: ModelRegistry, run_id: str) -> dict[str, str]:
    """What the training wrote on its run."""
    return next((dict(run.tags) for run in registry.trainings() if run.run_id == run_id), {})
