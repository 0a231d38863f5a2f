"""Pipeline jobs that are stopped or killed continue from their checkpoints."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, CheckpointStore
from knet_hvd.models import build_model, parameters_sha256
from tests.system import launch
from tests.system.jobs.test_checkpoints import rank_pids, wait_for
from tests.system.launch import ROOT, Result, mpirun, run, started

JOB = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]
FLAGS = ["--decoupler", "delayed", "--deterministic", "--width", "0.25"]
FLAGS += ["--epochs", "24", "--log-every", "1"]
NUM_STEPS = 24 * 22  # not over when a slow disk has synced two checkpoints
pytestmark = pytest.mark.timeout(600)


def job(folder: Path, *flags: str, num_ranks: int = 2) -> list[str]:
    """Return a command line; later flags override earlier ones."""
    saved = ["--checkpoint-dir", str(folder / "checkpoints")]
    saved += ["--checkpoint-every", "20", "--summary", str(folder / "summary.json")]
    return mpirun(*[[*JOB, *FLAGS, *saved, *flags]] * num_ranks)


def steps_of(folder: Path) -> list[int]:
    return CheckpointStore(folder / "checkpoints").steps()


def hashes(result: Result, summary: Path) -> list[str]:
    assert result.code == 0, result.text
    stages = json.loads(summary.read_text())["stages"]
    return [stage["parameters_sha256"] for stage in stages]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The hashes of a run that nobody disturbs, and that writes no checkpoints."""
    summary = tmp_path_factory.mktemp("straight") / "summary.json"
    command = [*JOB, *FLAGS, "--summary", str(summary)]
    return hashes(run(mpirun(command, command)), summary)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job that was told to stop, and what it said; tests after this one continue with it."""
    folder = tmp_path_factory.mktemp("stopped")
    with started(job(folder, "--logdir", str(folder / "curves"))) as process:
        wait_for(lambda: len(steps_of(folder)) > 1, process)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode == STOPPED_EXIT_CODE == 75, err
    return folder, err


def test_a_signal_stops_the_job_with_its_state_saved(stopped: tuple[Path, str]) -> None:
    folder, err = stopped
    found = re.findall(r"stopped by SIGUSR1 after step (\d+), saved in (\S+):", err)
    ((step, path),) = found
    assert 20 < int(step) < NUM_STEPS
    assert steps_of(folder)[0] == int(step)
    assert Path(path) == folder / "checkpoints" / f"step-{int(step):09d}"


@pytest.mark.parametrize(
    ("flags", "num_ranks", "message"),
    [(["--cuts", "1"], 2, "cuts: 2 there, 1 here"), ([], 3, "stages: 2 there, 3 here")],
)
def test_what_differs_is_named_on_every_rank(
    flags: list[str], num_ranks: int, message: str, stopped: tuple[Path, str]
) -> None:
    result = run(job(stopped[0], *flags, num_ranks=num_ranks))
    assert result.code == 1, result.text
    for rank in range(num_ranks):
        assert re.search(rf"rank {rank}: .*{message}", result.err), result.text


def test_a_rank_that_is_killed_loses_nothing_that_was_saved(stopped: tuple[Path, str]) -> None:
    folder = stopped[0]
    saved = steps_of(folder)[0]
    logs = ["--logdir", str(folder / "curves")]
    with started(job(folder, "--resume", "must", *logs)) as process:
        wait_for(lambda: steps_of(folder)[0] > saved, process)
        victim = Random(os.getpid()).choice(rank_pids(str(folder)))
        os.kill(victim, signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    assert process.returncode not in (0, STOPPED_EXIT_CODE)
    assert f"resuming after step {saved}\n" in out
    assert steps_of(folder)[0] > saved


def test_an_altered_shard_is_named_and_the_same_command_goes_on(
    straight: list[str], stopped: tuple[Path, str], tmp_path: Path
) -> None:
    """It ends as a run that was neither stopped nor killed nor altered."""
    folder = stopped[0]
    latest, before = steps_of(folder)[:2]
    shard = folder / "checkpoints" / f"step-{latest:09d}" / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = run(job(folder, "--logdir", str(folder / "curves")))
    assert hashes(result, folder / "summary.json") == straight
    assert "damaged checkpoint: " in result.err
    assert f"{shard}: altered" in result.err
    assert f"resuming after step {before}\n" in result.out
    check_export(folder, tmp_path / "model.pt", straight)


def check_export(folder: Path, out: Path, expected: list[str]) -> None:
    """The whole model has the stages' parameters under their own names."""
    command = [sys.executable, "-m", "knet_hvd", "export"]
    result = run([*command, str(folder / "checkpoints"), str(out)])
    assert result.code == 0, result.text
    model = build_model("mnist4", in_shape=(1, 8, 8), num_classes=10, width=0.25)
    model.load_state_dict(torch.load(out, weights_only=True))
    blocks = list(model.children())
    stages = (nn.Sequential(*blocks[:2]), nn.Sequential(*blocks[2:]))
    assert [parameters_sha256(stage) for stage in stages] == expected


def test_a_folder_that_cannot_be_written_stops_the_job_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(job(tmp_path, "--checkpoint-dir", str(tmp_path / "file" / "below")))
    assert result.code == 1
    for rank in range(2):
        expected = rf"rank {rank}: checkpoint folder .* cannot be written \(Not a dir"
        assert re.search(expected, result.err), result.text
