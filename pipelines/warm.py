"""What each step imports, so that a long-lived process can import it once, before tasks are forked from it.

Import only: no threads, sessions or clients are started here, because what forks afterwards would share them.
"""

from __future__ import annotations

import importlib
import logging

_STORE = ("polars", "deltalake", "pipelines.runtime")
_MODEL = (*_STORE, "mlflow")

#: Modules by step, heaviest users last. A step that is not named imports what it needs when it needs it.
MODULES: dict[str, tuple[str, ...]] = {
    "land": _STORE,
    "validate": (*_STORE, "great_expectations"),
    "publish": _STORE,
    "announce": (),
    "score": (*_MODEL, "onnxruntime"),
    "audit": _STORE,
    "observe": _MODEL,
    "report": (*_MODEL, "evidently"),
    "decide": _STORE,
    "build_training_set": _STORE,
    # The first step of a torch optimizer imports torch._dynamo, which takes seconds.
    "train": (*_MODEL, "torch", "torch._dynamo", "lightgbm", "onnx", "onnxruntime"),
    "evaluate": (*_MODEL, "onnxruntime"),
    "gate": _MODEL,
    "register": _MODEL,
    "promote": _MODEL,
    "rollback": _MODEL,
}


def quiet() -> None:
    """Raises the levels of loggers that say hundreds of lines while their package is imported."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)


def load(step: str) -> None:
    """Imports what a step needs; costs nothing in a warm process."""
    quiet()
    for module in MODULES.get(step, ()):
        importlib.import_module(module)


def load_all() -> dict[str, str]:
    """Imports what any step needs. One that fails does not hold up the others.

    Returns:
        The modules that could not be imported, each with its error.
    """
    quiet()
    failed = {}
    for module in sorted({module for modules in MODULES.values() for module in modules}):
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 (whatever goes wrong there, tasks still run, only slower)
            failed[module] = f"{type(error).__name__}: {error}"
    return failed
