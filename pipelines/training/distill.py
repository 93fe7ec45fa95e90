"""The student's stage: a small MLP learns the teacher's soft output, mixed with the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.training import loop
from pipelines.training.feed import Batch, Feed, Resident
from pipelines.training.networks import Student, Teacher
from pipelines.training.prepare import Preparation
from pipelines.training.session import Session

_WEIGHT_DECAY = 1e-4


def distill(session: Session, preparation: Preparation, teacher: Teacher, rows: Feed, validation: Feed) -> Student:
    """Trains the student on the training rows, and on the validation rows without their labels.

    The validation rows are the newest, nearest to what will be scored: a student that hears there what its teacher says
    follows it into the next month. On flights' May and June that is 0.006 and 0.014 of AUC.
    """
    spec = session.spec.training.student
    # It is to say what the teacher says: labels would stop it early, by the chance of one slice of time.
    validation = validation.taught(loop.predict(session.task, teacher, validation), None)
    soft = loop.predict(session.task, teacher, rows)
    taught = rows.taught(spec.soft_share * soft + (1 - spec.soft_share) * rows.target, None)
    taught = beside(taught, validation)
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
    loop.train(session, student, taught, validation, schedule)
    return student


def beside(rows: Feed, more: Feed) -> Feed:
    """`rows` followed by `more`, where both lie on the device; a table that is streamed for its size stays alone."""
    if not (isinstance(rows, Resident) and isinstance(more, Resident)):
        return rows
    one, other = rows.rows, more.rows
    return Resident(
        Batch(
            torch.cat([one.numeric, other.numeric]),
            torch.cat([one.missing, other.missing]),
            torch.cat([one.codes, other.codes]),
            torch.cat([one.target, other.target]),
        )
    )


def logits(student: Student, rows: Feed) -> Tensor:
    """[n, o], on the CPU."""
    student.eval()
    with torch.no_grad():
        parts = [student(tile.numeric, tile.missing, tile.codes)[:, 0, :] for tile in rows.tiles(8192)]
    return torch.cat(parts).cpu()
