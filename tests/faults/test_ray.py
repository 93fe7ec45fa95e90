"""A scoring run on a Ray cluster of two nodes: its bytes are those of one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.backends.ray_pool import RayPool
from pipelines.errors import IntegrityError, SchemaMismatch, UnavailableError
from pipelines.ports import ShardJob
from pipelines.records import RunInfo, ScorePlan
from pipelines.runtime import Runtime
from tests.cases import REPOSITORY
from tests.cases.champions import DAYS, NAME, Champions, write_project
from tests.faults import shard_functions
from tests.faults.shard_functions import tries
from tests.servers.ray import Nodes, alive, processes, two_nodes

pytestmark = pytest.mark.timeout(900)
#: Three days of 150 rows, two shards each.
SCORED = DAYS[-3:]
SHARDS = [f"{day}+{start}" for day in SCORED for start in (0, 75)]
RAY = {"engine": "ray", "shard_rows": 80, "parallel": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests and workers tell each other things, by run."""
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    with two_nodes(**{shard_functions.FOLDER: str(folder)}) as started:
        yield started


@pytest.fixture
def scored(champions: Champions) -> Champions:
    """A use case with a champion, scored on Ray."""
    champions.promote(1)
    write_project(champions.project, scoring=RAY)
    return champions


def runtime(scored: Champions, run_id: str, address: str | None, function: str = "noting", **options: Any) -> Runtime:
    """A run on a cluster whose workers run one of the tests' functions."""
    run = RunInfo(run_id=run_id, dag_id=f"{NAME}_score", code_version="test")
    opened = Runtime.open(NAME, run=run, settings=scored.settings())
    # Where machines are shared, a start may take minutes.
    options = {"patience": 240.0, **options}
    opened.__dict__["pool"] = RayPool(address, f"{shard_functions.__name__}:{function}", **options)
    return opened


def local(scored: Champions, run_id: str) -> dict[str, str]:
    """Digests of what one process stages."""
    write_project(scored.project, scoring={"engine": "local"})
    opened = runtime(scored, run_id, None)
    staged = {part.partition: part.digest for part in opened.score(SCORED).staged}
    write_project(scored.project, scoring=RAY)
    assert len(staged) == len(SCORED)
    return staged


def digests(opened: Runtime, plan: ScorePlan | None = None) -> dict[str, str]:
    scored = opened.score_plan(plan or opened.plan_scores(SCORED)[0])
    return {part.partition: part.digest for part in scored.staged}


def until(reached: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits for something that another process does."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_a_cluster_publishes_the_bytes_of_one_process_and_each_node_unpacks_the_model_once(
    scored: Champions, nodes: Nodes, folder: Path
) -> None:
    expected = local(scored, "same")
    opened = runtime(scored, "same", nodes.address)
    plan = opened.plan_scores(SCORED)[0]
    assert len(plan.shards) == len(SHARDS)
    predictions = opened.publish_scores(opened.audit_scores(opened.score_plan(plan)))
    assert {made.partition: made.digest for made in predictions} == expected
    assert tries(folder / "same") == dict.fromkeys(SHARDS, 1)
    lines = [line.split() for line in (folder / "same" / "tries").read_text("utf-8").splitlines()]
    where = {node: {inode for _, _, inode, at in lines if at == node} for node in {line[3] for line in lines}}
    assert len(where) == 2
    assert all(len(inodes) == 1 for inodes in where.values())
    again = opened.plan_scores(SCORED)[0]
    assert again.due == ()
    assert opened.score_plan(again).staged == ()


def test_a_worker_that_is_killed_in_the_middle_costs_its_shard_and_no_other(
    scored: Champions, nodes: Nodes, folder: Path
) -> None:
    expected = local(scored, "killed")
    place = folder / "killed"
    place.mkdir()
    (place / "kill").write_text(json.dumps({SHARDS[1]: 1, SHARDS[4]: 2}), "utf-8")
    assert digests(runtime(scored, "killed", nodes.address)) == expected
    assert tries(place) == {**dict.fromkeys(SHARDS, 1), SHARDS[1]: 2, SHARDS[4]: 3}


def test_a_shard_that_kills_every_worker_ends_the_run_as_unavailable(
    scored: Champions, nodes: Nodes, folder: Path
) -> None:
    place = folder / "deadly"
    place.mkdir()
    (place / "kill").write_text(json.dumps({SHARDS[0]: 4}), "utf-8")
    with pytest.raises(UnavailableError, match=r"lost 4 times.*Remedy"):
        digests(runtime(scored, "deadly", nodes.address))
    assert tries(place)[SHARDS[0]] == 4


def test_a_node_that_is_lost_costs_the_shards_that_it_had(scored: Champions, nodes: Nodes, folder: Path) -> None:
    expected = local(scored, "node")
    place = folder / "node"
    place.mkdir()
    (place / "wait").write_text(" ".join(SHARDS[2:4]), "utf-8")
    opened = runtime(scored, "node", nodes.address)
    found: dict[str, str] = {}
    thread = threading.Thread(target=lambda: found.update(digests(opened)))
    thread.start()
    try:
        until(lambda: all(tries(place)[shard] for shard in SHARDS[2:4]))
        nodes.remove(gracefully=False)
        (place / "go").touch()
        thread.join(120)
    finally:
        nodes.add()
    assert found == expected
    counted = tries(place)
    assert sorted(counted[shard] for shard in SHARDS[2:4]) == [1, 2]
    assert all(counted[shard] == 1 for shard in (*SHARDS[:2], *SHARDS[4:]))


_SCORE = """
import sys
from pathlib import Path
from tests.cases.champions import Champions
from tests.faults.test_ray import SCORED, runtime
champions = Champions(project=Path(sys.argv[1]), home=Path(sys.argv[2]), evaluation=None, report=None)
opened = runtime(champions, sys.argv[3], sys.argv[4] or None)
opened.score_plan(opened.plan_scores(SCORED)[0])
"""


def test_a_run_whose_process_is_killed_is_finished_by_the_next_try(
    scored: Champions, nodes: Nodes, folder: Path
) -> None:
    expected = local(scored, "driver")
    place = folder / "driver"
    place.mkdir()
    (place / "wait").write_text(" ".join(SHARDS[3:5]), "utf-8")
    opened = runtime(scored, "driver", nodes.address)
    plan = opened.plan_scores(SCORED)[0]
    pieces = opened.pieces(plan)
    command = [sys.executable, "-c", _SCORE, str(scored.project), str(scored.home), "driver", nodes.address]
    task = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    try:
        # Three are kept, and the next two have begun.
        until(lambda: all(tries(place)[shard] for shard in SHARDS[:5]) and len(list(pieces.glob("*.json"))) == 3)
        drivers = [
            each for each in psutil.Process(task.pid).children() if any("ray_driver" in w for w in each.cmdline())
        ]
    finally:
        os.kill(task.pid, signal.SIGKILL)
        task.wait()
    assert drivers
    psutil.wait_procs(drivers, timeout=30)
    assert not any(driver.is_running() for driver in drivers)
    (place / "go").touch()
    assert digests(opened, plan) == expected
    counted = tries(place)
    assert all(counted[shard] == 1 for shard in SHARDS[:3])
    assert all(counted[shard] == 2 for shard in SHARDS[3:5])
    assert counted[SHARDS[5]] == 1


def test_an_error_of_ours_arrives_as_it_was_raised_and_is_not_tried_again(
    scored: Champions, nodes: Nodes, folder: Path
) -> None:
    with pytest.raises(SchemaMismatch) as raised:
        digests(runtime(scored, "refused", nodes.address, "refusing"))
    assert str(raised.value) == ("scoring: the model and the snapshot disagree: there is no 'wear'. Remedy: retrain.")
    assert max(tries(folder / "refused").values()) == 1


def test_a_mistake_in_the_code_arrives_with_its_place(scored: Champions, nodes: Nodes) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)shard_functions.py.*ZeroDivisionError: nothing to divide by"):
        digests(runtime(scored, "mistake", nodes.address, "broken"))


def test_a_model_that_is_not_the_plans_is_not_parsed_on_any_node(
    scored: Champions, nodes: Nodes, folder: Path, tmp_path: Path
) -> None:
    opened = runtime(scored, "other", nodes.address)
    plan = opened.plan_scores(SCORED)[0]
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"digest": "0" * 64})})
    job = ShardJob(spec=opened.spec, plan=other, settings=opened.settings.travelling)
    with pytest.raises(IntegrityError, match="not the one that was sealed"):
        opened.pool.run(job, opened.registry.fetch(plan.model), tmp_path / "pieces")
    assert not tries(folder / "other")


def test_secrets_stay_where_they_are(
    scored: Champions, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "c4n4ry-in-the-mine"
    for variable in (
        "OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY",
        "OVERNIGHT_LAKEFS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "OVERNIGHT_OPTUNA_STORAGE",
        "OVERNIGHT_SIGNING_KEY_PASSWORD",
    ):
        monkeypatch.setenv(variable, canary)
    monkeypatch.setenv("OVERNIGHT_LAKEFS_ENDPOINT", f"http://user:{canary}@127.0.0.1:9")
    opened = runtime(scored, "canary", nodes.address, "telling")
    assert opened.settings.lakefs_secret_access_key is not None
    job = ShardJob(spec=opened.spec, plan=opened.plan_scores(SCORED)[0], settings=opened.settings.travelling)
    pieces = opened.pool.run(job, opened.registry.fetch(job.plan.model), tmp_path / "pieces")
    told = [Path(path).read_text("utf-8") for piece in pieces for path in piece.files.values()]
    assert len(told) == len(SHARDS)
    assert "snapshots_uri" in told[0]
    assert not any(canary in text for text in told)
    # Nor in anything that Ray wrote.
    for path in (path for path in nodes.folder.rglob("*") if path.is_file() and not path.is_symlink()):
        assert canary.encode() not in path.read_bytes(), path


def test_more_processors_than_any_node_has_are_waited_for_and_then_told(scored: Champions, nodes: Nodes) -> None:
    with pytest.raises(UnavailableError, match=r"no node has had 2 processors.*OVERNIGHT_RAY_CPUS"):
        digests(runtime(scored, "wide", nodes.address, cpus=2, patience=8.0))


@pytest.mark.parametrize("listening", [False, True], ids=["refuses", "is silent"])
def test_a_cluster_that_does_not_answer_is_told_soon(scored: Champions, listening: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", 0))
        if listening:
            silent.listen()
        host, port = silent.getsockname()
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"Ray at {host}:{port}.*Remedy"):
            digests(runtime(scored, "silent", f"{host}:{port}", patience=6.0))
        assert time.monotonic() - begun < 60


def own(task: int | None = None) -> list[Path]:
    """The folders of clusters that a process has started for a run of its own."""
    found = []
    for child in psutil.Process(task).children():
        with suppress(psutil.Error):
            if "pipelines.backends.ray_driver" in child.cmdline():
                found.append(Path(child.cmdline()[-1]).parent)
    return found


def test_a_cluster_of_the_run_leaves_nothing_behind_however_the_run_ends(
    scored: Champions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = local(scored, "own")
    monkeypatch.setenv(shard_functions.FOLDER, str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    place = folder / "own"
    place.mkdir()
    (place / "wait").write_text(SHARDS[2], "utf-8")
    command = [sys.executable, "-c", _SCORE, str(scored.project), str(scored.home), "own", ""]
    task = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        until(lambda: tries(place)[SHARDS[2]], 240)
        (killed,) = own(task.pid)
        running = processes(killed)
        assert {"raylet", "gcs_server"} <= {process.name() for process in running}
    finally:
        task.kill()
        task.wait()
    until(lambda: not alive(running))
    assert alive(processes(killed)) == []
    (place / "go").touch()

    found: dict[str, str] = {}
    thread = threading.Thread(target=lambda: found.update(digests(runtime(scored, "own", None))))
    thread.start()
    until(own)
    (second,) = own()
    until(lambda: processes(second) or not thread.is_alive())
    ran = processes(second)
    thread.join(300)
    assert found == expected
    assert ran
    until(lambda: not alive(ran))
    assert alive(processes(second)) == []
    until(lambda: not second.exists())
    assert not killed.exists()  # the next run cleared up after it
