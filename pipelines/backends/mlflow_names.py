"""What is written on runs and versions in MLflow, and what may be: checked before any request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.errors import IntegrityError, NotFoundError, SpecError, explain
from pipelines.records import ModelRef

TRAINING_KEY = "overnight.training_key"
DIGEST = "overnight.digest"
"""Of the sealed artifact; on the run it is the last thing that is written of an artifact."""
RUN_ID = "overnight.run_id"
MODEL_ID = "overnight.model_id"
"""MLflow's LoggedModel: what `pyfunc` loads."""
SIGNATURE = "overnight.signature"
"""SHA-256 of the signature of the sealed artifact, a file of the run: see `signature_place`."""
MLFLOW_SIGNATURE = "overnight.mlflow_signature"
"""The same of the MLflow form."""
WRITING = "overnight.writing"
"""Who is writing here, while that goes on: see `mlflow_owners`."""
STAGING = "_staging"

#: What registration takes from the run, where the training wrote it.
OF_RUN = (
    "overnight.code_version",
    "overnight.dag_run",
    "overnight.seed",
    "overnight.spec",
    TRAINING_KEY,
    "overnight.training_set",
)
#: Without all of these no version is made.
REQUIRED = (
    "overnight.snapshots",
    "overnight.as_of",
    "overnight.code_version",
    "overnight.code_dirty",
    "overnight.environment",
    "overnight.dag_run",
    "overnight.suites",
    "overnight.seed",
    "overnight.spec",
    "overnight.teacher_run",
    "overnight.metric",
    "overnight.gates",
    DIGEST,
    RUN_ID,
    MODEL_ID,
    SIGNATURE,
    MLFLOW_SIGNATURE,
)
_MADE_HERE = (DIGEST, RUN_ID, MODEL_ID, SIGNATURE, MLFLOW_SIGNATURE)
#: MLflow keeps more, its databases not always.
MOST_CHARACTERS = 5000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,55}")
_TAG = re.compile(r"overnight\.[a-z0-9_.]{1,60}")
_RUN = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def checked_name(what: str, name: str) -> str:
    """A registered model's or an alias's name.

    Raises:
        SpecError: it is not a name; nothing was asked of MLflow.
    """
    if _NAME.fullmatch(name) is None:
        raise SpecError(
            explain(what, f"{name[:80]!r} is not a name", allowed="a letter, then at most 55 letters, digits and _")
        )
    return name


def checked_run(run_id: str) -> str:
    """An MLflow run's id.

    Raises:
        NotFoundError: it cannot be one; nothing was asked of MLflow.
    """
    if _RUN.fullmatch(run_id) is None:
        raise NotFoundError(explain("MLflow", f"{run_id[:80]!r} is no run", allowed="32 hexadecimal digits"))
    return run_id


def checked_sha256(what: str, digest: str) -> str:
    """A SHA-256, which names files and folders.

    Raises:
        IntegrityError: it is none.
    """
    if _SHA256.fullmatch(digest) is None:
        raise IntegrityError(explain(what, f"{digest[:80]!r} is no SHA-256", allowed="64 hexadecimal digits"))
    return digest


def checked_tags(where: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Tags for a run or a version, cut off where they are long.

    Raises:
        SpecError: a name is not one of ours, or a value is not text of one piece.
    """
    for name, value in tags.items():
        if _TAG.fullmatch(name) is None or not isinstance(value, str) or "\0" in value:
            raise SpecError(
                explain(where, f"{name[:80]!r} is no tag", allowed="overnight.<small letters, digits, _ and .>")
            )
    return {name: value[:MOST_CHARACTERS] for name, value in tags.items()}


def assembled(where: str, run: Mapping[str, str], given: Mapping[str, str], run_id: str) -> dict[str, str]:
    """The tags of a version but those of its artifact and signatures: the run's own, and what the caller knows.

    Raises:
        IntegrityError: one is missing; nothing was written.
    """
    tags = {name: run[name] for name in OF_RUN if name in run} | checked_tags(where, given)
    version = tags.get("overnight.code_version", "")
    # Of a training here, teacher and student come from one run.
    tags = {"overnight.teacher_run": run_id, "overnight.code_dirty": _dirty(version), **tags}
    require(where, {**tags, **dict.fromkeys(_MADE_HERE, "later")})
    return tags


def require(where: str, tags: Mapping[str, str]) -> None:
    """Checks that a version would have everything that it must have.

    Raises:
        IntegrityError: naming what is missing.
    """
    if missing := [name for name in REQUIRED if not tags.get(name)]:
        raise IntegrityError(
            explain(where, f"no version without {', '.join(missing)}", remedy="register through `overnight` or its DAG")
        )


def _dirty(code_version: str) -> str:
    return "unknown" if code_version in ("", "unknown") else str(code_version.endswith("+dirty")).lower()


def model_ref(version: Any) -> ModelRef | None:
    """What an MLflow version is to Overnight; None when somebody else made it, or spoiled its tags."""
    digest, run_id = version.tags.get(DIGEST, ""), version.tags.get(RUN_ID, "")
    if _SHA256.fullmatch(digest) is None or _RUN.fullmatch(run_id) is None:
        return None
    return ModelRef(name=version.name, version=int(version.version), run_id=run_id, digest=digest)


def artifact_place(digest: str) -> str:
    """Where a run holds a sealed artifact."""
    return f"artifact/{digest[:16]}"


def signature_place(sha256: str) -> str:
    """Where a run holds a signature: named by its own digest, so that none is ever written over."""
    return f"signature/{sha256}.json"
