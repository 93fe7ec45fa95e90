"""UseCase: what one YAML file may say. Frozen, no unknown keys, safe to parse, cheap to import."""

from pipelines.spec.base import GREATER_IS_BETTER, Name, SpecModel, Task
from pipelines.spec.data import (
    MAX_CLASSES,
    Column,
    ColumnType,
    Expectation,
    Features,
    Label,
    LandingPath,
    Positive,
    Table,
)
from pipelines.spec.gates import Gates
from pipelines.spec.nights import Drift, Retraining, Scoring
from pipelines.spec.reading import load_spec
from pipelines.spec.training import FloatRange, SageMakerJob, Search, Student, Teacher, Training
from pipelines.spec.use_case import UseCase

__all__ = [
    "GREATER_IS_BETTER",
    "MAX_CLASSES",
    "Column",
    "ColumnType",
    "Drift",
    "Expectation",
    "Features",
    "FloatRange",
    "Gates",
    "Label",
    "LandingPath",
    "Name",
    "Positive",
    "Retraining",
    "SageMakerJob",
    "Scoring",
    "Search",
    "SpecModel",
    "Student",
    "Table",
    "Task",
    "Teacher",
    "Training",
    "UseCase",
    "load_spec",
]
