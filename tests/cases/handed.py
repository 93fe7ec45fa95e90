"""Small predictions on their way to somebody, and predictions that a store holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import SecretStr, TypeAdapter

from pipelines.backends.sink_files import FileSink
from pipelines.backends.sink_postgres import PostgresSink
from pipelines.ports import Consignment, Draft, Sink, SnapshotStore
from pipelines.records import Prediction, RunInfo, SnapshotRef
from pipelines.spec import Delivery, UseCase
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.orders import SPEC
from tests.contracts.stores import audit

RUN = RunInfo(run_id="night", dag_id="uc_score", code_version="abc")
DAY, NEXT = "2024-03-01", "2024-03-02"
AT = datetime(2024, 3, 2, 4, 30, tzinfo=UTC)
#: What no log, error, record or file may hold.
CANARY = "canary-w0rd"


def rows(*scores: float, version: int = 1) -> pl.DataFrame:
    """Predictions, one a score."""
    return pl.DataFrame(
        {
            "order": [f"o-{index}" for index in range(len(scores))],
            "score": pl.Series(scores, dtype=pl.Float32),
            "prediction": [score >= 0.5 for score in scores],
            "model_version": pl.Series([version] * len(scores), dtype=pl.Int64),
            "scored_at": pl.Series([AT] * len(scores), dtype=pl.Datetime("us", "UTC")),
        },
        schema_overrides={"order": pl.String, "prediction": pl.Boolean},
    )


def consignment(
    frame: pl.DataFrame,
    key: str,
    partition: str = DAY,
    *,
    delivery: str = "crm",
    batch: int = 2,
    before: str | None = None,
) -> Consignment:
    """These rows on their way, a few at a time."""
    snapshot = SnapshotRef(store="delta", use_case="uc", table=PREDICTIONS, version="3")
    prediction = Prediction(
        partition=partition,
        model_version=1,
        inputs=(),
        rows_in=frame.height,
        rows_scored=frame.height,
        digest="d" * 64,
        state="published",
        snapshot=snapshot,
    )
    return Consignment(
        use_case="uc",
        delivery=delivery,
        prediction=prediction,
        key=key * 64 if len(key) == 1 else key,
        rows=lambda: iter(frame.iter_slices(batch)),
        schema=frame.schema,
        run=RUN,
        before=before,
    )


def delivery_of(**said: Any) -> Any:
    """A delivery as a spec says it."""
    return TypeAdapter(Delivery).validate_python({"name": "crm", "target": "there", **said})


def file_sink(root: Path | str, cache: Path, **said: Any) -> FileSink:
    """Files below a folder or a prefix."""
    return FileSink(delivery_of(sink="files", **said), SecretStr(str(root)), "uc", cache)


def postgres_sink(address: str, schema: str, **said: Any) -> PostgresSink:
    """Rows of `<schema>.scores`."""
    told = {"table": "scores", "db_schema": schema, **said}
    return PostgresSink(delivery_of(sink="postgres", **told), SecretStr(address))


def spec_with(*deliveries: dict[str, Any]) -> UseCase:
    """The use case of orders, with deliveries."""
    return SPEC.model_copy(update={"delivery": tuple(delivery_of(**one) for one in deliveries)})


def publish(store: SnapshotStore, frames: dict[str, pl.DataFrame], *, wider: bool = False) -> None:
    """Publishes predictions in one commit, with the provenance that scoring gives."""
    staged = store.stage(PREDICTIONS, [Draft(partition=key, frame=frame) for key, frame in frames.items()], RUN)
    made = {key: {"model": int(frame["model_version"][0]), "inputs": key} for key, frame in frames.items()}
    provenance = {"model": "uc@1", "snapshots": ["delta:uc/rows@0"], "predictions": made}
    reports = [audit(part) for part in staged]
    store.publish(PREDICTIONS, staged, reports, RUN, provenance=provenance, wider=wider)


def known(partitions: Sequence[str], store: SnapshotStore) -> tuple[Prediction, ...]:
    """What is published of these partitions, as a scoring run tells it."""
    from pipelines.steps.delivery import published

    return published(store, partitions)


def deliver_by(sink: Sink, frame: pl.DataFrame, key: str, **more: Any) -> str:
    """Hands rows over; what became of them."""
    return sink.deliver(consignment(frame, key, **more)).state
