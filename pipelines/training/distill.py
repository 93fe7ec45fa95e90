"""The student's stage: a small MLP learns the teacher's soft output, mixed with the labels; from rows without a label,
the soft output alone. Shapes: n labelled rows, m more without a label, b rows, o outputs.

With T the temperature, s the soft share, w the row's weight and CE the cross-entropy, a labelled row costs

    s T^2 CE(teacher / T, student / T) + (1 - s) w CE(label, student)

(Hinton et al., arXiv 1503.02531: gradients of softened targets are 1 / T^2 as large, so that part is scaled back), and
a row without a label T^2 CE(teacher / T, student / T). A regression has no temperature and squared errors instead.
Where the spec gives trees a share, "teacher" is the weighted mean of its output and LightGBM's.
The weight is the label's alone: the teacher was trained with it and its output has it already.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from pipelines.training import loop
from pipelines.training.data import read_unlabelled
from pipelines.training.feed import Batch, Feed, Resident
from pipelines.training.job import UNLABELLED
from pipelines.training.networks import Student, Teacher
from pipelines.training.prepare import Preparation
from pipelines.training.prune import hidden_rms, pruned
from pipelines.training.session import Session

_WEIGHT_DECAY = 1e-4
_TILE = 8192
#: Fine-tuning after pruning begins where the student's pace was low already.
_TUNING = 0.3


class Tempered(nn.Module):
    """A student that is judged twice while it trains: member 0 by the labels, member 1, divided by T, by the teacher.

    In eval mode it is the student.
    """

    def __init__(self, student: Student, temperature: float) -> None:
        super().__init__()
        self.student = student
        self.temperature = temperature

    def forward(self, numeric: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
        """Logits [b, 2, o] in train mode, [b, 1, o] in eval mode."""
        logits: Tensor = self.student(numeric, missing, codes)
        return torch.cat([logits, logits / self.temperature], dim=1) if self.training else logits


def distill(
    session: Session,
    preparation: Preparation,
    teacher: Teacher,
    rows: Feed,
    validation: Feed,
    trees: tuple[Tensor, Tensor] | None = None,
) -> Student:
    """Trains the student, and prunes and tunes it where the spec asks for that.

    Args:
        rows: the labelled training rows; others are added here (see `heard`).
        validation: the best epoch is the one that says there what the teacher says: labels would choose it by the
            chance of one slice of time.
        trees: LightGBM's output, as `loop.predict` gives the teacher's, on the rows that are heard and on the
            validation rows; None where the spec gives it no share, or the table is streamed.
    """
    spec = session.spec.training.student
    tempered = spec.temperature != 1.0 and session.task != "regression"
    on_rows, on_validation = trees or (None, None)
    if spec.trees:
        session.facts["student_trees"] = 0.0 if trees is None else spec.trees
    taught = lesson(session, teacher, rows, heard(session, preparation, rows, validation), on_rows)
    soft = _mixed(loop.predict(session.task, teacher, validation), on_validation, spec.trees)
    judged = validation.taught(soft, None)

    def learn(student: Student, schedule: loop.Schedule) -> None:
        net = Tempered(student, spec.temperature) if tempered else student
        loop.train(session, net, taught, judged, schedule)

    student = Student(spec, preparation, session.outputs).to(session.device)
    schedule = loop.Schedule(
        name="student",
        epochs=spec.epochs,
        # The student is short and cheap: all its epochs, then the best of them.
        patience=spec.epochs,
        batch_rows=spec.batch_rows,
        learning_rate=spec.learning_rate,
        weight_decay=_WEIGHT_DECAY,
        seed=session.spec.training.seed,
    )
    learn(student, schedule)
    if spec.prune:
        student = pruned(student, spec.prune, hidden_rms(student, rows))
        tuning = {"epochs": spec.prune_epochs, "patience": spec.prune_epochs}
        learn(student, replace(schedule, name="pruned", learning_rate=_TUNING * spec.learning_rate, **tuning))
    return student


def heard(session: Session, preparation: Preparation, rows: Feed, validation: Feed) -> Feed:
    """The training rows, followed by the validation rows and those of unlabelled.parquet, whose labels nobody reads.

    The validation rows are the newest, nearest to what will be scored: a student that hears there what its teacher says
    follows it into the next month. On flights' May and June that is 0.006 and 0.014 of AUC. Only rows that lie on the
    device are added to: a table that is streamed for its size is large enough without.
    """
    path, wanted = session.job.part(UNLABELLED), session.spec.training.student.unlabelled
    session.facts["unlabelled"] = 0
    if not (wanted and isinstance(rows, Resident) and isinstance(validation, Resident)):
        return rows
    parts = [rows.rows, validation.rows]
    if path.is_file() and pq.read_metadata(path).num_rows:
        more = preparation.encode(read_unlabelled(session.spec, path))
        nothing = torch.zeros(len(more.codes), *rows.target.shape[1:])
        parts.append(Resident.of(more, nothing, None, rows.target.device).rows)
        session.facts["unlabelled"] = len(more.codes)
    return Resident(
        Batch(
            torch.cat([part.numeric for part in parts]),
            torch.cat([part.missing for part in parts]),
            torch.cat([part.codes for part in parts]),
            torch.cat([part.target for part in parts]),
        )
    )


def lesson(session: Session, teacher: Teacher, labelled: Feed, rows: Feed, trees: Tensor | None = None) -> Feed:
    """`rows` with what the student is to learn of each: see the module.

    At T = 1 both parts of the loss are one: the cross-entropy, or squared error, to the weighted mean of their
    targets, weighing the sum of their weights. Otherwise target [n + m, 2, ...] and weight [n + m, 2] hold the two
    parts, as `Tempered` is judged.

    Args:
        labelled: the first n of `rows`.
        trees: what LightGBM says of `rows`, see `distill`.
    """
    spec, n = session.spec.training.student, len(labelled)
    task, t = session.task, spec.temperature if session.task != "regression" else 1.0
    soft = _mixed(loop.predict(task, teacher, rows, t), trees, spec.trees)
    weight = labelled.weight
    label = rows.target.clone()
    hard = torch.zeros(len(rows), device=label.device)
    hard[:n] = (1 - spec.soft_share) * (1.0 if weight is None else weight)
    easy = torch.ones(len(rows), device=label.device)
    easy[:n] = spec.soft_share
    label[n:] = soft[n:]
    if t != 1.0:
        # `losses` takes the mean over both members: twice each part gives their sum.
        return rows.taught(torch.stack([label, soft], 1), 2 * torch.stack([hard, t * t * easy], 1))
    total = hard + easy
    share = (hard / total.clamp(min=1e-12)).view(-1, *[1] * (label.dim() - 1))
    return rows.taught((1 - share) * soft + share * label, None if weight is None else total)


def _mixed(soft: Tensor, trees: Tensor | None, share: float) -> Tensor:
    return soft if trees is None else (1 - share) * soft + share * trees.to(soft)


def logits(student: Student, rows: Feed, *, bf16: bool = False) -> Tensor:
    """[n, o] in float32, on the CPU.

    Args:
        bf16: compute the layers in bfloat16, by autocast: the student's fast path on a GPU that has it. A CPU without
            bfloat16 units computes the same, slower.
    """
    student.eval()
    parts = []
    with torch.no_grad():
        for tile in rows.tiles(_TILE):
            with torch.autocast(tile.codes.device.type, torch.bfloat16) if bf16 else nullcontext():
                parts.append(student(tile.numeric, tile.missing, tile.codes)[:, 0, :])
    return torch.cat(parts).float().cpu()
