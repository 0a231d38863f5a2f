"""The pipeline job: results, TensorBoard, and ranks that are lost or disagree."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.system.launch import ROOT, Result, mpirun, run

JOB = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]
KEYS = {
    "train_accuracy",
    "test_accuracy",
    "samples_per_second",
    "bytes_per_step",
    "num_stages",
    "stages",
    "config",
}
STAGE_KEYS = {"idle_fraction", "peak_memory_bytes", "parameters", "blocks"}
LONG = ["--epochs", "100000", "--decoupler"]
SMALL = ["--decoupler.hidden-units", "16", "--decoupler.kernel-size", "3"]
SOON_S = 30


def train_job(folder: Path, *flags: str, num_ranks: int = 2) -> tuple[dict[str, Any], Result]:
    summary = folder / "results" / "summary.json"
    result = run(mpirun(*[[*JOB, *flags, "--summary", str(summary)]] * num_ranks))
    assert result.code == 0, result.text
    return json.loads(summary.read_text()), result


@pytest.mark.parametrize(
    ("decoupler", "frames"),
    [("backprop", 2), pytest.param("conditioned", 1, marks=pytest.mark.slow)],
)
def test_bf16_learns_and_sends_fp32(decoupler: str, frames: int, tmp_path: Path) -> None:
    flags = ["--model", "mnist8", "--width", "0.25", "--decoupler", decoupler, "--cuts", "4"]
    epochs = "8"
    if decoupler == "conditioned":
        flags += SMALL
        epochs = "24"  # after 8 a synthesizer is still learning: 0.45 to 0.91, by seed and load
    low, result = train_job(tmp_path, *flags, "--precision", "bf16", "--epochs", epochs)
    assert low["test_accuracy"] > 0.85, result.text
    assert low["bytes_per_step"] == frames * (64 + 64 * 64 * 4)  # header, 64 activations


@pytest.mark.parametrize(
    "decoupler", [pytest.param("backprop", marks=pytest.mark.slow), "synthetic"]
)
def test_placement_measures_in_bf16(decoupler: str, tmp_path: Path) -> None:
    flags = ["--decoupler", decoupler, "--placement", "measured", "--max-steps", "2"]
    flags += ["--width", "0.25"]  # not every processor has instructions for bf16
    flags += SMALL if decoupler == "synthetic" else []
    flags += ["--logdir", str(tmp_path)]
    summary, result = train_job(tmp_path, *flags, "--precision", "bf16")
    blocks = [name for stage in summary["stages"] for name in stage["blocks"]]
    assert blocks == ["conv1", "fc2", "fc3", "logits"]
    assert "| stage | rank | blocks, ms a step | ms a step |" in result.out
    milliseconds = re.findall(r"(?:conv1|fc2|fc3|logits) ([\d.e+-]+)", result.out)
    assert len(milliseconds) == 4, result.out
    assert all(float(text) > 0 for text in milliseconds)
    events = EventAccumulator(str(tmp_path / "stage0"))
    events.Reload()
    assert events.Tags()["images"] == ["placement"]


@pytest.mark.parametrize("decoupler", ["backprop", "local"])
def test_the_summary_holds_what_a_reader_needs(decoupler: str, tmp_path: Path) -> None:
    flags = ["--stages", "2", "--epochs", "12", "--decoupler", decoupler]
    flags += ["--log-every", "5", "--logdir", str(tmp_path)]
    summary, result = train_job(tmp_path, *flags)
    assert set(summary) >= KEYS
    assert summary["test_accuracy"] > 0.9, result.text
    assert summary["train_accuracy"] > 0.9
    assert summary["num_stages"] == len(summary["stages"]) == 2
    for stage in summary["stages"]:
        assert set(stage) >= STAGE_KEYS
        assert 0 <= stage["idle_fraction"] < 1
    assert summary["stages"][0]["blocks"] == ["conv1", "fc2"]
    # 64 images with 256 activations, and a header
    frames = 1 if decoupler == "local" else 2
    assert summary["bytes_per_step"] == frames * (64 + 64 * 256 * 4)
    assert f"mnist4 on digits, 2 stages, {decoupler}: train accuracy" in result.out
    # 264 steps, and 22 an epoch: a report after its end, and the last, cover fewer than 5.
    first = EventAccumulator(str(tmp_path / "stage0"))
    first.Reload()
    sent = [event.value for event in first.Scalars("wire/bytes_per_step")]
    assert len(sent) == 53
    assert set(sent) == {summary["stages"][0]["sent_bytes_per_step"]}
    assert ("stage/local_loss" in first.Tags()["scalars"]) == (decoupler == "local")
    assert "train/loss" not in first.Tags()["scalars"]


def test_tensorboard_shows_every_stage(tmp_path: Path) -> None:
    flags = ["--decoupler", "synthetic", *SMALL, "--model", "mnist8", "--epochs", "2"]
    train_job(tmp_path, *flags, "--logdir", str(tmp_path), num_ranks=3)
    stages = [EventAccumulator(str(tmp_path / f"stage{stage}")) for stage in range(3)]
    for events in stages:
        events.Reload()
    tags = [set(events.Tags()["scalars"]) for events in stages]
    shared = {"stage/idle_share", "stage/staleness_steps", "wire/bytes_per_step"}
    assert all(shared <= own for own in tags)
    similarity = {"cosine_similarity", "norm_ratio", "synthesizer_loss"}
    for own in tags[:2]:
        assert {f"synthetic_gradient/{name}" for name in similarity} <= own
    assert {"train/loss", "test/accuracy"} <= tags[2]
    assert "_hparams_/session_start_info" in stages[2].summary_metadata


def start(
    folder: Path, decoupler: str, num_ranks: int, flags: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a job that would never end."""
    log = (folder / "log").open("w")
    command = [*JOB, *LONG, decoupler, "--logdir", str(folder), *flags]
    bin_folder = Path(sys.executable).parent
    return subprocess.Popen(
        mpirun(*[command] * num_ranks),
        env={
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        },
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )


def pids_of_ranks(launcher: int, number: int) -> list[int]:
    """Return the processes of the ranks, by rank, once all are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(entry.name)) != launcher and not _descends(
                    int(entry.name), launcher
                ):
                    continue
                text = (entry / "environ").read_bytes().decode(errors="replace")
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            rank = re.search(r"OMPI_COMM_WORLD_RANK=(\d+)", text)
            if rank and JOB[1] in line:
                found[int(rank[1])] = int(entry.name)
        if len(found) == number:
            return [found[rank] for rank in range(number)]
        time.sleep(0.2)
    raise AssertionError(f"only ranks {sorted(found)} have started")


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(re.findall(r"PPid:\t(\d+)", status)[0])
    return False


def wait_for_training(folder: Path, num_ranks: int) -> None:
    """Wait until all stages have opened their run, right before the first step."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("stage*"))) < num_ranks:
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.1)


def running(pid: int) -> bool:
    """Return whether a process is there, and not only its entry for a parent."""
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def text_after_a_kill(
    job: subprocess.Popen[str], folder: Path, victim: int, stages: int, ranks: int
) -> str:
    """Kill a rank at a random moment; return the log once all others have ended."""
    pids = pids_of_ranks(job.pid, ranks)
    wait_for_training(folder, stages)
    time.sleep(random.uniform(0, 3))
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.monotonic()
    code = job.wait(timeout=60)
    text = (folder / "log").read_text()
    assert code != 0, text
    while any(running(pid) for pid in pids):
        assert time.monotonic() - killed < SOON_S, text
        time.sleep(0.1)
    assert time.monotonic() - killed < SOON_S, text
    assert f"process rank {victim} " in text, text
    assert "signal 9" in text, text
    return text


@pytest.mark.parametrize(
    ("decoupler", "victim"),
    [
        ("backprop", 1),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in (("synthetic", 2), ("local", 0))
        ),
    ],
)
def test_a_rank_that_is_killed_ends_the_others(decoupler: str, victim: int, tmp_path: Path) -> None:
    job = start(tmp_path, decoupler, num_ranks=3)
    try:
        text = text_after_a_kill(job, tmp_path, victim, 3, 3)
        for rank in {0, 1, 2} - {victim}:
            assert f"train_pipeline: rank {rank}: stopped by the launcher" in text
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("decoupler", "victim"),
    [pytest.param("backprop", 3, marks=pytest.mark.slow), ("local", 0)],
)
def test_a_replica_that_is_killed_ends_the_others(
    decoupler: str, victim: int, tmp_path: Path
) -> None:
    job = start(tmp_path, decoupler, num_ranks=4, flags=["--replicas", "2"])
    try:
        text = text_after_a_kill(job, tmp_path, victim, 2, 4)
        for rank in set(range(4)) - {victim}:
            assert f"train_pipeline: rank {rank}: stopped by the launcher" in text
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


def test_replicas_and_stages_in_one_job(tmp_path: Path) -> None:
    flags = ["--replicas", "2", "--batch-size", "32", "--epochs", "5"]
    summary, result = train_job(tmp_path, *flags, num_ranks=4)
    assert summary["test_accuracy"] > 0.9, result.text
    assert [stage["ranks"] for stage in summary["stages"]] == [[0, 1], [2, 3]]
    # ternary codes: a fifteenth of what fp32 gradients would be, or less
    assert summary["gradient_compression_ratio"] > 12
    crossing = summary["bytes_per_step"] - summary["gradient_bytes_per_step"]
    assert crossing == 2 * (64 + 32 * 256 * 4)


def test_a_rank_that_stalls_is_waited_for_and_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    """The launcher sees nothing wrong with a stopped process: the neighbor does."""
    job = start(tmp_path, "local", num_ranks=2, flags=["--timeout-s", "6"])
    try:
        pids = pids_of_ranks(job.pid, 2)
        wait_for_training(tmp_path, 2)
        time.sleep(1)
        os.kill(pids[1], signal.SIGSTOP)
        time.sleep(2)
        os.kill(pids[1], signal.SIGCONT)
        time.sleep(1)
        assert job.poll() is None, (tmp_path / "log").read_text()
        assert all(running(pid) for pid in pids)
        os.kill(pids[1], signal.SIGSTOP)
        code = job.wait(timeout=60)
        text = (tmp_path / "log").read_text()
        assert code != 0, text
        assert re.search(r"train_pipeline: rank 0: .*nothing came within 6 s", text), text
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stages", "3"], "expected as many as there are ranks, 2, got 3"),
        pytest.param(
            ["--replicas", "3"],
            "expected a divisor of 2, the number of ranks, got 3",
            marks=pytest.mark.slow,  # also in tests/single
        ),
        pytest.param(
            ["--stages", "2", "--replicas", "2"],
            "expected as many as there are ranks, 2, got 2 * 2 = 4: start 4 ranks",
            marks=pytest.mark.slow,  # as --stages 3
        ),
        (["--data", "mnist"], "no directory was given"),
        pytest.param(
            ["--cuts", "4"],
            "expected rising numbers from 1 to 3",
            marks=pytest.mark.slow,  # also in tests/single
        ),
    ],
)
def test_flags_that_are_wrong(flags: list[str], message: str) -> None:
    result = run(mpirun(*[[*JOB, *flags]] * 2))
    assert result.code == 1, result.text
    assert "Traceback" not in result.text, result.text
    assert "MPI_ABORT" not in result.text, "every rank knows why: nobody has to be ended"
    assert result.text.count(message) == 2, result.text
