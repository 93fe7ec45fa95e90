"""A real night, delivered by the command line to files, to PostgreSQL and to a webhook."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from pipelines.cli import main
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from tests.cases.champions import DAYS, NAME, Champions
from tests.cases.handed import CANARY
from tests.servers.receiver import Receiver, receiving

DELIVERIES = [
    {"name": "files", "sink": "files", "target": "share", "format": "csv", "columns": ["id", "score", "model_version"]},
    {"name": "warehouse", "sink": "postgres", "target": "warehouse", "table": "valves"},
    {"name": "told", "sink": "webhook", "target": "planning", "backfills": False},
]
NIGHT, LATER = DAYS[8], DAYS[9]


@dataclass
class Business:
    """Who gets the scores of the night."""

    champions: Champions
    targets: dict[str, str]
    share: Path
    receiver: Receiver
    schema: str

    def overnight(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and everything that was printed."""
        env = {
            **os.environ,
            "OVERNIGHT_PROJECT": str(self.champions.project),
            "OVERNIGHT_HOME": str(self.champions.home),
            "OVERNIGHT_CODE_VERSION": "test",
            "OVERNIGHT_TARGETS": json.dumps(self.targets),
            "NO_PROXY": "127.0.0.1",
        }
        done = CliRunner().invoke(main, list(arguments), env=env)
        assert "Traceback" not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    def runtime(self, *, backfill: bool = False) -> Runtime:
        made = self.champions.runtime()
        settings = Settings(
            project=self.champions.project, home=self.champions.home, code_version="test", targets=self.targets
        )
        return Runtime(made.spec, settings, made.run.model_copy(update={"backfill": backfill}))

    def rows(self) -> list[tuple[str, int]]:
        with psycopg.connect(self.targets["warehouse"], autocommit=True) as connection:
            name = sql.Identifier(self.schema, "valves")
            query = sql.SQL("SELECT partition, count(*) FROM {} GROUP BY 1 ORDER BY 1").format(name)
            return connection.execute(query).fetchall()


@pytest.fixture
def business(
    registered: Champions, warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Business]:
    schema = f"c{secrets.token_hex(6)}"
    with psycopg.connect(warehouse, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    told = [{**one, "db_schema": schema} if one["sink"] == "postgres" else one for one in DELIVERIES]
    champions = registered.copy(tmp_path, delivery=told)
    champions.promote(1)
    (tmp_path / "share").mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as receiver:
        hook = receiver.address.replace("://", f"://me:{CANARY}@") + f"/{CANARY}"
        targets = {"share": str(tmp_path / "share"), "warehouse": warehouse, "planning": hook}
        yield Business(champions, targets, tmp_path / "share", receiver, schema)


def _score(runtime: Runtime, *partitions: str, version: int | None = None) -> None:
    runtime.publish_scores(runtime.audit_scores(runtime.score(partitions, version)))


def test_a_night_is_delivered_to_everybody_once_and_a_new_score_takes_its_place(business: Business) -> None:
    _score(business.runtime(), NIGHT, LATER)
    code, said = business.overnight("deliver", NAME, "--from", NIGHT, "--to", LATER)
    assert code == 0, said
    assert [line.split()[:3] for line in said.splitlines()] == [
        ["delivered", name, night] for name in ("files", "warehouse", "told") for night in (NIGHT, LATER)
    ]
    code, again = business.overnight("deliver", NAME, "--from", NIGHT, "--to", LATER)
    assert code == 0
    assert again.splitlines() == [line.replace("delivered", "unchanged", 1) for line in said.splitlines()]
    assert business.rows() == [(NIGHT, 150), (LATER, 150)]
    assert len(business.receiver.requests) == 2
    (file,) = business.share.glob(f"{NAME}/partition={NIGHT}/part-*.csv")
    predictions = business.runtime()
    head = predictions.store.head("predictions")
    assert head is not None
    published = predictions.store.scan(head, [NIGHT], ["id", "score", "model_version"]).drop("partition").collect()
    assert pl.read_csv(file, schema_overrides=published.schema).equals(published)
    # Another model, asked for by name, scores the night anew.
    _score(business.runtime(), NIGHT, version=2)
    code, said = business.overnight("deliver", NAME, "--partition", NIGHT, "--delivery", "files")
    assert said.split()[0] == "delivered"
    (file,) = business.share.glob(f"{NAME}/partition={NIGHT}/part-*.csv")
    assert pl.read_csv(file)["model_version"].unique().to_list() == [2]
    code, log = business.overnight("deliveries", NAME, "--delivery", "files")
    assert [line.split()[1:3] for line in log.splitlines()] == [[NIGHT, "#1"], [NIGHT, "#2"], [LATER, "#1"]]
    assert _handed(predictions, NIGHT) == [
        ["handed to files"],
        [f"handed to {one}" for one in ("files", "told", "warehouse")],
    ]
    everything = said + again + log + json.dumps([entry.model_dump(mode="json") for entry in predictions.deliveries()])
    password = business.targets["warehouse"].split(":")[2].split("@")[0]
    assert [word for word in (CANARY, password) if word in everything] == []


def _handed(runtime: Runtime, partition: str) -> list[list[str]]:
    """Who got what the partition holds now, and what it held before."""
    root = runtime.trace(f"{NAME}/predictions/{partition}").root
    before = [link for link in root.links if link.how == "before that"]
    return [[link.how for link in each.links if link.kind == "delivery"] for each in (root, *before)]


def test_a_backfill_goes_only_where_backfills_are_wanted(business: Business) -> None:
    runtime = business.runtime(backfill=True)
    _score(runtime, NIGHT)
    done = runtime.deliver(runtime.predicted([NIGHT]))
    assert [(one.delivery, one.state) for one in done] == [("files", "delivered"), ("warehouse", "delivered")]
    assert business.receiver.requests == []


def test_what_cannot_be_delivered_is_one_line_that_names_what_is_allowed(business: Business) -> None:
    code, said = business.overnight("deliver", NAME, "--partition", NIGHT)
    assert (code, said.startswith("NotFoundError: ")) == (1, True)
    _score(business.runtime(), NIGHT)
    code, said = business.overnight("deliver", NAME, "--from", NIGHT, "--to", LATER, "--delivery", "nobody")
    assert (code, "Allowed: files, warehouse, told" in said) == (1, True)
    assert f"no predictions of 1 partitions: {LATER}" in said
    business.targets["elsewhere"] = business.targets.pop("planning")
    code, said = business.overnight("deliver", NAME, "--partition", NIGHT)
    assert (code, "no target 'planning'" in said) == (1, True)
    assert "Allowed: elsewhere, share, warehouse." in said
    business.targets["planning"] = f"postgresql://u:{CANARY}@h/d"
    code, wrong = business.overnight("deliver", NAME, "--partition", NIGHT)
    assert (code, "'planning' is no address of a webhook" in wrong) == (1, True)
    assert CANARY not in said + wrong
