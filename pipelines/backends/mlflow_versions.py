"""Making a model version: everything that it names comes first, the version itself by one call, and last the tidying.

    register ->  mark on the run  ->  MLflow form and both signatures  ->  THE VERSION  ->  what dead ones left goes
                 (register.marked)    (.opened .uploaded .signed)          (.made)          (.tidied)

A process that dies before THE VERSION leaves what no version names; the next registration of the run, or `sweep`,
removes that. One that dies after it left a whole version.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import artifacts
from pipelines.backends.mlflow_loads import stored_artifact
from pipelines.backends.mlflow_model import save
from pipelines.backends.mlflow_names import (
    DIGEST,
    MLFLOW_SIGNATURE,
    MODEL_ID,
    RUN_ID,
    SIGNATURE,
    WRITING,
    require,
    signature_place,
)
from pipelines.backends.mlflow_orphans import every_version, find_orphans
from pipelines.failpoints import failpoint
from pipelines.ports import Signer


def make_version(
    client: Any,
    signer: Signer,
    use_case: str,
    name: str,
    run: Any,
    folder: Path,
    tags: Mapping[str, str],
    *,
    served: bool,
    mark: str,
) -> None:
    """Stores the MLflow form and both signatures, and makes the version that names them.

    Args:
        use_case: what the signatures name.
        name: the registered model.
        run: MLflow's run of the training.
        folder: the sealed artifact.
        tags: all but those that this adds.
        served: whether MLflow is a server.
        mark: see `mlflow_owners`.
    """
    run_id, digest = run.info.run_id, tags[DIGEST]
    client.set_tag(run_id, WRITING, mark)
    failpoint("register.marked")
    with tempfile.TemporaryDirectory(prefix="overnight-model-") as scratch:
        # The folder's name is signed with it, and what is signed is what was verified, not what the path holds later.
        sealed = Path(shutil.copytree(folder, Path(scratch) / "sealed" / use_case))
        artifacts.verify(sealed, digest)
        logged = client.create_logged_model(
            run.info.experiment_id, name, run_id, tags={DIGEST: digest, RUN_ID: run_id, WRITING: mark}
        )
        failpoint("register.opened")
        form = Path(scratch) / "form" / use_case
        form.parent.mkdir()
        save(sealed, form, run_id=run_id, model_id=logged.model_id, location=logged.artifact_location)
        client.log_model_artifacts(logged.model_id, str(form))
        failpoint("register.uploaded")
        signed = {
            SIGNATURE: store_signature(client, signer, run_id, sealed),
            MLFLOW_SIGNATURE: store_signature(client, signer, run_id, form),
        }
        failpoint("register.signed")
        stored_artifact(client, run_id, digest, Path(scratch))  # what the version will name is there, and whole
    client.finalize_logged_model(logged.model_id, "READY")
    complete = {**tags, **signed, MODEL_ID: logged.model_id}
    require(f"{use_case}: register run {run_id}", complete)
    client.create_model_version(
        name,
        # A server resolves the model's id by itself; without one, MLflow would ask a store of its global URI.
        source=f"models:/{logged.model_id}" if served else logged.artifact_location,
        run_id=run_id,
        model_id=logged.model_id,
        tags=complete,
    )
    failpoint("register.made")


def store_signature(client: Any, signer: Signer, run_id: str, folder: Path) -> str:
    """Signs a folder, stores the signature in the run and returns the signature's SHA-256."""
    with tempfile.TemporaryDirectory(prefix="overnight-signature-") as scratch:
        written = Path(scratch) / "signature.json"
        signer.sign(folder, written)
        sha256 = hashlib.sha256(written.read_bytes()).hexdigest()
        place = signature_place(sha256)
        named = written.rename(Path(scratch) / Path(place).name)
        client.log_artifact(run_id, str(named), str(Path(place).parent))
    return sha256


def settle(client: Any, uri: str, experiment: str, names: tuple[str, ...], run_id: str, mark: str) -> None:
    """Ends a registration: removes what dead ones of this run left, and links the run with its model."""
    from mlflow.entities import LoggedModelOutput

    while orphans := list(find_orphans(client, uri, experiment, names, run_id=run_id, mine=mark)):
        for orphan in orphans:
            orphan.remove()
    run = client.get_run(run_id)
    linked = {output.model_id for output in (run.outputs.model_outputs if run.outputs else ())}
    versions = every_version(client, names[-1], run_id) or every_version(client, names[0], run_id)
    made = versions[0].tags.get(MODEL_ID) if versions else None
    if made and made not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(made, step=0)])
    failpoint("register.tidied")


def copy_version(client: Any, source: str, version: int, target: str) -> None:
    """MLflow's own copy; what it would print is not said."""
    with contextlib.redirect_stderr(io.StringIO()):
        client.copy_model_version(f"models:/{source}/{version}", target)
