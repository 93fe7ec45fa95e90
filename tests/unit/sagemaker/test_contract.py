"""What a container finds, what it starts, and what it says when that fails."""

from __future__ import annotations

import doctest
import itertools
import json
import signal
import sys
from pathlib import Path

import pytest

from pipelines.errors import TrainingError
from pipelines.training import contract
from pipelines.training.contract import ROOT, Container, failure_text

from .conftest import job_spec


def laid_out(root: Path, **training: object) -> Path:
    config = root / "input" / "data" / "config"
    config.mkdir(parents=True)
    (config / "spec.json").write_text(job_spec(**training).model_dump_json())
    (root / "input" / "config").mkdir(parents=True)
    return root


def test_without_the_toolkits_variables_the_platforms_files_say_it(tmp_path: Path) -> None:
    root = laid_out(tmp_path)
    resources = {"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}
    (root / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    found = Container.find({ROOT: str(root)})
    assert (found.host, found.hosts) == ("algo-2", ("algo-1", "algo-2"))
    assert found.gpus == 0
    assert found.cpus >= 1
    job = found.job()
    assert (job.data, job.out, job.checkpoints) == (
        root / "input" / "data" / "training",
        root / "model",
        root / "checkpoints",
    )
    assert Container.find({}).model == Path("/opt/ml/model")


def test_the_toolkits_variables_win(tmp_path: Path) -> None:
    root = laid_out(tmp_path)
    named = {"SM_MODEL_DIR": "/m", "SM_CHANNEL_TRAINING": "/t", "SM_CHECKPOINT": "/c", "SM_NUM_GPUS": "8"}
    more = {"SM_HOSTS": '["b", "a"]', "SM_CURRENT_HOST": "b", "SM_NUM_CPUS": "96", "SM_OUTPUT_DIR": "/o"}
    found = Container.find({ROOT: str(root), **named, **more})
    assert found.failure == Path("/o/failure")
    assert (found.hosts, found.host, found.gpus, found.cpus) == (("a", "b"), "b", 8, 96)
    assert (found.data, found.model, found.checkpoints) == (Path("/t"), Path("/m"), Path("/c"))


def test_several_hosts_meet_at_the_first_with_one_process_a_gpu(tmp_path: Path) -> None:
    root = laid_out(tmp_path, processes="auto")
    named = {"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-2", "SM_NUM_GPUS": "4", "SM_NUM_CPUS": "48"}
    found = Container.find({ROOT: str(root), **named})
    command = found.command(found.job())
    words = dict(itertools.pairwise(command))
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert (words["--nproc-per-node"], words["--nnodes"], words["--node-rank"]) == ("4", "2", "1")
    assert words["--master-addr"] == "algo-1"
    assert words["--threads"] == "12", "each process has its share of the cores"
    single = Container.find({ROOT: str(root), "SM_NUM_GPUS": "0", "SM_NUM_CPUS": "2"})
    assert single.command(single.job())[1:3] == ["-m", "pipelines.training"]


def test_a_container_without_a_spec_says_so_in_the_failure_file(tmp_path: Path) -> None:
    assert contract.run({ROOT: str(tmp_path)}) == 1
    assert (tmp_path / "output" / "failure").read_text().startswith("TrainingError: ")
    with pytest.raises(TrainingError, match=r"spec\.json"):
        Container.find({ROOT: str(tmp_path)}).job()


def test_a_failure_is_the_trainings_own_words_or_its_last_ones_and_never_too_long() -> None:
    assert failure_text(1, ["x", "[rank0]: TrainingError: a: b.", "torchrun gives up"]) == "TrainingError: a: b."
    assert failure_text(139, ["epoch 3"]).startswith("Crash: exit code 139 (killed by signal 11)")
    assert len(failure_text(1, ["y" * 5000])) == 1024
    assert len(failure_text(1, ["TrainingError: " + "y" * 5000])) == 1024
    assert doctest.testmod(contract).failed == 0


def test_a_training_that_is_killed_leaves_its_last_words_in_the_failure_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, sys; sys.stderr.write('epoch 3\\n'); sys.stderr.flush(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(Container, "command", lambda *_: [sys.executable, "-c", code])
    root = laid_out(tmp_path)
    assert contract.run({ROOT: str(root)}) == 137
    assert (root / "output" / "failure").read_text() == failure_text(137, ["epoch 3"])


def test_sigterm_reaches_the_training_and_its_exit_code_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal, sys, time; signal.signal(15, lambda *_: sys.exit(75));"
        "os.kill(os.getppid(), 15); time.sleep(30)"
    )
    monkeypatch.setattr(Container, "command", lambda *_: [sys.executable, "-c", code])
    before = signal.getsignal(signal.SIGTERM)
    assert contract.run({ROOT: str(laid_out(tmp_path))}) == 75
    assert signal.getsignal(signal.SIGTERM) is before
