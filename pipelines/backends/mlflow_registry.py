"""MLflow as tracking store and model registry: an SQLite file on this machine, or a server.

One use case is one experiment and one registered model of the same name. MLflow's client is used throughout, never its
fluent API, so that no process-wide run, experiment or URI is touched.

A run holds the sealed artifact under `artifact/<first 16 digits of its digest>`; a new try never writes over an older
one. A model version is made, with its tags, by one call: it counts when it has the tags `overnight.digest` and a run,
and what a crash left before that call (a logged model, an upload) is never read.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import artifacts
from pipelines.backends import mlflow_searches
from pipelines.backends.mlflow_calls import connect, mlflow_calls
from pipelines.backends.mlflow_model import save
from pipelines.backends.mlflow_trainings import list_trainings
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.records import ModelRef, SearchResult, TrainingRun, Trial
from pipelines.spec import UseCase
from pipelines.training.progress import network

TRAINING_KEY = "overnight.training_key"
DIGEST = "overnight.digest"
RUN_ID = "overnight.run_id"
EPOCH = "overnight.epoch"


class MlflowRegistry:
    """Model versions and training runs of one use case. Nothing is contacted before the first call."""

    def __init__(self, use_case: str, tracking_uri: str, cache: Path) -> None:
        """Sets where things are.

        Args:
            use_case: name of the experiment and of the registered model.
            tracking_uri: `sqlite:///<file>` (made when absent; artifacts lie beside it) or `http(s)://<server>`.
            cache: folder of fetched artifacts, one a digest; may be deleted at any time.
        """
        self._name = use_case
        self._uri = tracking_uri
        self._cache = cache
        self._client: Any = None

    def start_training(self, spec: UseCase, tags: Mapping[str, str]) -> str:
        """See `ModelRegistry.start_training`. Of two runs that were opened at once, the older one counts."""
        key = tags.get(TRAINING_KEY)
        experiment = self._experiment()
        with mlflow_calls(f"{self._name}: start a training run"):
            if key is None or not (found := self._runs_of(experiment, key)):
                name = key[:12] if key else None
                made = self._mlflow().create_run(
                    experiment, tags={**tags, "overnight.use_case": spec.name}, run_name=name
                )
                found = (self._runs_of(experiment, key) if key else []) or [made.info.run_id]
            return found[0]

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
        with mlflow_calls(f"{self._name}: store the artifact of run {run_id}"):
            client = self._mlflow()
            if client.get_run(run_id).data.tags.get(DIGEST) == digest:
                return
            client.log_artifacts(run_id, str(folder), _place(digest))
        self._log(run_id, metrics, 0)
        with mlflow_calls(f"{self._name}: finish run {run_id}"):
            client.set_tag(run_id, DIGEST, digest)
            client.set_terminated(run_id, "FINISHED")

    def annotate(self, run_id: str, tags: Mapping[str, str]) -> None:
        """See `ModelRegistry.annotate`. MLflow keeps the first 5,000 characters of a tag."""
        with mlflow_calls(f"{self._name}: annotate run {run_id}"):
            client = self._mlflow()
            for name, value in tags.items():
                client.set_tag(run_id, name, value[:5000])

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
            IntegrityError: the folder is not what `log_artifact` stored in the run.
            NotFoundError: there is no such run.
        """
        digest = _sealed_digest(folder)
        with mlflow_calls(f"{self._name}: register run {run_id}"):
            client = self._mlflow()
            stored = client.get_run(run_id).data.tags.get(DIGEST)
            if stored != digest:
                raise IntegrityError(
                    explain(
                        f"{self._name} run {run_id}",
                        f"the artifact to register is {digest}, the run holds {stored}",
                        remedy="store the artifact in the run first",
                    )
                )
            if found := self._versions(run_id):
                return found[0]
            self._ensure_model(spec)
            logged = self._logged_model(run_id, folder, digest)
            client.create_model_version(
                self._name,
                # A server resolves the model's id by itself; without one, MLflow would ask a store of its global URI.
                source=f"models:/{logged.model_id}" if self._served else logged.artifact_location,
                run_id=run_id,
                model_id=logged.model_id,
                tags={**tags, DIGEST: digest, RUN_ID: run_id},
            )
            # Two that registered the same run at once both see both versions now: the older one counts.
            return self._versions(run_id)[0]

    def log_review(self, run_id: str, folder: Path) -> None:
        """See `ModelRegistry.log_review`."""
        with mlflow_calls(f"{self._name}: store the review of run {run_id}"):
            self._mlflow().log_artifacts(run_id, str(folder), "review")

    def describe(self, model: ModelRef, markdown: str) -> None:
        """See `ModelRegistry.describe`."""
        with mlflow_calls(f"{model.id}: describe"):
            self._mlflow().update_model_version(model.name, str(model.version), markdown)

    def get(self, version: int) -> ModelRef:
        """See `ModelRegistry.get`."""
        with mlflow_calls(f"{self._name}: version {version}"):
            found = _model_ref(self._mlflow().get_model_version(self._name, str(version)))
        if found is None:
            raise NotFoundError(
                explain(
                    f"{self._name} version {version}",
                    f"it has no tag {DIGEST}: Overnight did not register it",
                    remedy="choose one of `overnight models`",
                )
            )
        return found

    def versions(self) -> list[ModelRef]:
        """See `ModelRegistry.versions`."""
        with mlflow_calls(f"{self._name}: list the versions"):
            return self._versions()

    def trainings(self) -> list[TrainingRun]:
        """See `ModelRegistry.trainings`. Runs that others made in the experiment are left out."""
        with mlflow_calls(f"{self._name}: list the trainings"):
            return list_trainings(self._mlflow(), self._name, TRAINING_KEY, self._tagged_versions())

    def fetch(self, model: ModelRef) -> Path:
        """See `ModelRegistry.fetch`. A copy in the cache is verified again on every call."""
        target = self._cache / model.digest
        if not target.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._cache) as scratch:
                with mlflow_calls(f"{model.id}: fetch the artifact"):
                    fetched = Path(self._mlflow().download_artifacts(model.run_id, _place(model.digest), scratch))
                if not fetched.is_dir():
                    raise NotFoundError(explain(model.id, f"run {model.run_id} holds no artifact"))
                artifacts.verify(fetched, model.digest)
                try:
                    fetched.rename(target)
                except OSError:
                    # Another process was faster; what it put there is verified below.
                    if not target.exists():
                        raise
        try:
            artifacts.verify(target, model.digest)
        except IntegrityError:
            # The registry may hold the right bytes: the next call fetches them again.
            shutil.rmtree(target, ignore_errors=True)
            raise
        return target

    def alias(self, name: str) -> int | None:
        """See `ModelRegistry.alias`."""
        try:
            with mlflow_calls(f"{self._name}: alias {name}"):
                version = self._mlflow().get_registered_model(self._name).aliases.get(name)
        except NotFoundError:
            return None
        return None if version is None else int(version)

    def set_alias(self, name: str, version: int | None) -> None:
        """See `ModelRegistry.set_alias`.

        Raises:
            NotFoundError: there is no such version.
        """
        if version is not None:
            self.get(version)
        elif self.alias(name) is None:
            return
        with mlflow_calls(f"{self._name}: move alias {name}"):
            if version is None:
                self._mlflow().delete_registered_model_alias(self._name, name)
            else:
                self._mlflow().set_registered_model_alias(self._name, name, str(version))

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

    def _runs_of(self, experiment: str, key: str) -> list[str]:
        words = f"tags.`{TRAINING_KEY}` = '{key}'"
        found = self._mlflow().search_runs([experiment], words, order_by=["attributes.start_time ASC"])
        return [run.info.run_id for run in sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))]

    def _log(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        with mlflow_calls(f"{self._name}: log metrics of run {run_id}"):
            from mlflow.entities import Metric

            now = time.time_ns() // 1_000_000
            logged = [Metric(name, float(value), now, step) for name, value in values.items()]
            self._mlflow().log_batch(run_id, metrics=logged)

    def _ensure_model(self, spec: UseCase) -> None:
        client = self._mlflow()
        try:
            client.create_registered_model(self._name, description=f"{spec.title}. {spec.description}")
        except Exception:
            # It exists already, or another trainer made it a moment ago; any other reason shows here.
            client.get_registered_model(self._name)

    def _logged_model(self, run_id: str, folder: Path, digest: str) -> Any:
        """Stores the MLflow form of the artifact, finished, and returns MLflow's LoggedModel."""
        from mlflow.entities import LoggedModelOutput

        client = self._mlflow()
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment, self._name, run_id, tags={DIGEST: digest})
        with tempfile.TemporaryDirectory(prefix="overnight-model-") as scratch:
            local = Path(scratch) / "model"
            save(folder, local, run_id=run_id, model_id=logged.model_id, location=logged.artifact_location)
            client.log_model_artifacts(logged.model_id, str(local))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged

    def _versions(self, run_id: str | None = None) -> list[ModelRef]:
        return [ref for ref, _ in self._tagged_versions(run_id)]

    def _tagged_versions(self, run_id: str | None = None) -> list[tuple[ModelRef, dict[str, str]]]:
        """Oldest first."""
        found, token = [], None
        words = f"name = '{self._name}'" + (f" and run_id = '{run_id}'" if run_id else "")
        while True:
            page = self._mlflow().search_model_versions(words, page_token=token)
            found += [(ref, dict(version.tags)) for version in page if (ref := _model_ref(version)) is not None]
            if not (token := page.token):
                return sorted(found, key=lambda item: item[0].version)


def _model_ref(version: Any) -> ModelRef | None:
    digest = version.tags.get(DIGEST)
    run_id = version.tags.get(RUN_ID)
    if not digest or not run_id:
        return None
    return ModelRef(name=version.name, version=int(version.version), run_id=run_id, digest=digest)


def _place(digest: str) -> str:
    return f"artifact/{digest[:16]}"


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
