"""What a registration that died left behind: found by its mark, removed when nobody is writing it any more."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.backends.mlflow_names import (
    DIGEST,
    MLFLOW_SIGNATURE,
    MODEL_ID,
    RUN_ID,
    SIGNATURE,
    TRAINING_KEY,
    WRITING,
    artifact_place,
    model_ref,
    signature_place,
)
from pipelines.backends.mlflow_owners import abandoned

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """Something that no version and no run needs."""

    name: str
    """For a person."""
    removal: Callable[[], None]

    def remove(self) -> None:
        """Removes it; nothing happens when it is gone already."""
        with _gone_already():
            self.removal()


def every_version(client: Any, name: str, run_id: str | None = None) -> list[Any]:
    """MLflow's versions of a registered model that Overnight made, oldest first."""
    found, token = [], None
    words = f"name = '{name}'" + (f" and run_id = '{run_id}'" if run_id else "")
    while True:
        page = client.search_model_versions(words, page_token=token)
        found += [version for version in page if model_ref(version) is not None]
        if not (token := page.token):
            return sorted(found, key=lambda version: int(version.version))


def find_orphans(
    client: Any, uri: str, experiment: str, names: Sequence[str], *, run_id: str | None = None, mine: str | None = None
) -> Iterator[Orphan]:
    """Orphans of one run, or of all.

    Versions first: what they name is found when they are gone. So ask again until there are none.

    Args:
        uri: MLflow's tracking URI.
        experiment: the experiment's id.
        names: the registered models of the use case.
        mine: the mark of the registration that asks.
    """
    versions = [version for name in names for version in every_version(client, name, run_id)]
    models = _logged_models(client, experiment, run_id)
    found = list(_repeated(client, versions, {model.model_id: model for model in models}, mine))
    for model in models:
        named = any(_names(version, model) for version in versions)
        if not named and abandoned(model.tags.get(WRITING), model.creation_timestamp / 1000, mine):
            found.append(
                Orphan(
                    name=f"logged model {model.model_id} of run {model.source_run_id}, which no version names",
                    removal=partial(_remove_model, client, uri, model),
                )
            )
    yield from found
    for run in _marked_runs(client, experiment, run_id):
        mark = run.data.tags[WRITING]
        if not abandoned(mark, run.info.start_time / 1000, mine):
            continue
        files = list(_files(client, uri, run, [v for v in versions if v.tags[RUN_ID] == run.info.run_id]))
        yield from files
        if not found and not files:  # by the mark the rest is found
            name = f"the mark of a writer on run {run.info.run_id}"
            yield Orphan(name=name, removal=partial(remove_mark, client, run.info.run_id, mark))


def _repeated(client: Any, versions: Sequence[Any], models: dict[str, Any], mine: str | None) -> Iterator[Orphan]:
    """Second versions of one run: a request that was answered and whose answer was lost, or two at once."""
    by_run: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for version in versions:
        by_run[version.name, version.tags[RUN_ID]].append(version)
    for first, *others in by_run.values():
        for other in others:
            if other.aliases:
                continue
            model = models.get(other.tags.get(MODEL_ID, ""))
            same = MODEL_ID in other.tags and other.tags[MODEL_ID] == first.tags.get(MODEL_ID)
            if same or (model and abandoned(model.tags.get(WRITING), model.creation_timestamp / 1000, mine)):
                yield Orphan(
                    name=f"{other.name}@{other.version}, a second version of the run of {first.name}@{first.version}",
                    removal=partial(client.delete_model_version, other.name, str(other.version)),
                )


def _names(version: Any, model: Any) -> bool:
    source = str(version.source)
    return model.model_id in (version.tags.get(MODEL_ID), version.model_id) or source in (
        f"models:/{model.model_id}",
        model.artifact_location,
    )


def _logged_models(client: Any, experiment: str, run_id: str | None) -> list[Any]:
    words = f"source_run_id = '{run_id}'" if run_id else f"tags.`{DIGEST}` != ''"
    found, token = [], None
    while True:
        page = client.search_logged_models([experiment], words, page_token=token)
        found += [model for model in page if DIGEST in model.tags]
        if not (token := page.token):
            return found


def _marked_runs(client: Any, experiment: str, run_id: str | None) -> list[Any]:
    if run_id:
        run = client.get_run(run_id)
        return [run] if WRITING in run.data.tags else []
    found, token = [], None
    while True:
        page = client.search_runs([experiment], f"tags.`{WRITING}` != ''", page_token=token)
        found += [run for run in page if TRAINING_KEY in run.data.tags]
        if not (token := page.token):
            return found


def _files(client: Any, uri: str, run: Any, versions: Sequence[Any]) -> Iterator[Orphan]:
    """Artifacts and signatures in a run that neither it nor a version of it names."""
    run_id = run.info.run_id
    kept = {artifact_place(tags[DIGEST]) for tags in (run.data.tags, *(v.tags for v in versions)) if DIGEST in tags}
    for version in versions:
        kept |= {signature_place(version.tags.get(tag, "")) for tag in (SIGNATURE, MLFLOW_SIGNATURE)}
    for folder in ("artifact", "signature"):
        for entry in client.list_artifacts(run_id, folder):
            if entry.path not in kept:
                yield Orphan(
                    name=f"{entry.path} of run {run_id}, which nothing names",
                    removal=partial(_remove_files, uri, run.info.artifact_uri, entry.path),
                )


def _remove_model(client: Any, uri: str, model: Any) -> None:
    """Its files first: a crash between leaves what is found again."""
    _remove_files(uri, model.artifact_location, None)
    client.delete_logged_model(model.model_id)


def _remove_files(uri: str, root: str, path: str | None) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(root, tracking_uri=uri)
    try:
        repository.delete_artifacts(path)
    except (NotImplementedError, MlflowException) as error:
        # A store that deletes nothing (or nothing that is not there) keeps bytes that nothing names.
        _log.warning("%s of %s was not removed: %s", path or "everything", root, error)


def remove_mark(client: Any, run_id: str, mark: str) -> None:
    """Takes a writer's mark off a run, unless another writer has put its own there."""
    if client.get_run(run_id).data.tags.get(WRITING) == mark:
        with _gone_already():
            client.delete_tag(run_id, WRITING)


@contextmanager
def _gone_already() -> Iterator[None]:
    """Two may remove the same thing at once."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
