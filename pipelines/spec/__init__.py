"""UseCase: what one YAML file may say. Frozen, no unknown keys, safe to parse, cheap to import."""

from pipelines.spec.alerts import AlertKind, Channel, EmailChannel, SlackChannel, WebhookChannel
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
from pipelines.spec.delivery import Delivery, FileDelivery, PostgresDelivery, WebhookDelivery
from pipelines.spec.gates import CLASS_ROWS, CompressionGate, FairnessGate, Gates, Golden, Sanity
from pipelines.spec.reading import load_spec
from pipelines.spec.scoring import LEVELS, Scoring
from pipelines.spec.training import FloatRange, SageMakerJob, Search, Student, Teacher, Training
from pipelines.spec.use_case import ModelCard, UseCase
from pipelines.spec.watching import Drift, Retraining

__all__ = [
    "CLASS_ROWS",
    "GREATER_IS_BETTER",
    "LEVELS",
    "MAX_CLASSES",
    "AlertKind",
    "Channel",
    "Column",
    "ColumnType",
    "CompressionGate",
    "Delivery",
    "Drift",
    "EmailChannel",
    "Expectation",
    "FairnessGate",
    "Features",
    "FileDelivery",
    "FloatRange",
    "Gates",
    "Golden",
    "Label",
    "LandingPath",
    "ModelCard",
    "Name",
    "Positive",
    "PostgresDelivery",
    "Retraining",
    "SageMakerJob",
    "Sanity",
    "Scoring",
    "Search",
    "SlackChannel",
    "SpecModel",
    "Student",
    "Table",
    "Task",
    "Teacher",
    "Training",
    "UseCase",
    "WebhookChannel",
    "WebhookDelivery",
    "load_spec",
]
