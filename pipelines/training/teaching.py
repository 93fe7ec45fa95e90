"""The teacher's stage: TabM on the training rows, stopped early on the validation rows."""

from __future__ import annotations

from pipelines.training import loop, memory
from pipelines.training.feed import Feed
from pipelines.training.networks import Teacher
from pipelines.training.prepare import Encoded, Preparation
from pipelines.training.session import Session


def teach(session: Session, preparation: Preparation, sample: Encoded, rows: Feed, validation: Feed) -> Teacher:
    """Trains the teacher.

    Args:
        sample: encoded training rows, all or many; the edges of the numeric embeddings are their quantiles.
    """
    spec = session.spec.training
    teacher = Teacher(spec.teacher, preparation, sample, session.outputs).to(session.device)
    schedule = loop.Schedule(
        name="teacher",
        epochs=spec.teacher.epochs,
        patience=spec.teacher.patience,
        batch_rows=memory.batch_rows(session, teacher, rows),
        learning_rate=spec.teacher.learning_rate,
        weight_decay=spec.teacher.weight_decay,
        seed=spec.seed,
    )
    loop.train(session, teacher, rows, validation, schedule)
    return teacher
