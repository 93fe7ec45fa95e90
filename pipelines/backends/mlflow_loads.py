"""Fetching an artifact: downloaded whole, its signature and every digest verified, then kept by its digest.

The copy is verified again at every call, and what is parsed later is compared with its digest once more as it is read
(`artifacts.read`): nobody can put other bytes between the check and the use.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines import artifacts
from pipelines.backends.mlflow_calls import mlflow_calls
from pipelines.backends.mlflow_names import SIGNATURE, artifact_place, checked_sha256, signature_place
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.ports import Signer
from pipelines.records import ModelRef

_UNSAFE = re.compile(r"[^a-z0-9_]")


def stored_artifact(client: Any, run_id: str, digest: str, scratch: Path) -> Path:
    """The artifact that a run holds, brought into a folder, every digest verified; whoever signed it.

    Raises:
        IntegrityError: it is not what was sealed.
        NotFoundError: the run holds none.
    """
    found = Path(client.download_artifacts(run_id, artifact_place(digest), str(scratch)))
    if not found.is_dir():
        raise NotFoundError(explain(f"run {run_id}", "it holds no artifact"))
    artifacts.verify(found, digest)
    return found


class Cache:
    """Verified artifacts on this machine, one a digest, their signatures, and which version each is."""

    def __init__(self, folder: Path, uri: str, use_case: str, signer: Signer) -> None:
        """Sets where things are.

        Args:
            folder: may be deleted at any time.
            uri: MLflow's tracking URI: versions of another server are other versions.
            use_case: whom the signature must name.
        """
        self._folder = folder
        self._store = hashlib.sha256(uri.encode()).hexdigest()[:8]
        self._use_case = use_case
        self._signer = signer

    def holds(self, model: ModelRef) -> bool:
        """Whether there is a copy, good or bad."""
        return self._artifact(model).exists() and self._signature(model).exists()

    def verified(self, model: ModelRef) -> Path:
        """The copy, verified now.

        Raises:
            IntegrityError: it is not what was registered and signed. The copy is gone: the next call fetches anew.
        """
        target = self._artifact(model)
        try:
            self._verify(target, self._signature(model), model)
        except IntegrityError:
            # The registry may hold the right bytes: the next call fetches them again.
            shutil.rmtree(target, ignore_errors=True)
            self._signature(model).unlink(missing_ok=True)
            raise
        return target

    def download(self, client: Any, model: ModelRef) -> None:
        """Brings artifact and signature here, if they are good.

        Raises:
            IntegrityError: they are not, or nobody signed it.
            NotFoundError: the run does not hold them.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._folder) as scratch:
            with mlflow_calls(f"{model.id}: fetch the artifact"):
                wanted = client.get_model_version(model.name, str(model.version)).tags.get(SIGNATURE)
                if wanted is None:
                    raise IntegrityError(
                        explain(
                            model.id,
                            "it is not signed: it was registered before Overnight signed models, or by somebody else",
                            remedy="train anew; or, if you know where it comes from, `overnight models "
                            f"{self._use_case} --sign {model.version} --reason ...`",
                        )
                    )
                checked_sha256(f"{model.id}: {SIGNATURE}", wanted)
                fetched = stored_artifact(client, model.run_id, model.digest, Path(scratch))
                signature = Path(client.download_artifacts(model.run_id, signature_place(wanted), scratch))
            if hashlib.sha256(signature.read_bytes()).hexdigest() != wanted:
                raise IntegrityError(explain(model.id, "the signature is not the one that was registered"))
            self._verify(fetched, signature, model)
            signature.replace(self._signature(model))
            try:
                fetched.rename(self._artifact(model))
            except OSError:
                # Another process was faster; what it put there is verified by whoever asked.
                if not self._artifact(model).exists():
                    raise

    def remember(self, model: ModelRef) -> None:
        """Keeps which version this is, so that it can be scored with while MLflow is away."""
        note = self._note(model.name, model.version)
        content = model.model_dump_json()
        if not note.exists() or note.read_text("utf-8") != content:
            partial = note.with_name(f".{note.name}.{secrets.token_hex(6)}")
            partial.write_text(content, "utf-8")
            partial.replace(note)

    def recall(self, name: str, version: int, run_id: str) -> ModelRef | None:
        """The version of this number, if a copy of it is here and this run made it: numbers can be given again."""
        try:
            found = ModelRef.model_validate_json(self._note(name, version).read_bytes())
        except (OSError, ValidationError):
            return None
        asked = (found.name, found.version, found.run_id) == (name, version, run_id)
        return found if asked and self.holds(found) else None

    def _verify(self, folder: Path, signature: Path, model: ModelRef) -> None:
        artifacts.verify(folder, model.digest)
        signed = self._signer.verify(folder, signature)
        if signed.name != self._use_case:
            raise IntegrityError(explain(model.id, f"the signature is of a model of {signed.name[:80]!r}"))
        if signed.files.get(artifacts.DIGESTS) != model.digest:
            raise IntegrityError(explain(model.id, "the signature is of another artifact"))

    def _artifact(self, model: ModelRef) -> Path:
        return self._folder / checked_sha256(f"{model.id}: digest", model.digest)

    def _signature(self, model: ModelRef) -> Path:
        return self._folder / f"{checked_sha256(f'{model.id}: digest', model.digest)}.signature.json"

    def _note(self, name: str, version: int) -> Path:
        return self._folder / f"{_UNSAFE.sub('', name)}@{int(version)}.{self._store}.json"
