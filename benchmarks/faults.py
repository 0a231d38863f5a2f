"""Disturb running jobs at random moments, and count what was lost.

    sudo python benchmarks/faults.py --trials 60
    python benchmarks/faults.py --trials 10 --faults kill hang --jobs pipeline

Each trial starts a job with checkpoints (two replicas; two stages; two stages of two
replicas), waits for its first checkpoint, and does it harm: kills a rank or all, stops
one for some seconds or for good, cuts a host off the network, fills the disk, asks it
to stop, or starts a second job in its folder. The job must then end soon, with the
right exit code and a reason, and leave no process; or go on, where the fault passes. At
last the same command is run again: it must go on from the last checkpoint that was on
the disk, and end with the parameters of an undisturbed run, bit for bit. Other trials
give the job a log directory that cannot be written. Prints JSON, or with --table
Markdown, and every loss as it comes; exits with 1 if there was one. Cutting the network
and filling disks needs root.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import slow_network
from benchmarks.fault_injection import (
    FAULTS,
    LARGE_DISK,
    Fault,
    RunningJob,
    rank_pids,
)
from knet_hvd.checkpoint import CheckpointStore
from knet_hvd.metrics import progress

ROOT = Path(__file__).parents[1]
LIMIT_S = 60.0
TIMEOUT_FLAGS = ["--timeout-s", "20"]
SHARED = ["--epochs", "80", "--checkpoint-every", "20", *TIMEOUT_FLAGS]
PIPELINE = ["train_pipeline.py", *SHARED, "--deterministic", "--width", "0.5"]
SYNTHESIZER = ["--synthesizer.hidden-units", "8", "--synthesizer.kernel-size", "3"]
JOBS: dict[str, tuple[int, list[str]]] = {
    "data_parallel": (
        2,
        [
            *("train_data_parallel.py", *SHARED, "--model", "mlp"),
            *("--ternary.error-feedback", "--learning-rate", "0.02"),
        ],
    ),
    "pipeline": (2, [*PIPELINE, "--decoupler", "synthetic", *SYNTHESIZER]),
    "hybrid": (
        4,
        [*PIPELINE, "--decoupler", "local", "--replicas", "2", "--batch-size", "32"],
    ),
}
READ_ONLY_LOGS = "read_only_logs"


class Campaign:
    """Run trials, and hold the results of undisturbed runs."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Use a folder for all files."""
        self._folder = folder
        self._random = Random(seed)
        self._undisturbed: dict[str, str] = {}
        self._number = 0

    def trial(self, job: str, fault: str) -> dict[str, Any]:
        """Run one trial; return what was tried, and what was lost ("" for nothing)."""
        self._number += 1
        folder = self._folder / f"trial-{self._number}"
        folder.mkdir()
        if job not in self._undisturbed:
            self._undisturbed[job] = self._run_undisturbed(job)
        begin = time.monotonic()
        result: dict[str, Any] = {"job": job, "fault": fault}
        try:
            if fault == READ_ONLY_LOGS:
                check_read_only_logs(job, folder)
            else:
                result |= self._disturb(job, FAULTS[fault], folder)
            result["lost"] = ""
        except AssertionError as failure:
            result["lost"] = str(failure)
        left = rank_pids(folder)
        if left:
            result["lost"] += f" processes {left} are left"
            for pid in left:
                os.kill(pid, 9)
        return result | {"seconds": round(time.monotonic() - begin, 1)}

    def _run_undisturbed(self, job: str) -> str:
        folder = self._folder / f"undisturbed-{job}"
        folder.mkdir()
        code, text = run(command_of(job, folder))
        if code:
            raise RuntimeError(f"{job} fails without any fault:\n{text}")
        return str(summary_of(folder)["parameters_sha256"])

    def _disturb(self, job: str, fault: Fault, folder: Path) -> dict[str, Any]:
        with ExitStack() as stack:
            if fault.on_hosts:
                stack.enter_context(slow_network.hosts(JOBS[job][0], "unlimited"))
            if fault is FAULTS["fill_disk"]:
                stack.enter_context(mounted_disk(folder / "disk"))
            line = command_of(job, folder, fault.on_hosts)
            store = CheckpointStore(folder / "disk" / "checkpoints")
            process = start(line)
            wait_for_checkpoint(store, process)
            time.sleep(self._random.random())
            running = RunningJob(process, folder, lambda: run(line), self._random)
            undo = fault.inject(running)
            injected = time.monotonic()
            code, text = finish(process, LIMIT_S)
            ended_s = time.monotonic() - injected
            undo()
            check_end(fault, code, text)
            assert not running.notes, running.notes
            assert not wait_until_gone(folder), "processes are left"
            saved = store.steps()[0]
            # The same command once more: it has to go on where the disk says.
            code, text = run(line)
            assert code == 0, f"the next run failed ({code}): {text[-2000:]}"
        summary = summary_of(folder)
        resumed = summary["resumed_step"]
        assert resumed == saved, f"step {saved} was saved, {resumed} was resumed"
        same = summary["parameters_sha256"] == self._undisturbed[job]
        assert same, "the parameters are not those of an undisturbed run"
        return {"ended_after_s": round(ended_s, 1), "resumed_step": resumed}


def command_of(job: str, folder: Path, on_hosts: bool = False) -> list[str]:
    """Return the command line of a job whose files are all in a folder."""
    ranks, (script, *flags) = JOBS[job]
    program = [sys.executable, str(ROOT / "jobs" / script), *flags]
    program += ["--checkpoint-dir", str(folder / "disk" / "checkpoints")]
    program += ["--summary", str(folder / "summary.json")]
    program += ["--logdir", str(folder / "logs")]
    if on_hosts:
        exported = ["-x", "OMP_NUM_THREADS", "-x", "PYTHONPATH"]
        return [str(slow_network.HOSTS), "mpirun", *exported, *program]
    launcher = ["mpirun", "--oversubscribe", "-np", str(ranks)]
    launcher += ["--mca", "mpi_yield_when_idle", "1"]
    if os.getuid() == 0:
        launcher.append("--allow-run-as-root")
    return [*launcher, *program]


def start(line: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command line in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], limit_s: float) -> tuple[int, str]:
    """Return the exit code and all output; a process that hangs is killed."""
    try:
        text, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        text, _ = process.communicate()
        raise AssertionError(f"not over after {limit_s:g} s: {text[-2000:]}") from None
    return process.returncode, text


def run(line: Sequence[str]) -> tuple[int, str]:
    """Run a command line to its end."""
    return finish(start(line), 3 * LIMIT_S)


def wait_for_checkpoint(store: CheckpointStore, job: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint is on the disk."""
    while not store.steps():
        if job.poll() is not None:
            raise RuntimeError(f"the job ended on its own: {job.communicate()[0]}")
        time.sleep(0.02)


def wait_until_gone(folder: Path) -> list[int]:
    """Give processes some seconds to end; return those that do not."""
    deadline = time.monotonic() + 15
    while (left := rank_pids(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def check_end(fault: Fault, code: int, text: str) -> None:
    """Raise AssertionError unless a job ended as it should."""
    right = code != 0 if fault.ends_with is None else code in fault.ends_with
    assert right, f"exit code {code}: {text[-2000:]}"
    words = " ".join(text.split())  # mpirun breaks its lines
    told = not fault.explains or any(reason in words for reason in fault.explains)
    assert told, f"no reason was given: {text[-2000:]}"
    assert "Traceback" not in text, text[-3000:]


def check_read_only_logs(job: str, folder: Path) -> None:
    """Raise AssertionError unless a job refuses a log directory it cannot write."""
    (folder / "logs").touch()  # root may write everywhere, but not below a file
    code, text = run(command_of(job, folder))
    assert code not in (0, 75), f"exit code {code}"
    assert str(folder / "logs") in text, f"the directory is not named: {text[-2000:]}"
    assert "Traceback" not in text, text[-3000:]
    assert not CheckpointStore(folder / "disk" / "checkpoints").steps()


@contextmanager
def mounted_disk(folder: Path) -> Iterator[None]:
    """Have a disk of its own at a folder, so that filling it harms nobody else."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE_DISK}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def summary_of(folder: Path) -> dict[str, Any]:
    """Return a run's summary, with one digest for all stages of a pipeline."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    if "stages" in summary:
        digests = [stage["parameters_sha256"] for stage in summary["stages"]]
        summary["parameters_sha256"] = " ".join(digests)
    return summary


def table(trials: list[dict[str, Any]]) -> str:
    """Return how many trials of each kind lost nothing, as Markdown."""
    faults = list(dict.fromkeys(t["fault"] for t in trials))
    jobs = list(dict.fromkeys(t["job"] for t in trials))
    tried = Counter((t["fault"], t["job"]) for t in trials)
    good = Counter((t["fault"], t["job"]) for t in trials if not t["lost"])
    lines = ["| fault | " + " | ".join(jobs) + " |", "|---" * (1 + len(jobs)) + "|"]
    for fault in faults:
        cells = [f"{good[fault, job]} of {tried[fault, job]}" for job in jobs]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, run the trials, print JSON or a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*FAULTS, READ_ONLY_LOGS]
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--faults", nargs="+", choices=names, default=names)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    args = parser.parse_args()
    kinds = [(job, fault) for fault in args.faults for job in args.jobs]
    trials = []
    with tempfile.TemporaryDirectory(prefix="knet_hvd_faults_") as folder:
        campaign = Campaign(Path(folder), args.seed)
        with progress(desc="faults", rank=0, total=args.trials) as bar:
            for number in range(args.trials):
                trial = campaign.trial(*kinds[number % len(kinds)])
                trials.append(trial)
                bar.update()
                if trial["lost"]:
                    print("\n", json.dumps(trial), file=sys.stderr, flush=True)
    lost = sum(bool(trial["lost"]) for trial in trials)
    if args.table:
        print(table(trials), "", sep="\n")
    else:
        summary = {"trials": len(trials), "lost": lost, "all": trials}
        print(json.dumps(summary, indent=2))
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
