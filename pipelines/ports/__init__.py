"""The ports: what steps ask of the outside world. Each has its adapters in `pipelines/backends`, one a file.

Steps see these Protocols and nothing else; `pipelines/runtime` puts the adapters in.
"""

from pipelines.ports.data import STATIC, DataSource, Draft, LandedFrame, SnapshotStore, Validator
from pipelines.ports.models import FairnessAuditor, ModelRegistry, ModelReviewer, Signed, Signer, UnderReview
from pipelines.ports.scores import Consignment, ShardJob, ShardPool, Sink
from pipelines.ports.training import OnProgress, OnTrial, RemoteTrainer, Searcher, Trainer
from pipelines.ports.watching import DriftDetector, DriftReporter

__all__ = [
    "STATIC",
    "Consignment",
    "DataSource",
    "Draft",
    "DriftDetector",
    "DriftReporter",
    "FairnessAuditor",
    "LandedFrame",
    "ModelRegistry",
    "ModelReviewer",
    "OnProgress",
    "OnTrial",
    "RemoteTrainer",
    "Searcher",
    "ShardJob",
    "ShardPool",
    "Signed",
    "Signer",
    "Sink",
    "SnapshotStore",
    "Trainer",
    "UnderReview",
    "Validator",
]
