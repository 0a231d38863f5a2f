"""Disturb running jobs at random moments, and count what was lost.

    sudo python benchmarks/faults/faults.py --trials 60
    python benchmarks/faults/faults.py --trials 10 --faults kill hang --jobs pipeline

Each trial starts a job with checkpoints (two replicas; two stages; two stages of two
replicas), waits for its first checkpoint, and does it harm: kills a rank or all, stops
one for some seconds or for good, cuts a host off the network, fills the disk, asks it
to stop, or starts a second job in its folder. The job must then end soon, with the
right exit code and a reason, and leave no process; or continue, where the fault passes. At
last the same command is run again: it must continue from the last checkpoint that was on
the disk, and end with the parameters of an undisturbed run, bit for bit. Other trials
give the job a log directory that cannot be written. Prints JSON, or with --table
Markdown, and every loss as it comes; exits with 1 if there was one. Cutting the network
and filling disks needs root.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network
from benchmarks.faults.fault_injection import FAULTS, Fault, RunningJob, rank_pids
from benchmarks.faults.fault_jobs import (
    JOBS,
    LIMIT_S,
    command_of,
    end_session,
    finish,
    run,
    start,
    summary_of,
    wait_for_checkpoint,
)
from benchmarks.faults.trial_checks import (
    check_end,
    check_read_only_logs,
    mounted_disk,
    wait_until_gone,
)
from knet_hvd.checkpoint import CheckpointStore
from knet_hvd.metrics import progress

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
        code, text = run(command_of(job, folder), folder / "output.txt")
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
            output, second = folder / "output.txt", folder / "second.txt"
            process = start(line, output)
            stack.callback(end_session, process.pid)
            wait_for_checkpoint(store, process, output)
            time.sleep(self._random.random())
            again = partial(run, line, second)
            running = RunningJob(process, folder, again, self._random)
            undo = fault.inject(running)
            injected = time.monotonic()
            try:
                code, text = finish(process, output, LIMIT_S)
            finally:
                undo()
            ended_s = time.monotonic() - injected
            check_end(fault, code, text)
            assert not running.notes, running.notes
            left = wait_until_gone(folder, process.pid)
            assert not left, f"processes {left} are left"
            saved = store.steps()[0]
            # The same command once more: it has to continue where the disk says.
            code, text = run(line, second)
            assert code == 0, f"the next run failed ({code}): {text[-2000:]}"
        summary = summary_of(folder)
        resumed = summary["resumed_step"]
        assert resumed == saved, f"step {saved} was saved, {resumed} was resumed"
        same = summary["parameters_sha256"] == self._undisturbed[job]
        assert same, "the parameters are not those of an undisturbed run"
        return {"ended_after_s": round(ended_s, 1), "resumed_step": resumed}


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
