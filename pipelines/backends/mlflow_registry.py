"""MLflow as tracking store and model registry: an SQLite file on this machine, or a server.

One use case is one experiment and one registered model of the same name; with staging, there is a second one named
`<use case>_staging`. MLflow's client is used throughout, never its fluent API, so that no process-wide run, experiment
or URI is touched.

A run holds the sealed artifact under `artifact/<first 16 digits of its digest>` and signatures under `signature/`; a
new try never writes over an older one. A model version is made, with its tags, by one call (see `mlflow_versions`):
what a crash left before that call is never read, and is removed by the next registration or by `sweep`.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import artifacts
from pipelines.backends import mlflow_searches
from pipelines.backends.mlflow_calls import connect, mlflow_calls, one_at_a_time
from pipelines.backends.mlflow_loads import Cache, stored_artifact
from pipelines.backends.mlflow_names import (
    DIGEST,
    MODEL_ID,
    RUN_ID,
    SIGNATURE,
    STAGING,
    TRAINING_KEY,
    WRITING,
    artifact_place,
    assembled,
    checked_name,
    checked_run,
    checked_sha256,
    checked_tags,
    model_ref,
)
from pipelines.backends.mlflow_orphans import aliases_of, every_version, find_orphans, remove_mark
from pipelines.backends.mlflow_owners import writing
from pipelines.backends.mlflow_trainings import list_trainings
from pipelines.backends.mlflow_versions import copy_version, make_version, settle, store_signature
from pipelines.errors import ConflictError, IntegrityError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Signer
from pipelines.records import ModelRef, Registered, SearchResult, TrainingRun, Trial
from pipelines.spec import UseCase
from pipelines.training.progress import network

EPOCH = "overnight.epoch"
"""On the registered model: the newest epoch of the promotion log that the aliases have followed."""


class MlflowRegistry:
    """Model versions and training runs of one use case. Nothing is contacted before the first call."""

    def __init__(self, use_case: str, tracking_uri: str, cache: Path, signer: Signer) -> None:
        """Sets where things are.

        Args:
            use_case: name of the experiment and of the registered model.
            tracking_uri: `sqlite:///<file>` (made when absent; artifacts lie beside it) or `http(s)://<server>`.
            cache: folder of fetched artifacts, one a digest; may be deleted at any time.
            signer: signs what is registered, and says what may be loaded.

        Raises:
            SpecError: the use case's name is no name.
        """
        self._name = checked_name("MLflow", use_case)
        self._uri = tracking_uri
        self._signer = signer
        self._cache = Cache(cache, tracking_uri, use_case, signer)
        self._client: Any = None

    def start_training(self, spec: UseCase, tags: Mapping[str, str]) -> str:
        """See `ModelRegistry.start_training`. Of two runs that were opened at once, the older one counts.

        On a database of this machine one process at a time looks and opens. On a server two may, for the moment between
        opening a run and seeing it, each take their own.
        """
        checked_tags(f"{self._name}: start a training run", tags)
        if (key := tags.get(TRAINING_KEY)) is not None:
            checked_sha256(TRAINING_KEY, key)
        experiment = self._experiment()
        with mlflow_calls(f"{self._name}: start a training run"), one_at_a_time(self._uri):
            if key is None or not (found := self._runs_of(experiment, key)):
                name = key[:12] if key else None
                made = self._mlflow().create_run(
                    experiment, tags={**tags, "overnight.use_case": spec.name}, run_name=name
                )
                found = (self._runs_of(experiment, key) if key else []) or [made]
                for other in found[1:]:
                    # One that was opened at the same time as another, or twice since its answer was lost.
                    if other.info.run_id == made.info.run_id or other.info.start_time == made.info.start_time:
                        self._mlflow().delete_run(other.info.run_id)
            return str(found[0].info.run_id)

    def log_progress(self, run_id: str, values: Mapping[str, float]) -> None:
        """See `ModelRegistry.log_progress`. The x axis is the network's step, so that what comes within an epoch lies
        between its ends. Speeds get their network's name: each network counts its own steps.
        """
        axis, name = int(values.get("step", values.get("epoch", 0))), network(values)
        prefix = f"{name}_" if name else ""
        logged = {
            f"{prefix}{key}" if key in ("rows_per_second", "eta_seconds") else key: value
            for key, value in values.items()
            if key not in ("epoch", "step")
        }
        self._log(run_id, logged, axis)

    def log_artifact(self, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """See `ModelRegistry.log_artifact`. A repeat of the same artifact uploads nothing."""
        digest = _sealed_digest(folder)
        checked_run(run_id)
        with mlflow_calls(f"{self._name}: store the artifact of run {run_id}"), writing() as mark:
            client = self._mlflow()
            if client.get_run(run_id).data.tags.get(DIGEST) == digest:
                return
            client.set_tag(run_id, WRITING, mark)
            client.log_artifacts(run_id, str(folder), artifact_place(digest))
            failpoint("artifact.uploaded")
            self._log(run_id, metrics, 0)
            client.set_terminated(run_id, "FINISHED")
            client.set_tag(run_id, DIGEST, digest)  # last: a run that has it is complete
            if len(client.list_artifacts(run_id, "artifact")) == 1:  # else a try before this one left something
                remove_mark(client, run_id, mark)

    def annotate(self, run_id: str, tags: Mapping[str, str]) -> None:
        """See `ModelRegistry.annotate`. MLflow keeps the first 5,000 characters of a tag."""
        with mlflow_calls(f"{self._name}: annotate run {run_id}"):
            client = self._mlflow()
            for name, value in checked_tags(f"annotate run {run_id}", tags).items():
                client.set_tag(run_id, name, value)

    def start_search(self, spec: UseCase, study: str, tags: Mapping[str, str]) -> str:
        """See `ModelRegistry.start_search`."""
        experiment = self._experiment()
        with mlflow_calls(f"{self._name}: start the search {study}"):
            return mlflow_searches.start(self._mlflow(), experiment, study, {**tags, "overnight.use_case": spec.name})

    def log_trial(self, run_id: str, trial: Trial) -> None:
        """See `ModelRegistry.log_trial`."""
        with mlflow_calls(f"{self._name}: trial {trial.index} of search {run_id}"):
            mlflow_searches.log_trial(self._mlflow(), run_id, trial)

    def end_search(self, run_id: str, result: SearchResult | None) -> None:
        """See `ModelRegistry.end_search`."""
        with mlflow_calls(f"{self._name}: end the search {run_id}"):
            mlflow_searches.end(self._mlflow(), run_id, result)

    def register(self, spec: UseCase, run_id: str, folder: Path, tags: Mapping[str, str]) -> ModelRef:
        """See `ModelRegistry.register`. The model is a plain ONNX flavor that MLflow's users load without Overnight.

        Raises:
            IntegrityError: the folder is not what `log_artifact` stored in the run, or a required tag is missing.
            NotFoundError: there is no such run.
        """
        where = f"{self._name}: register run {run_id}"
        digest, checked = _sealed_digest(folder), checked_tags(where, tags)
        checked_run(run_id)
        name = self._names[-1] if "staging" in spec.stages else self._name
        with mlflow_calls(where), writing() as mark:
            client = self._mlflow()
            run = client.get_run(run_id)
            stored = run.data.tags.get(DIGEST)
            if stored != digest:
                raise IntegrityError(
                    explain(
                        f"{self._name} run {run_id}",
                        f"the artifact to register is {digest}, the run holds {stored}",
                        remedy="store the artifact in the run first",
                    )
                )
            if not every_version(client, name, run_id):
                complete = assembled(where, run.data.tags, checked, run_id) | {DIGEST: digest, RUN_ID: run_id}
                self._ensure_model(spec, name)
                make_version(
                    client,
                    self._signer,
                    self._name,
                    name,
                    run,
                    folder,
                    complete,
                    served=self._served,
                    mark=mark,
                )
            settle(client, self._uri, run.info.experiment_id, self._names, run_id, mark)
            # Two that registered the same run at once both see both versions now: the older one counts.
            return _oldest(client, name, run_id)

    def release(self, model: ModelRef) -> ModelRef:
        """See `ModelRegistry.release`."""
        if model.name == self._name:
            return model
        if model.name != self._names[-1]:
            raise NotFoundError(explain(model.id, f"it is no model of {self._name}"))
        self.fetch(model)
        with mlflow_calls(f"{model.id}: release"), writing() as mark:
            client = self._mlflow()
            staged = client.get_model_version(model.name, str(model.version))
            if not every_version(client, self._name, model.run_id):
                copy_version(client, model.name, model.version, self._name)
                failpoint("release.copied")
            experiment = client.get_run(model.run_id).info.experiment_id
            settle(client, self._uri, experiment, self._names, model.run_id, mark)
            copy = client.get_model_version(self._name, str(_oldest(client, self._name, model.run_id).version))
        for tag in (DIGEST, RUN_ID, SIGNATURE, MODEL_ID):
            if copy.tags.get(tag) != staged.tags.get(tag):
                raise IntegrityError(
                    explain(
                        f"{self._name}@{copy.version}",
                        f"its {tag} is {copy.tags.get(tag)!r}, that of {model.id} is {staged.tags.get(tag)!r}",
                        remedy="see who changed the tags; remove the version and release again",
                    )
                )
        released = model_ref(copy)
        assert released is not None
        return released

    def vouch(self, model: ModelRef, reason: str) -> None:
        """See `ModelRegistry.vouch`."""
        with mlflow_calls(f"{model.id}: sign"), tempfile.TemporaryDirectory(prefix="overnight-sign-") as scratch:
            client = self._mlflow()
            fetched = stored_artifact(client, model.run_id, model.digest, Path(scratch))
            folder = fetched.rename(Path(scratch) / self._name)
            sha256 = store_signature(client, self._signer, model.run_id, folder)
            client.set_model_version_tag(model.name, str(model.version), "overnight.vouched", reason[:500])
            client.set_model_version_tag(model.name, str(model.version), SIGNATURE, sha256)

    def sweep(self, *, dry_run: bool) -> tuple[str, ...]:
        """See `ModelRegistry.sweep`."""
        removed: list[str] = []
        with mlflow_calls(f"{self._name}: sweep"):
            client = self._mlflow()
            if (experiment := client.get_experiment_by_name(self._name)) is None:
                return ()
            while orphans := list(find_orphans(client, self._uri, experiment.experiment_id, self._names)):
                removed += [orphan.name for orphan in orphans]
                if dry_run:
                    break
                for orphan in orphans:
                    orphan.remove()
        return tuple(removed)

    def log_review(self, run_id: str, folder: Path) -> None:
        """See `ModelRegistry.log_review`."""
        with mlflow_calls(f"{self._name}: store the review of run {run_id}"):
            self._mlflow().log_artifacts(run_id, str(folder), "review")

    def describe(self, model: ModelRef, markdown: str) -> None:
        """See `ModelRegistry.describe`."""
        with mlflow_calls(f"{model.id}: describe"):
            self._mlflow().update_model_version(model.name, str(model.version), markdown)

    def get(self, version: int, *, staged: bool = False) -> ModelRef:
        """See `ModelRegistry.get`."""
        name = self._names[-1] if staged else self._name
        with mlflow_calls(f"{name}: version {version}"):
            found = model_ref(self._mlflow().get_model_version(name, str(int(version))))
        if found is None:
            raise NotFoundError(
                explain(
                    f"{name} version {version}",
                    f"it has no tag {DIGEST}: Overnight did not register it",
                    remedy=f"choose one of `overnight models {self._name}`",
                )
            )
        return found

    def resolve(self, version: int, run_id: str) -> ModelRef:
        """See `ModelRegistry.resolve`."""
        if run_id and (known := self._cache.recall(self._name, version, run_id)) is not None:
            return known
        found = self.get(version)
        if run_id and found.run_id != run_id:
            raise IntegrityError(
                explain(
                    found.id,
                    f"MLflow says that run {found.run_id} made it; it was promoted as a model of run {run_id}",
                    remedy="see who changed the registry; roll back to another version",
                )
            )
        return found

    def versions(self, *, staged: bool = False) -> list[ModelRef]:
        """See `ModelRegistry.versions`."""
        return [entry.model for entry in self.registered(staged=staged)]

    def registered(self, *, staged: bool = False) -> list[Registered]:
        """See `ModelRegistry.registered`."""
        name = self._names[-1] if staged else self._name
        found = []
        with mlflow_calls(f"{name}: list the versions"):
            versions = every_version(self._mlflow(), name)
            aliases = aliases_of(self._mlflow(), name) if versions else {}
            for version in versions:
                if (model := model_ref(version)) is not None:
                    named, tags = aliases.get(model.version, ()), dict(sorted(version.tags.items()))
                    found.append(Registered(model=model, aliases=named, tags=tags))
        return found

    def trainings(self) -> list[TrainingRun]:
        """See `ModelRegistry.trainings`. Runs that others made in the experiment are left out."""
        with mlflow_calls(f"{self._name}: list the trainings"):
            made = [(entry.model, entry.tags) for entry in self.registered()]
            return list_trainings(self._mlflow(), self._name, TRAINING_KEY, made)

    def fetch(self, model: ModelRef) -> Path:
        """See `ModelRegistry.fetch`. A copy in the cache is verified again on every call, without asking MLflow."""
        if model.name not in self._names:
            raise NotFoundError(explain(model.id, f"it is no model of {self._name}"))
        checked_run(model.run_id)
        if not self._cache.holds(model):
            self._cache.download(self._mlflow(), model)
        folder = self._cache.verified(model)
        self._cache.remember(model)
        return folder

    def alias(self, name: str, *, staged: bool = False) -> int | None:
        """See `ModelRegistry.alias`."""
        checked_name(f"{self._name}: alias", name)
        model = self._names[-1] if staged else self._name
        try:
            with mlflow_calls(f"{model}: alias {name}"):
                version = self._mlflow().get_registered_model(model).aliases.get(name)
        except NotFoundError:
            return None
        return None if version is None else int(version)

    def set_alias(self, name: str, version: int | None, *, staged: bool = False) -> None:
        """See `ModelRegistry.set_alias`.

        Raises:
            NotFoundError: there is no such version.
        """
        checked_name(f"{self._name}: alias", name)
        model = self._names[-1] if staged else self._name
        if version is not None:
            self.get(version, staged=staged)
        elif self.alias(name, staged=staged) is None:
            return
        with mlflow_calls(f"{model}: move alias {name}"):
            if version is None:
                self._mlflow().delete_registered_model_alias(model, name)
            else:
                self._mlflow().set_registered_model_alias(model, name, str(version))

    def epoch(self) -> int:
        """See `ModelRegistry.epoch`.

        Raises:
            IntegrityError: somebody wrote something else there.
        """
        try:
            with mlflow_calls(f"{self._name}: the epoch followed"):
                noted = self._mlflow().get_registered_model(self._name).tags.get(EPOCH, "0")
        except NotFoundError:
            return 0
        if not (noted.isascii() and noted.isdigit()):
            raise IntegrityError(
                explain(f"{self._name}: tag {EPOCH}", f"{noted!r} is no epoch", remedy="delete the tag in MLflow")
            )
        return int(noted)

    def set_epoch(self, epoch: int) -> None:
        """See `ModelRegistry.set_epoch`."""
        with mlflow_calls(f"{self._name}: note the epoch followed"):
            self._mlflow().set_registered_model_tag(self._name, EPOCH, str(epoch))

    def url(self, run_id: str) -> str | None:
        """See `ModelRegistry.url`."""
        if not self._served:
            return None
        with mlflow_calls(f"{self._name}: run {run_id}"):
            experiment = self._mlflow().get_run(run_id).info.experiment_id
        return f"{self._uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    @property
    def _names(self) -> tuple[str, str]:
        """The registered models: what is served, and where a version waits for its promotion."""
        return self._name, f"{self._name}{STAGING}"

    @property
    def _served(self) -> bool:
        return self._uri.startswith(("http://", "https://"))

    def _mlflow(self) -> Any:
        if self._client is None:
            self._client = connect(self._uri)
        return self._client

    def _experiment(self) -> str:
        with mlflow_calls(f"{self._name}: open the experiment"):
            client = self._mlflow()
            if (found := client.get_experiment_by_name(self._name)) is not None:
                return str(found.experiment_id)
            try:
                return str(client.create_experiment(self._name, artifact_location=_artifacts_beside(self._uri)))
            except Exception:
                # Two trainers may open the first experiment at once: the other's is as good.
                if (found := client.get_experiment_by_name(self._name)) is not None:
                    return str(found.experiment_id)
                raise

    def _runs_of(self, experiment: str, key: str) -> list[Any]:
        """Oldest first."""
        words = f"tags.`{TRAINING_KEY}` = '{key}'"
        found = self._mlflow().search_runs([experiment], words, order_by=["attributes.start_time ASC"])
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _log(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        with mlflow_calls(f"{self._name}: log metrics of run {run_id}"):
            from mlflow.entities import Metric

            now = time.time_ns() // 1_000_000
            logged = [Metric(name, float(value), now, step) for name, value in values.items()]
            self._mlflow().log_batch(run_id, metrics=logged)

    def _ensure_model(self, spec: UseCase, name: str) -> None:
        client = self._mlflow()
        try:
            client.create_registered_model(name, description=f"{spec.title}. {spec.description}")
        except Exception:
            # It exists already, or another trainer made it a moment ago; any other reason shows here.
            client.get_registered_model(name)


def _oldest(client: Any, name: str, run_id: str) -> ModelRef:
    """The version that counts of a run.

    Raises:
        ConflictError: it was there a moment ago.
    """
    found = [ref for version in every_version(client, name, run_id) if (ref := model_ref(version)) is not None]
    if not found:
        raise ConflictError(explain(f"{name}: run {run_id}", "its version was removed at this moment"))
    return found[0]


def _sealed_digest(folder: Path) -> str:
    """The digest of a folder that is exactly as sealed."""
    digests = folder / artifacts.DIGESTS
    if digests.is_symlink() or not digests.is_file():
        raise IntegrityError(explain(f"artifact {folder}", "it is not sealed"))
    digest = hashlib.sha256(digests.read_bytes()).hexdigest()
    artifacts.verify(folder, digest)
    return digest


def _artifacts_beside(uri: str) -> str | None:
    """An SQLite store keeps artifacts in `artifacts/` beside its file; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()
