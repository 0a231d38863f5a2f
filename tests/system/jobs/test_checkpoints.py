"""Jobs that are stopped, killed or moved continue from their checkpoints."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, CheckpointStore
from knet_hvd.models import build_model, parameters_sha256
from tests.system import launch
from tests.system.launch import JOB, Result, horovodrun, mpirun, run, started

FLAGS = ["--model", "mlp", "--batch-size", "8", "--epochs", "12"]
FLAGS += ["--ternary.error-feedback", "--learning-rate", "0.02", "--log-every", "1"]
NUM_STEPS = 12 * 89  # of 16 images on 2 ranks: not over when a slow disk has synced
pytestmark = pytest.mark.timeout(900)  # some start five jobs


def job(folder: Path, *flags: str) -> list[str]:
    """Return the command of a rank; later flags override earlier ones."""
    saved = ["--checkpoint-dir", str(folder / "checkpoints"), "--checkpoint-every", "9"]
    return [*JOB, *FLAGS, *saved, "--summary", str(folder / "summary.json"), *flags]


def summary_of(result: Result, folder: Path) -> dict[str, Any]:
    assert result.code == 0, result.text
    return json.loads((folder / "summary.json").read_text())


def steps_of(folder: Path) -> list[int]:
    return CheckpointStore(folder / "checkpoints").steps()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, while the process runs."""
    while not condition() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nobody disturbs, and that writes no checkpoints."""
    folder = tmp_path_factory.mktemp("straight")
    curves = ["--logdir", str(folder / "curves"), "--summary", str(folder / "s.json")]
    result = run(mpirun(*[[*JOB, *FLAGS, *curves]] * 2))
    assert result.code == 0, result.text
    return {**json.loads((folder / "s.json").read_text()), "curves": folder / "curves"}


def losses(logdir: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(logdir), {"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def rank_pids(mark: str) -> list[int]:
    """Return the processes whose command line holds a path of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if Path(os.fsdecode(command[0])).name.startswith("python") and any(
                mark.encode() in word for word in command
            ):
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one job: each test disturbs it once more, and the last lets it end."""
    return tmp_path_factory.mktemp("disturbed")


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """Start the job of a folder, and wait until it has saved more than there was."""
    before = (steps_of(folder) or [0])[0]
    curves = ["--logdir", str(folder / "curves")]
    with started(mpirun(*[job(folder, *curves, *flags)] * 2)) as process:
        wait_for(lambda: (steps_of(folder) or [0])[0] > before, process)
        yield process


def test_sigterm_to_one_rank_alone_stops_all(disturbed: Path) -> None:
    """As srun and scancel do it, but only one rank gets it."""
    with running(disturbed) as process:
        os.kill(rank_pids(str(disturbed))[-1], signal.SIGTERM)
        _, err = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode == STOPPED_EXIT_CODE, err
    assert "stopped by SIGTERM after step" in err


def test_a_node_is_lost_at_a_random_moment(disturbed: Path) -> None:
    with running(disturbed) as process:
        time.sleep(Random(os.getpid()).random() / 4)
        for pid in [process.pid, *rank_pids(str(disturbed))]:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode not in (0, STOPPED_EXIT_CODE)


def test_a_rank_that_hangs_is_given_up(disturbed: Path) -> None:
    """Neither the launcher nor Horovod sees anything wrong with a stopped process."""
    with running(disturbed, "--timeout-s", "8") as process:
        os.kill(rank_pids(str(disturbed))[0], signal.SIGSTOP)
        _, err = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode == 1
    assert re.search(r"rank \d: no progress for 8 s: another rank hangs", err), err


def test_a_second_job_is_refused_and_the_first_ends_as_if_nobody_had_disturbed_it(
    straight: dict[str, Any], disturbed: Path
) -> None:
    saved = (steps_of(disturbed) or [0])[0]
    with running(disturbed) as process:
        process.send_signal(signal.SIGSTOP)  # mpirun alone: its ranks continue
        os.kill(rank_pids(str(disturbed))[0], signal.SIGSTOP)
        try:
            second = run(mpirun(*[job(disturbed)] * 2))
        finally:
            os.kill(rank_pids(str(disturbed))[0], signal.SIGCONT)
            process.send_signal(signal.SIGCONT)
        assert second.code == 1, second.text
        messages = re.findall(r"rank \d: checkpoint folder .*in use by.*", second.err)
        assert len(messages) == 2, second.text
        _, err = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode == 0, err
    summary = json.loads((disturbed / "summary.json").read_text())
    assert summary["resumed_step"] == saved
    assert summary["parameters_sha256"] == straight["parameters_sha256"]
    assert losses(disturbed / "curves") == losses(straight["curves"])
    assert not list((disturbed / "checkpoints").glob("*.partial"))


def test_another_number_of_ranks_continues(straight: dict[str, Any], tmp_path: Path) -> None:
    for num_ranks, step in ((1, "50"), (4, "90"), (2, str(NUM_STEPS))):
        flags = ["--batch-size", str(16 // num_ranks), "--max-steps", step]
        result = run(mpirun(*[job(tmp_path, *flags)] * num_ranks))
        summary = summary_of(result, tmp_path)
    assert summary["resumed_step"] == 90
    assert summary["test_accuracy"] > straight["test_accuracy"] - 0.05
    refused = run(mpirun(*[job(tmp_path)] * 3))
    assert refused.code == 1
    assert refused.err.count("2 ranks with 8 images each, 16 in all") == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=7500k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(straight: dict[str, Any], small_disk: Path, tmp_path: Path) -> None:
    """Room for two checkpoints where three are to be kept."""
    flags = ["--checkpoint-dir", str(small_disk / "checkpoints")]
    result = run(mpirun(*[job(tmp_path, *flags)] * 2))
    assert result.code == 1, result.text
    assert "No space left on device); the latest is of step" in result.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["parameters_sha256"] == straight["parameters_sha256"]
    store = CheckpointStore(small_disk / "checkpoints")
    assert store.steps()
    for step in store.steps():
        manifest = store.read_manifest(step)
        assert [store.read_shard(manifest, rank)["loss"] for rank in range(2)]


def test_horovodrun_continues_and_the_model_can_be_exported(tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    for steps in ("10", "20"):
        summary = summary_of(run(horovodrun(job(tmp_path, "--max-steps", steps))), tmp_path)
    assert summary["resumed_step"] == 10
    export = [sys.executable, "-m", "knet_hvd", "export"]
    result = run([*export, str(tmp_path / "checkpoints"), str(out)])
    assert result.code == 0, result.text
    model = build_model("mlp", in_shape=(1, 8, 8), num_classes=10)
    model.load_state_dict(torch.load(out, weights_only=True))
    assert parameters_sha256(model) == summary["parameters_sha256"]
