"""Processes: which one is meant, and that none is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from include.local import processes, servers

PROJECT = Path(__file__).resolve().parents[3]


def _eventually(check: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_first() -> None:
    mine = processes.started(os.getpid())
    assert mine is not None
    assert processes.is_running(os.getpid(), mine)
    assert not processes.is_running(os.getpid(), str(int(mine) - 1))


def test_an_ended_process_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    since = processes.started(child.pid)
    assert _eventually(lambda: processes.started(child.pid) is None), "a zombie counts as ended"
    child.wait()
    assert not processes.is_running(child.pid, since or "")


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other, claim = processes.claim_port(port)
        claim.close()
        assert other > port
        with pytest.raises(OSError, match="no free port"):
            processes.claim_port(port, tries=1)


def test_a_claimed_port_is_passed_over_until_the_claim_is_given_back() -> None:
    first, claim = processes.claim_port(23000)
    with claim:
        second, other = processes.claim_port(first)
        other.close()
        assert second > first
        with pytest.raises(OSError, match="no free port"):
            processes.claim_port(first, tries=1)
    again, claim = processes.claim_port(first)
    claim.close()
    assert again == first


_CHOOSER = """
import sys
from include.local import processes
ports = [processes.claim_port(23100), processes.claim_port(23100)]
print(*[port for port, _claim in ports], flush=True)
sys.stdin.readline()
"""


def test_those_who_choose_at_the_same_time_choose_different_ports() -> None:
    command = [sys.executable, "-c", _CHOOSER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    choosers = [subprocess.Popen(command, cwd=PROJECT, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    chosen = [line for chooser in choosers for line in chooser.stdout.readline().split()]
    for chooser in choosers:  # every one still held its ports when the last one had chosen
        chooser.communicate("done\n", timeout=30)
        assert chooser.returncode == 0
    assert len(chosen) == 8
    assert len(set(chosen)) == 8, chosen


_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""
_SUPERVISOR = f"""
import os, subprocess, sys
from include.local import processes
processes.adopt_orphans()
child = subprocess.Popen([sys.executable, "-c", {_STUBBORN!r}], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(*processes.descendants(os.getpid()), flush=True)
processes.stop_descendants(os.getpid(), patience=0.5)
print(len(processes.descendants(os.getpid())), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_child_that_ignores_the_signal_and_its_own_child_are_ended_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SUPERVISOR], cwd=PROJECT, check=True, capture_output=True, text=True, timeout=30
    )
    pids, left = done.stdout.strip().splitlines()
    assert len(pids.split()) >= 2
    assert left == "0"
    assert not [pid for pid in pids.split() if processes.started(int(pid))]


_TIED = """
import subprocess, sys, time
from include.local import processes
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=processes.die_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_tied_process_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _TIED], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _eventually(lambda: processes.started(child) is None)


def test_what_a_crash_left_in_the_state_file_counts_as_not_running(tmp_path: Path) -> None:
    where = servers.Places(home=tmp_path)
    where.state.parent.mkdir(parents=True)
    for text in ("", "{", '{"pid": 1}', '{"children": {}}'):
        where.state.write_text(text)
        assert servers.read_state(where) is None
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    since = processes.started(ended.pid) or "0"
    ended.wait()
    state = servers.State(pid=ended.pid, since=since, airflow_url="", mlflow_url="", children={}, ready=True)
    servers._write_state(where, state)
    assert servers.read_state(where) is None
    assert servers.stop(where) is False


def test_secrets_are_made_once_and_are_for_this_user_alone(tmp_path: Path) -> None:
    where = servers.Places(home=tmp_path)
    first = servers.password(where)
    assert len(first) >= 12
    assert servers.password(where) == first
    env = servers.environment(where, 8080, 5000)
    assert (
        env["AIRFLOW__API_AUTH__JWT_SECRET"] == servers.environment(where, 8080, 5000)["AIRFLOW__API_AUTH__JWT_SECRET"]
    )
    assert first not in "".join(env.values())
    assert {path.stat().st_mode & 0o077 for path in (where.passwords, where.keys)} == {0}


def test_everything_that_the_servers_write_lies_below_one_folder(tmp_path: Path) -> None:
    env = servers.environment(servers.Places(home=tmp_path), 8080, 5000)
    for name in ("AIRFLOW_HOME", "OVERNIGHT_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER"):
        assert Path(env[name]).is_relative_to(tmp_path)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{tmp_path}")
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
