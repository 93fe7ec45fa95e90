"""The flights on lakeFS: the same chain, by changing one word of the spec."""

from __future__ import annotations

import secrets

import pytest
from pydantic import SecretStr

from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from tests.cases import Case, make_flights_case
from tests.chain.conftest import HISTORY, NIGHTS, TRAINED, ingest, score, settings_of, train
from tests.servers.lakefs import LakeFS

_NIGHT = NIGHTS[0]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("on_lakefs")
    return make_flights_case(root / "project", root / "landing", changes={**TRAINED, "snapshot": "lakefs"})


@pytest.fixture(scope="module")
def settings(case: Case, lakefs_server: LakeFS, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A repository of the test's own on the session's server."""
    return settings_of(case, tmp_path_factory.mktemp("home") / "var").model_copy(
        update={
            "lakefs_endpoint": lakefs_server.endpoint,
            "lakefs_access_key_id": lakefs_server.access_key_id,
            "lakefs_secret_access_key": SecretStr(lakefs_server.secret_access_key),
            "lakefs_storage": lakefs_server.storage,
            "lakefs_prefix": f"t{secrets.token_hex(6)}-",
        }
    )


def test_the_chain_runs_on_lakefs_by_changing_one_word_of_the_spec(case: Case, settings: Settings) -> None:
    def runtime(run: str) -> Runtime:
        return Runtime.open("flights", run=RunInfo(run_id=run, dag_id="test", code_version="test"), settings=settings)

    history = runtime("history")
    ingest(history, history.span(*HISTORY))
    assert train(runtime("training"), HISTORY[1]) == 1
    night = runtime("night")
    ingest(night, [_NIGHT])
    assert score(night, [_NIGHT]) == ("published",)
    assert score(runtime("again"), [_NIGHT]) == ("unchanged",)

    store = runtime("reader").store
    head = store.head("predictions")
    assert head is not None
    assert head.store == "lakefs"
    predictions = store.scan(head).collect()
    rows = store.scan(store.head("rows"), [_NIGHT]).collect()
    assert predictions.height == rows.height == predictions.n_unique("flight_id")

    assert runtime("replay").replay(_NIGHT).outcome == "identical"
    traced = runtime("trace").trace(f"flights/predictions/{_NIGHT}").model_dump_json()
    assert "flights@1" in traced
    assert f"flights/date={_NIGHT}/flights.csv.gz" in traced
