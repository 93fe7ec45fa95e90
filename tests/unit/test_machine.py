"""Threads come from what the cgroup allows, not from what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.machine import available_memory, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def place(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name.replace("_max", ".max").replace("cfs", "cpu.cfs")).write_text(content + "\n", "utf-8")


def cores(tmp_path: Path, membership: str) -> int:
    (tmp_path / "self").write_text(membership, "utf-8")
    return usable_cores(tmp_path / "cgroup", tmp_path / "self")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("50000 25000", 2),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_version_2_has_quota_and_period_in_one_line(tmp_path: Path, limit: str, expected: int) -> None:
    place(tmp_path / "cgroup" / "pod" / "task", cpu_max=limit)
    assert cores(tmp_path, "0::/pod/task\n") == expected


def test_the_tightest_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    place(tmp_path / "cgroup", cpu_max="max 100000")
    place(tmp_path / "cgroup" / "pod", cpu_max="300000 100000")
    place(tmp_path / "cgroup" / "pod" / "task", cpu_max="600000 100000")
    place(tmp_path / "cgroup" / "other", cpu_max="100000 100000")
    assert cores(tmp_path, "0::/pod/task\n") == 3


def test_inside_a_container_the_mount_is_the_own_group_whatever_the_path_says(tmp_path: Path) -> None:
    place(tmp_path / "cgroup", cpu_max="400000 100000")
    assert cores(tmp_path, "0::/kubepods/burstable/pod7/task\n") == 4
    assert cores(tmp_path, "0::/../../elsewhere\n") == 4


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_version_1_has_them_in_two_files(tmp_path: Path, folder: str, quota: str, expected: int) -> None:
    group = tmp_path / "cgroup" / folder / "task"
    place(group, cfs_quota_us=quota, cfs_period_us="100000")
    (tmp_path / "cgroup" / "unified").mkdir()
    assert cores(tmp_path, "9:name=systemd:/\n4:memory:/task\n1:cpu,cpuacct:/task\n0::/\n") == expected


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "nothing") == 8


def test_this_machine_has_a_core_and_no_more_than_it_says() -> None:
    assert 1 <= usable_cores() <= 8


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_any_control_group_above_counts_without_what_is_cached(tmp_path: Path, version: int) -> None:
    line, root, names = {
        1: ("4:memory:/job/step\n", tmp_path / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
        2: ("0::/job/step\n", tmp_path, ("memory.max", "memory.current")),
    }[version]
    cached = {1: "total_inactive_file", 2: "inactive_file"}[version]
    for folder, limit in ((root / "job", "5000000"), (root / "job" / "step", "max" if version == 2 else str(2**63))):
        folder.mkdir(parents=True)
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text("3000000\n")
        (folder / "memory.stat").write_text(f"anon 1\n{cached} 1000000\n")
    groups = tmp_path / "self"
    groups.write_text(line)
    assert available_memory(tmp_path, groups) == 3_000_000
    groups.write_text(line.replace("/job/step", "/elsewhere"))
    assert available_memory(tmp_path, groups) > 3_000_000, "the machine's memory, where no group is found"
