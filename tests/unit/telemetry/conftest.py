"""A use case with a champion, nights that it scored, one of them drifted far, and decisions about them."""

from __future__ import annotations

import polars as pl
import pytest

from pipelines.runtime import Runtime
from tests.cases.champions import DAYS, Champions
from tests.unit.steps.test_watching import champion, publish, score

AS_OF, WINDOW = DAYS[11], 4


@pytest.fixture(scope="module")
def watched(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The newest partition is the drifted one."""
    retraining = {"min_labels": 100, "cooldown": 1, "share": 0.25}
    changes = {"drift": {"min_rows": 100, "window": WINDOW}, "features": {"slices": ["site"]}, "retraining": retraining}
    made = champion(registered, tmp_path_factory.mktemp("watched"), **changes)
    head = made.store.head("rows")
    assert head is not None
    rows = made.store.scan(head, [AS_OF]).drop("partition").collect()
    publish(made, "rows", {AS_OF: rows.with_columns(pl.col("pressure") + 3, site=pl.lit("north"))})
    score(made, [AS_OF])
    for day in (DAYS[10], AS_OF):
        seen = made.observe(day)
        made.alert(seen, made.decide(seen))
    return made


def environment(runtime: Runtime) -> dict[str, str]:
    """What a shell would set for this use case."""
    told = runtime.settings
    return {
        "OVERNIGHT_PROJECT": str(told.project),
        "OVERNIGHT_HOME": str(told.home),
        "OVERNIGHT_CODE_VERSION": "test",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
