"""`overnight score` and `overnight nights`: what they do, print and exit with."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

from pipelines.ports import Draft
from pipelines.runtime import Runtime
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import AS_OF, DAYS, NAME, Champions
from tests.contracts.stores import RUN, audit
from tests.unit.test_cli_champion import overnight

RANGE = ("--from", DAYS[8], "--to", DAYS[10])


@pytest.fixture
def promoted(champions: Champions) -> Champions:
    """Version 1 is the champion from the ninth day on."""
    champions.promote(1, "first")
    return champions


def published(champions: Champions) -> dict[str, str]:
    """Digest of each night's predictions."""
    store = champions.runtime().store
    head = store.head(PREDICTIONS)
    return {} if head is None else {key: part.digest for key, part in store.partitions(head).items()}


def restate(runtime: Runtime, day: str, frame: pl.DataFrame) -> None:
    (staged,) = runtime.store.stage("rows", [Draft(partition=day, frame=frame)], RUN)
    runtime.store.publish("rows", [staged], [audit(staged)], RUN)


def rows(runtime: Runtime, day: str) -> pl.DataFrame:
    head = runtime.store.head("rows")
    assert head is not None
    return runtime.store.scan(head, [day]).drop("partition").collect()


def test_a_night_is_scored_once_and_a_repeat_says_so(promoted: Champions) -> None:
    code, said = overnight(promoted, "score", NAME, "--partition", DAYS[8])
    assert (code, said) == (0, f"scored {DAYS[8]}: 150 rows by {NAME}@1 (delta:{NAME}/predictions@1)\n")
    code, said = overnight(promoted, "score", NAME, "--partition", DAYS[8])
    assert code == 0
    assert said.startswith(f"unchanged {DAYS[8]}: 150 rows by {NAME}@1")
    (commit,) = promoted.runtime().store.history(PREDICTIONS)
    assert (commit.run.dag_id, commit.run.backfill) == ("cli", False)
    assert commit.run.at is not None


def test_a_range_is_a_backfill_that_takes_what_it_can_and_says_the_rest(promoted: Champions) -> None:
    code, said = overnight(promoted, "score", NAME, "--from", DAYS[10], "--to", "2024-05-14")
    lines = said.splitlines()
    assert code == 1
    assert [line.split(":")[0] for line in lines] == [
        f"scored {DAYS[10]}",
        f"scored {DAYS[11]}",
        "missing 2024-05-13",
        "missing 2024-05-14",
    ]
    assert lines[2].endswith("there is no file in the landing zone")
    (commit,) = promoted.runtime().store.history(PREDICTIONS)
    assert commit.run.backfill
    assert overnight(promoted, "score", NAME, "--from", DAYS[10], "--to", DAYS[11])[0] == 0


def test_a_newer_champion_scores_again_only_when_it_is_asked_to(promoted: Champions) -> None:
    assert overnight(promoted, "score", NAME, *RANGE)[0] == 0
    first = published(promoted)
    promoted.promote(2, "second", over=1)
    assert overnight(promoted, "score", NAME, *RANGE)[1].count("unchanged") == 3
    assert published(promoted) == first

    code, said = overnight(promoted, "score", NAME, "--partition", DAYS[9], "--anew")
    assert (code, said.split(" (")[0]) == (0, f"scored {DAYS[9]}: 150 rows by {NAME}@2")
    second = published(promoted)
    assert {night for night in first if first[night] != second[night]} == {DAYS[9]}
    assert overnight(promoted, "score", NAME, "--partition", DAYS[9], "--anew")[1].startswith("unchanged")

    code, said = overnight(promoted, "score", NAME, *RANGE, "--model", "as-of", "--json")
    told = json.loads(said)
    assert (code, [each["state"] for each in told]) == (0, ["unchanged"] * 3)
    assert [each["model"] for each in told] == [f"{NAME}@1", f"{NAME}@2", f"{NAME}@1"], "as they are published"

    code, said = overnight(promoted, "score", NAME, *RANGE, "--model", "1")
    assert [line.split()[0] for line in said.splitlines()] == ["unchanged", "scored", "unchanged"]
    again = promoted.runtime().store.scan(promoted.runtime().store.head(PREDICTIONS), [DAYS[9]]).collect()
    assert again.get_column("model_version").unique().to_list() == [1]


def test_nights_from_before_the_first_champion_are_told_and_hold_nothing_up(promoted: Champions) -> None:
    code, said = overnight(promoted, "score", NAME, "--from", AS_OF, "--to", DAYS[8], "--model", "as-of")
    assert (code, said.splitlines()[0]) == (1, f"missing {AS_OF}: there was no champion yet when it ran")
    assert said.splitlines()[1].startswith(f"scored {DAYS[8]}")
    code, said = overnight(promoted, "score", NAME, "--partition", AS_OF, "--model", "as-of")
    assert (code, "NotFoundError" in said, "no champion when" in said) == (1, True, True)
    assert overnight(promoted, "score", NAME, "--partition", AS_OF, "--model", "2")[0] == 0
    code, said = overnight(promoted, "score", NAME, "--from", AS_OF, "--to", DAYS[8], "--model", "as-of")
    assert (code, said.count("unchanged")) == (0, 2), "what has scores keeps them"


def test_a_night_whose_scores_fail_their_audit_holds_up_no_other(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("strict"), scoring={"max_unseen_share": 0.1})
    runtime = champions.runtime()
    strange = rows(runtime, DAYS[9]).with_columns(site=pl.lit("west"))
    restate(runtime, DAYS[9], strange)
    code, said = overnight(champions, "score", NAME, *RANGE, "--model", "1")
    lines = said.splitlines()
    assert code == 1
    assert [line.split()[0] for line in lines] == ["scored", "failed", "scored"]
    assert "1.000 of site unseen in training" in lines[1]
    assert set(published(champions)) == {DAYS[8], DAYS[10]}
    code, said = overnight(champions, "nights", NAME, *RANGE)
    assert code == 0
    assert "scores in quarantine: unseen_share site: 1.000 of site unseen in training; never scored" in said
    restate(runtime, DAYS[9], strange.with_columns(site=pl.lit("north")))
    code, said = overnight(champions, "score", NAME, *RANGE, "--model", "1")
    assert (code, [line.split()[0] for line in said.splitlines()]) == (0, ["unchanged", "scored", "unchanged"])


def test_processes_give_the_same_bytes_and_leave_nothing_behind(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = (registered.copy(tmp_path_factory.mktemp(name)) for name in ("alone", "together"))
    # The run's instant stands in every row.
    monkeypatch.setattr("pipelines.runtime.datetime", _Fixed)
    assert overnight(alone, "score", NAME, *RANGE, "--model", "1")[0] == 0
    monkeypatch.setenv("OVERNIGHT_FAILPOINT", "shard.written")
    code, said = overnight(together, "score", NAME, *RANGE, "--model", "1", "--parallel", "2")
    assert (code, said.count("failed")) == (1, 3)
    assert "one of them died" in said
    assert published(together) == {}
    assert left_behind(together) == []
    monkeypatch.delenv("OVERNIGHT_FAILPOINT")
    code, said = overnight(together, "score", NAME, *RANGE, "--model", "1", "--parallel", "2")
    assert (code, said.count("scored")) == (0, 3), said
    assert published(together) == published(alone)
    assert left_behind(together) == []
    assert overnight(together, "score", NAME, *RANGE, "--model", "1", "--parallel", "2")[1].count("unchanged") == 3


def left_behind(champions: Champions) -> list[str]:
    """Pieces of shards that nobody needs any more."""
    return [path.name for path in (champions.settings().work / NAME / "scores").rglob("*")]


class _Fixed:
    """A clock that stands still."""

    @staticmethod
    def now(zone: object) -> object:
        from datetime import datetime

        return datetime(2024, 5, 12, 2, tzinfo=zone)  # type: ignore[arg-type]


def test_all_nights_are_shown_and_those_of_which_there_is_nothing_share_a_line(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("shown"), until="2024-05-20")
    assert overnight(champions, "score", NAME, *RANGE, "--model", "1")[0] == 0
    code, said = overnight(champions, "nights", NAME)
    lines = said.splitlines()
    assert code == 0
    assert re.split(r"\s{2,}", lines[0]) == [
        "night",
        "input",
        "rows",
        "scored by",
        "rows",
        "scored at",
        "run",
        "to know",
    ]
    cells = re.split(r"\s{2,}", lines[9])
    assert cells[:5] == [DAYS[8], "ingested", "150", f"{NAME}@1", "150"]
    assert cells[6].startswith("cli/cli-")
    assert cells[6].endswith(" (backfill)")
    assert re.split(r"\s{2,}", lines[1]) == [DAYS[0], "ingested", "150", "never scored"]
    assert re.split(r"\s{2,}", lines[-1]) == ["2024-05-13..2024-05-20 (8)", "missing", "labels are late"]
    assert len(lines) == 14
    code, said = overnight(champions, "nights", NAME, "--json")
    told = json.loads(said)
    assert (code, len(told)) == (0, 20)
    assert (told[8]["scores"]["model"], told[8]["scores"]["run"]["backfill"], told[8]["due"]) == (1, True, None)
    assert told[-1]["input"] == "missing"


def test_a_terminal_shows_a_table_and_obeys_nothing_that_a_file_says(
    champions: Champions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.cli.night_table import print_nights

    (night,) = champions.runtime().nights([DAYS[8]])
    spoiled = night.model_copy(update={"quarantined": ("site: [bold]west\x1b[31m",)})
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    print_nights(NAME, [spoiled])
    said = capsys.readouterr().out
    assert "[bold]west" in said
    assert "\x1b[31m" not in said
    assert "never scored" in said


def test_where_nothing_is_known_there_are_no_nights(
    registered: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("new")
    new = Champions(project=registered.project, home=folder, evaluation=registered.evaluation, report=registered.report)
    code, said = overnight(new, "nights", NAME)
    assert (code, said.startswith("no night is known of")) == (0, True)
    code, said = overnight(new, "score", NAME, "--partition", DAYS[8])
    assert (code, said) == (1, f"missing {DAYS[8]}: there is no file in the landing zone\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", NAME),
        ("score", NAME, "--from", DAYS[8]),
        ("score", NAME, "--partition", "yesterday"),
        ("score", NAME, "--partition", DAYS[8], "--model", "newest"),
        ("score", NAME, "--partition", DAYS[8], "--model", "0"),
        ("score", NAME, "--partition", DAYS[8], "--parallel", "0"),
        ("nights", NAME, "--from", DAYS[8]),
        ("nights", NAME, "--from", DAYS[8], "--to", DAYS[7]),
    ],
    ids=" ".join,
)
def test_misuse_is_exit_code_2(arguments: tuple[str, ...], registered: Champions) -> None:
    code, said = overnight(registered, *arguments)
    assert code == 2, said
