"""Train: pinned training set -> teacher, student, int8 -> evaluation against the champion on the same holdout."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipelines import artifacts
from pipelines.errors import IntegrityError, TrainingError, explain
from pipelines.failpoints import failpoint
from pipelines.parquet import sha256
from pipelines.ports import DriftDetector, ModelRegistry, OnProgress, SnapshotStore, Trainer
from pipelines.records import (
    OpenTraining,
    RunInfo,
    Scorecard,
    SnapshotRef,
    TrainedModel,
    TrainingSet,
)
from pipelines.scoring.engine import Engine
from pipelines.spec import UseCase
from pipelines.steps.features import context_keys
from pipelines.steps.parts import matured, write_part
from pipelines.steps.reads import stretches
from pipelines.steps.search import chosen, searched_tags
from pipelines.steps.seen import write_seen
from pipelines.steps.unlabelled import write_unlabelled

PARTS = ("train", "validation", "holdout")
SAMPLE = "reference_sample.parquet"
#: Seed of the row hash that chooses the reference sample; a number of its own, so that no other choice correlates.
_SAMPLE_SEED = 20130901
#: Most stretches of a table that a tag lists.
_STRETCHES = 25


def build_training_set(
    spec: UseCase, store: SnapshotStore, as_of: str, work: Path, since: str | None = None
) -> TrainingSet:
    """Writes train, validation and holdout, split by time, and unlabelled rows, from published snapshots alone.

    What failed validation or lies in quarantine was never published, so it cannot be read here.

    Args:
        as_of: the newest partition that may be used; labels must have matured by then.
        work: folder under which the training set gets a folder named by its digest.
        since: the oldest partition that may be used, if not all.

    Raises:
        TrainingError: too few matured partitions or rows.
    """
    snapshots, usable = matured(spec, store, as_of)
    usable = usable[-spec.training.history :] if spec.training.history else usable
    usable = [key for key in usable if since is None or key >= since]
    split = _split(spec, usable, as_of)
    folder = work / spec.name / "sets" / f"building-{as_of}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = {part: write_part(spec, store, snapshots, split[part], folder / f"{part}.parquet") for part in PARTS}
    if sum(rows.values()) < spec.training.min_rows or not all(rows.values()):
        raise TrainingError(
            explain(
                f"{spec.name}: training set as of {as_of}",
                f"{rows} labelled rows",
                allowed=f"at least {spec.training.min_rows} in all, and some in each part",
                remedy="wait for more labels",
            )
        )
    more = write_unlabelled(spec, store, snapshots, split, as_of, folder / "unlabelled.parquet")
    rows["unlabelled"] = more.rows
    names = [*(f"{part}.parquet" for part in (*PARTS, "unlabelled") if rows[part]), SAMPLE]
    _write_sample(spec, folder)
    digest = hashlib.sha256("".join(sha256(folder / name) for name in names).encode()).hexdigest()
    final = folder.parent / digest[:16]
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    return TrainingSet(
        use_case=spec.name,
        folder=str(final),
        as_of=as_of,
        snapshots=tuple(snapshots.values()),
        train=(split["train"][0], split["train"][-1]),
        validation=(split["validation"][0], split["validation"][-1]),
        holdout=(split["holdout"][0], split["holdout"][-1]),
        unlabelled=more.newer,
        reads=_reads(spec, store, snapshots, usable, more.partitions),
        rows=rows,
        digest=digest,
    )


def _reads(
    spec: UseCase,
    store: SnapshotStore,
    snapshots: Mapping[str, SnapshotRef],
    usable: Sequence[str],
    unlabelled: Sequence[str],
) -> dict[str, tuple[tuple[str, str], ...]]:
    """What a training set on these partitions, and on these without labels, reads of each table."""
    reads = {}
    featured = sorted({*usable, *unlabelled})
    for table, snapshot in snapshots.items():
        held = list(store.partitions(snapshot))
        used = set(featured) if table == "rows" else set(usable) if table == spec.label.table else set()
        if table in spec.context:
            used.update(context_keys(spec, table, featured, held))
        reads[table] = stretches(held, used)
    return reads


def _split(spec: UseCase, usable: Sequence[str], as_of: str) -> dict[str, Sequence[str]]:
    held, checked = spec.training.holdout, spec.training.validation
    if len(usable) <= held + checked:
        raise TrainingError(
            explain(
                f"{spec.name}: training set as of {as_of}",
                f"{len(usable)} partitions have rows and matured labels",
                allowed=f"more than validation ({checked}) + holdout ({held})",
                remedy="ingest more history, or shorten training.validation and training.holdout",
            )
        )
    return {
        "train": usable[: -held - checked],
        "validation": usable[-held - checked : -held],
        "holdout": usable[-held:],
    }


def _write_sample(spec: UseCase, folder: Path) -> None:
    """Rows of the training period, chosen by a hash of the key, for reports that people read."""
    train = pl.scan_parquet(folder / "train.parquet").select(*spec.rows.key, *spec.features.columns)
    chosen = sample(train.collect(), list(spec.rows.key), spec.drift.report_rows)
    chosen.select(spec.features.columns).write_parquet(folder / SAMPLE, compression="zstd")


def sample(frame: pl.DataFrame, key: Sequence[str], rows: int) -> pl.DataFrame:
    """At most `rows` rows, the same ones every time: those with the smallest hash of the key."""
    ranked = frame.with_columns(frame.select(key).hash_rows(seed=_SAMPLE_SEED).alias("__rank"))
    return ranked.sort("__rank").head(rows).drop("__rank")


def train(
    spec: UseCase,
    trainer: Trainer,
    registry: ModelRegistry,
    drift: DriftDetector,
    training_set: TrainingSet,
    run: RunInfo,
    work: Path,
    tell: OnProgress = lambda _: None,
) -> TrainedModel:
    """Trains here on a training set and stores the sealed artifact in the registry's run.

    The same training set, spec and code give the same key; a retry finds its own run again, and an artifact that
    was sealed before the retry is not trained a second time.

    Args:
        training_set: with the settings of the teacher that a search chose, when there was one.
        work: folder under which the artifact gets a folder named by its key.
        tell: also called with each epoch's losses, for whoever is watching.
    """
    begun = time.monotonic()
    spec = chosen(spec, training_set)
    opened = open_training(spec, registry, training_set, run, work)
    folder = Path(opened.folder)
    if not is_sealed(folder):
        prepare_folder(folder)

        def progress(values: Mapping[str, float]) -> None:
            registry.log_progress(opened.run_id, values)
            tell(values)

        data, checkpoints = Path(training_set.folder), work / spec.name / "checkpoints" / opened.key[:16]
        trainer.train(spec, data, folder, checkpoints, progress)
        seal_training(spec, drift, opened)
        registry.annotate(opened.run_id, {"overnight.seconds": f"{time.monotonic() - begun:.1f}"})
    return log_training(registry, opened, time.monotonic() - begun)


def open_training(
    spec: UseCase, registry: ModelRegistry, training_set: TrainingSet, run: RunInfo, work: Path
) -> OpenTraining:
    """Opens the MLflow run of a training, wherever it will happen, or finds it again."""
    spec = chosen(spec, training_set)
    told = spec.model_dump_json(include={"name", "label", "features", "training", "drift"})
    training_key = hashlib.sha256(f"{training_set.digest}{told}{run.code_version}".encode()).hexdigest()
    run_id = registry.start_training(
        spec,
        {
            "overnight.training_key": training_key,
            "overnight.training_set": training_set.digest,
            "overnight.as_of": training_set.as_of,
            "overnight.snapshots": " ".join(ref.id for ref in training_set.snapshots),
            "overnight.train": "..".join(training_set.train),
            "overnight.validation": "..".join(training_set.validation),
            "overnight.holdout": "..".join(training_set.holdout),
            **({"overnight.unlabelled": "..".join(training_set.unlabelled)} if training_set.unlabelled else {}),
            "overnight.reads": _shown_reads(training_set),
            "overnight.parameters": spec.training.model_dump_json(),
            "overnight.code_version": run.code_version,
            "overnight.dag_run": f"{run.dag_id}/{run.run_id}",
            "overnight.spec": spec.digest,
            "overnight.seed": str(spec.training.seed),
            **searched_tags(training_set),
        },
    )
    folder = work / spec.name / "artifacts" / training_key[:16]
    return OpenTraining(training_set=training_set, key=training_key, run_id=run_id, folder=str(folder))


def prepare_folder(folder: Path) -> None:
    """Makes room for an artifact: what an interrupted try left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)


def seal_training(spec: UseCase, drift: DriftDetector, opened: OpenTraining) -> None:
    """Adds the drift reference and the provenance to what a trainer made, and seals it."""
    folder, training_set = Path(opened.folder), opened.training_set
    _freeze_reference(spec, drift, Path(training_set.folder), folder)
    (folder / "provenance.json").write_text(training_set.model_dump_json(exclude={"folder"}, indent=2), "utf-8")
    artifacts.seal(folder)


def log_training(registry: ModelRegistry, opened: OpenTraining, seconds: float) -> TrainedModel:
    """Stores the sealed artifact in the registry's run; a repeat stores nothing again."""
    folder = Path(opened.folder)
    digest = artifacts.seal(folder)
    cards = read_scorecards(folder)
    flat = {name: value for card in cards for name, value in card.flat.items()}
    registry.log_artifact(opened.run_id, folder, flat)
    failpoint("train.logged")
    return TrainedModel(
        folder=str(folder),
        digest=digest,
        run_id=opened.run_id,
        training_set=opened.training_set,
        scorecards=cards,
        seconds=seconds,
    )


def _shown_reads(training_set: TrainingSet) -> str:
    """`reads` as a tag. MLflow keeps some thousand characters: a table of very many stretches is told by its ends."""
    short = {
        table: ends if len(ends) <= _STRETCHES else ((ends[0][0], ends[-1][1]),)
        for table, ends in training_set.reads.items()
    }
    return json.dumps(short)


def told(folder: Path, digest: str) -> TrainingSet:
    """The training set that a sealed artifact was made from, without its folder.

    Raises:
        IntegrityError: what the artifact says of it is not what was sealed.
    """
    (paper,) = artifacts.read(folder, digest, "provenance.json")
    return TrainingSet.model_validate({**json.loads(paper), "folder": ""})


def is_sealed(folder: Path) -> bool:
    """Whether an earlier try got as far as sealing, and nothing changed since."""
    digests = folder / artifacts.DIGESTS
    if not digests.is_file():
        return False
    try:
        artifacts.verify(folder, sha256(digests))
    except IntegrityError:
        return False
    return True


def read_scorecards(folder: Path) -> tuple[Scorecard, ...]:
    """The holdout scorecards that a training wrote."""
    raw = json.loads((folder / "scorecards.json").read_text("utf-8"))
    return tuple(Scorecard.model_validate(card) for card in raw)


def served_scorecard(folder: Path) -> Scorecard:
    """The holdout scorecard of the model that an artifact serves."""
    served = json.loads((folder / "model.json").read_text("utf-8"))["served"]
    return next(card for card in read_scorecards(folder) if card.model == served)


def _freeze_reference(spec: UseCase, drift: DriftDetector, data: Path, folder: Path) -> None:
    """Reference of inputs: the training rows. Of scores: the holdout, which the model was not trained on."""
    train_rows = pl.read_parquet(data / "train.parquet", columns=["partition", *spec.features.columns])
    holdout = pl.read_parquet(data / "holdout.parquet", columns=["partition", *spec.features.columns])
    engine = Engine(folder, tile_rows=spec.scoring.tile_rows)
    scores = engine.score(holdout)
    highest = pl.Series("score", scores if scores.ndim == 1 else scores.max(axis=1))
    watched = holdout.select("partition", highest)
    reference = drift.reference(spec, train_rows, watched)
    (folder / "reference.json").write_text(reference.model_dump_json(), "utf-8")
    shutil.copyfile(data / SAMPLE, folder / SAMPLE)
    write_seen(spec, engine, data / "train.parquet", folder)
