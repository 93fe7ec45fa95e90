"""`model: lightgbm`: the trees of the baseline are what is served, as ONNX. No teacher, no student, no compression.

The scorecard `lightgbm` is still what LightGBM itself predicts, so that its gate holds the graph to it.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor

from pipelines.records import Scorecard
from pipelines.training import calibrate, scorecards, tree_graph, weights
from pipelines.training.baselines import Constant, LightGbm
from pipelines.training.calibrate import Calibration
from pipelines.training.card import served
from pipelines.training.compress import MODEL, Scale
from pipelines.training.data import Table, read_unlabelled
from pipelines.training.job import UNLABELLED
from pipelines.training.learnable import Tables
from pipelines.training.prepare import Preparation
from pipelines.training.session import Session


def train(
    session: Session, preparation: Preparation, train: Table, validation: Table, holdout: Table, target: Tensor
) -> tuple[Calibration, list[Scorecard]]:
    """Trains the trees, writes `model.onnx`, and measures on the holdout.

    Args:
        target: the validation rows', as `calibrate.fit` takes it. Probabilities are calibrated as a student's are.
    """
    spec, out = session.spec, session.job.out
    boosted = boost(session, preparation, train, validation)
    raw = torch.from_numpy(boosted.raw(validation))
    calibration = calibrate.fit(session.task, raw, target, spec.training.probabilities)
    onnx.save(tree_graph.build(spec, preparation, boosted.dump(), calibration), out / MODEL)
    scorer = scorecards.OnnxScorer(out / MODEL, spec, session.threads)
    constant = Constant(session.task, session.outputs, train)
    cards = [
        scorecards.measure(spec, served(spec), scorer, holdout, (out / MODEL).stat().st_size),
        scorecards.measure(spec, "lightgbm", boosted, holdout, boosted.bytes),
        scorecards.measure(spec, "constant", constant, holdout, None),
    ]
    return calibration, cards


def said(session: Session, boosted: LightGbm, held: Tables, label: Scale) -> tuple[Tensor, Tensor]:
    """What trees say of the rows that a student hears (`distill.heard`), and of the validation rows.

    Returns:
        Float32 as `loop.predict` gives it: probabilities [n] or [n, classes]; a regression's [n] standardised.
    """
    rows, validation = [held.train], held.validation
    if session.spec.training.student.unlabelled:
        rows.append(validation)
        path = session.job.part(UNLABELLED)
        if path.is_file() and (more := read_unlabelled(session.spec, path)):
            rows.append(more)

    def scores(table: Table) -> Tensor:
        return torch.from_numpy(((boosted(table) - label.mean) / label.scale).astype("float32"))

    return torch.cat([scores(table) for table in rows]), scores(validation)


def boost(session: Session, preparation: Preparation, train: Table, validation: Table) -> LightGbm:
    """LightGBM with its defaults, on rows that weigh as `training.sample_weight` says."""
    spec = session.spec
    mine, theirs = weights.of_rows(train), weights.of_rows(validation)
    return LightGbm(
        session.task,
        session.outputs,
        preparation,
        train,
        validation,
        session.threads,
        spec.training.seed,
        weights=None if mine is None or theirs is None else (mine, theirs),
        metric=spec.gates.metric,
    )
