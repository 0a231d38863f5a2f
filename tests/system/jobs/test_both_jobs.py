"""What both jobs promise: shared, so that neither falls behind the other."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.system.launch import ROOT, mpirun, run

JOBS = ["train_data_parallel", "train_pipeline"]
SOON_S = 30
both_jobs = pytest.mark.parametrize("job", JOBS)


def command(job: str, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *flags]


def raising(job: str, error: str) -> list[str]:
    worker = ROOT / "tests" / "system" / "workers" / "raise_in_step.py"
    return [sys.executable, str(worker), job, error]


@both_jobs
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "0"], "batch_size: expected at least 1, got 0"),
        (["--no-such-flag"], "no-such-flag"),
        (["--model", "resnet"], "unknown model 'resnet': choose one of alexnet"),
    ],
)
def test_a_wrong_flag_is_told_once_and_plainly(job: str, flags: list[str], message: str) -> None:
    result = run(mpirun(*[command(job, *flags)] * 2), TERM="xterm", NO_COLOR="")
    assert result.code == 2, result.text
    assert result.text.count(message) == 1, result.text
    assert "\x1b" not in result.text, result.text
    assert "Traceback" not in result.text, result.text


@both_jobs
def test_a_flag_that_is_wrong_on_one_rank_alone(job: str) -> None:
    result = run(mpirun(command(job), command(job, "--epochs", "0")))
    assert result.code == 2, result.text
    assert result.text.count("epochs: expected at least 1, got 0") == 1, result.text


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ("train_data_parallel", "RuntimeError"),
        ("train_pipeline", "MemoryError"),
        ("train_pipeline", "KeyboardInterrupt"),
        ("train_pipeline", "SystemExit"),
    ],
)
def test_an_error_on_one_rank_ends_all(job: str, error: str) -> None:
    result = run(mpirun(*[raising(job, error)] * 2))
    assert result.code == 1, result.text
    raised = re.search(r"RAISING ([\d.]+)", result.text)
    assert raised, result.text
    assert result.ended - float(raised[1]) < SOON_S, result.text
    own = f"{job}: rank 1: {error}: boom"
    assert own in result.err, result.text
    assert "Traceback (most recent call last)" in result.err, "where it was raised"
    before = result.err[: result.err.index(own)]
    assert "MPI_ABORT" not in before, "the reason comes first"
    assert "prterun" not in before


@both_jobs
def test_one_rank_alone_is_told_how_to_start_more(job: str, tmp_path: Path) -> None:
    summary = tmp_path / "new folder" / "summary.json"
    result = run(command(job, "--max-steps", "60", "--summary", str(summary)))
    assert result.code == 0, result.text
    assert result.err.startswith(f"{job}: 1 rank on 1 host; loading "), result.text
    warnings = re.findall("warning: one rank alone, .*", result.err)
    assert len(warnings) == 1, result.text
    assert f"mpirun -np 2 python {ROOT / 'jobs' / job}.py --max-steps 60" in warnings[0]
    assert f"summary: {summary}" in result.out
    trained = json.loads(summary.read_text())
    assert trained["test_accuracy"] > 0.7, "it trains all the same"
    assert trained.get("wire_bytes_per_step", 0) == trained.get("bytes_per_step", 0) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mpirun refuses root only")
def test_root_is_told_the_line_with_which_mpirun_starts() -> None:
    variables = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    without = ["env", *(part for name in variables for part in ("-u", name))]
    result = run([*without, *command("train_data_parallel", "--max-steps", "1")])
    line = re.search(r"Start with `(export .*); mpirun -np 2 python", result.err)
    assert line, result.text
    start = "mpirun --oversubscribe -np 2 true"
    assert run([*without, "bash", "-c", start]).code != 0
    assert run([*without, "bash", "-c", f"{line[1]}; {start}"]).code == 0


def test_a_launcher_of_another_mpi_is_named() -> None:
    result = run(command("train_pipeline", "--max-steps", "1"), PMI_RANK="0", PMI_SIZE="2")
    assert "2 ranks were asked for, but each runs alone" in result.err, result.text


@both_jobs
def test_ranks_that_disagree_are_told_both_values(job: str) -> None:
    others = ["--learning-rate", "0.5", "--compression", "none"]
    result = run(mpirun(command(job), command(job, *others)))
    assert result.code == 1, result.text
    assert "Traceback" not in result.text, result.text
    for rank, (own, other) in enumerate((("ternary", "none"), ("none", "ternary"))):
        (line,) = re.findall(rf"^{job}: rank {rank}: .*", result.err, flags=re.MULTILINE)
        assert f"compression: {own} here, {other} on rank {1 - rank}" in line, result.text
        assert re.search(rf"learning_rate: \S+ here, \S+ on rank {1 - rank}", line), result.text


@pytest.mark.parametrize(
    ("job", "flag"),
    [
        ("train_data_parallel", "--summary"),
        ("train_data_parallel", "--checkpoint-dir"),
        ("train_pipeline", "--logdir"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)  # the same code in the other job
            for other in (
                ("train_data_parallel", "--logdir"),
                ("train_pipeline", "--summary"),
                ("train_pipeline", "--checkpoint-dir"),
            )
        ),
    ],
)
def test_a_place_that_cannot_be_written_stops_the_job_before_training(
    job: str, flag: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    target = str(tmp_path / "file" / "below")
    result = run(mpirun(*[command(job, "--max-steps", "3", flag, target)] * 2))
    assert result.code == 1, result.text
    assert "Traceback" not in result.text, result.text
    # Ranks that only repeat what another one has told are left out.
    own = rf"^{job}: rank (\d): (?!rank \d failed).*file.* cannot be written.*"
    lines = re.findall(own, result.err, re.MULTILINE)
    # Every rank writes checkpoints; results are rank 0's, and curves those of every stage.
    expected = {"0"} if flag == "--summary" or "parallel" in job else {"0", "1"}
    expected = {"0", "1"} if flag == "--checkpoint-dir" else expected
    assert len(lines) == len(expected), result.text
    assert set(lines) == expected
    assert "1/3" not in result.text, "it had begun to train"
