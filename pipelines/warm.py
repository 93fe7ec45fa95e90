"""What each step imports, so that a long-lived process can import it once, before tasks are forked from it.

Import only: no threads, sessions or clients are started here, because what forks afterwards would share them.
"""

from __future__ import annotations

import importlib
import logging
import sys

_STORE = (
    "polars",
    "blake3",
    "deltalake",
    "deltalake.transaction",
    "pyarrow.pandas_compat",
    "pipelines.runtime",
    "pipelines.backends.delta",
)
_INGEST = (*_STORE, "pipelines.steps.ingest", "pipelines.backends.files")
_MODEL = (
    *_STORE,
    "mlflow",
    "mlflow.entities",
    # Imported, it looks through every installed package for plugins.
    "mlflow.tracking.request_header.registry",
    "pipelines.steps.promotion",
    "pipelines.backends.mlflow_registry",
)
_ENGINE = (
    *_MODEL,
    "numpy",
    "onnxruntime",
    "onnx",
    "google.protobuf.message",
    "pyarrow.parquet",
    "pipelines.steps.scoring",
)
_MONITOR = (*_ENGINE, "pipelines.steps.monitoring", "pipelines.backends.psi")
_ONNX = ("pandas", "onnx", "mlflow.models", "mlflow.onnx", "mlflow.types")
_REVIEW = (
    "pipelines.backends.model_review",
    "pipelines.backends.model_review_card",
    "pipelines.backends.model_review_comparison",
    "pipelines.backends.model_review_reasons",
)
_GX = (
    "pandas",
    "great_expectations",
    "great_expectations.expectations",
    "great_expectations.execution_engine",
    "great_expectations.validator.metrics_calculator",
    "pipelines.backends.gx",
)

#: Modules by step: what the step itself would import, adapters and what they import inside functions included.
MODULES: dict[str, tuple[str, ...]] = {
    "land": (*_INGEST, "pipelines.tabular.parquet"),
    "validate": (*_INGEST, *_GX),
    # Which suite must have judged is asked of the validator's adapter; the library stays out of it.
    "publish": (*_INGEST, "pipelines.backends.gx"),
    "announce": (),
    "score": _ENGINE,
    "shard": _ENGINE,
    "audit": (*_STORE, "pyarrow.parquet", "pipelines.steps.scoring"),
    # A sink's own library is imported by the sink.
    "deliver": _STORE,
    "observe": _MONITOR,
    "report": (*_MONITOR, "evidently", "evidently.presets", "pipelines.backends.evidently_report"),
    "decide": _MONITOR,
    "tell": (*_STORE, "pipelines.steps.alerting"),
    "build_training_set": (*_STORE, "pipelines.steps.training"),
    # Most runs do not search, and trials run in processes of their own: a search imports what it needs itself.
    "search": (),
    "train": (
        *_ENGINE,
        *_ONNX,
        "torch",
        # The first step of a torch optimizer imports it, which takes seconds.
        "torch._dynamo",
        "tabm",
        "rtdl_num_embeddings",
        "lightgbm",
        "onnxruntime.quantization",
        "pipelines.steps.training",
        "pipelines.backends.local_trainer",
        "pipelines.training.entry",
    ),
    "train_remotely": (*_ENGINE, "boto3", "pipelines.steps.remote", "pipelines.backends.sagemaker_trainer"),
    "evaluate": (*_ENGINE, "pipelines.steps.evaluation", "pipelines.backends.fairlearn_audit"),
    # It writes the review, too.
    "gate": (*_ENGINE, "pipelines.steps.review", *_REVIEW),
    "approve": _MODEL,
    "register": (*_MODEL, *_ONNX, "pipelines.steps.review"),
    "promote": _MODEL,
    "rollback": _MODEL,
}

#: What any step imports besides, when its snapshots are on lakeFS.
LAKEFS: tuple[str, ...] = ("lakefs_sdk.client", "pipelines.backends.lakefs")


def quiet() -> None:
    """Raises the levels of loggers that say hundreds of lines while their package is imported."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)


def load(step: str) -> int:
    """Imports what a step needs; costs nothing in a warm process.

    Returns:
        How many modules that added to this process, with all that they import: none in a warm one.
    """
    before = len(sys.modules)
    quiet()
    for module in MODULES.get(step, ()):
        importlib.import_module(module)
    return len(sys.modules) - before


def load_all(*also: str) -> dict[str, str]:
    """Imports what any step needs. One that fails does not hold up the others.

    Args:
        also: modules besides, such as those of `LAKEFS`.

    Returns:
        The modules that could not be imported, each with its error.
    """
    quiet()
    failed = {}
    for module in sorted({module for modules in (*MODULES.values(), also) for module in modules}):
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {error}"
    return failed
