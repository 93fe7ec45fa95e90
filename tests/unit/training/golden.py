"""Losses of small trainings, kept beside this file: a change of the arithmetic shows as a change of these numbers.

Write them anew, when they were meant to change, with

    python -m tests.unit.training.golden

Another processor rounds otherwise. ATEN_CPU_CAPABILITY=default (or avx2) in front of the command shows by how much:
less than 1e-6 of a loss at the spec's own learning rates. Five times those made it 1e-4: AdamW's first steps have the
size of the learning rate however small the gradient is, so that the last bit of a gradient near zero has a say.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pipelines.training.entry import run
from pipelines.training.job import Job

from .conftest import TASKS, make_spec, write

KEPT = Path(__file__).with_name("golden_losses.json")


def curves(task: str, folder: Path) -> list[dict[str, float]]:
    """The progress of one training of fixed rows and seed on one thread: few steps, so that rounding stays small."""
    # Judged by a loss: a change of the last bit can swap two rows, which AUC counts as a whole pair.
    metric = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}[task]
    spec = make_spec(
        task,
        metric,
        seed=11,
        teacher={"k": 4, "width": 32, "epochs": 2, "batch_rows": 128},
        student={"widths": [32, 16], "epochs": 2, "batch_rows": 128},
    )
    told: list[dict[str, float]] = []
    data = write(folder / "data", task)
    run(Job(spec=spec, data=data, out=folder / "out", threads=1), lambda values: told.append(dict(values)))
    return [{name: value for name, value in row.items() if name in _LOSSES} for row in told if row.keys() & _ENDS]


_ENDS = {"teacher_validation", "student_validation"}
_LOSSES = ("epoch", "teacher_loss", "teacher_validation", "student_loss", "student_validation")


def main() -> None:
    """Trains each task and writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {task: curves(task, Path(folder) / task) for task in TASKS}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
