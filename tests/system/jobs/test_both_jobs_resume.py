"""Both jobs continue from their checkpoints: disturbed or not, they end in the same bits."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, CheckpointStore
from tests.system import launch
from tests.system.jobs.test_checkpoints import rank_pids, wait_for
from tests.system.launch import ROOT, mpirun, run, started

FLAGS = {
    "train_data_parallel": [
        *("--model", "mlp", "--batch-size", "8", "--epochs", "8", "--learning-rate", "0.02"),
        "--ternary.error-feedback",
    ],
    # Late gradients are under way between the stages whenever the state is saved.
    "train_pipeline": [
        *("--decoupler", "delayed", "--deterministic", "--width", "0.25", "--epochs", "24"),
    ],
}
EVERY = 9
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Chain:
    """A job in a folder: each test disturbs it once more, and the last one lets it end."""

    job: str
    folder: Path

    def line(self, *flags: str) -> list[str]:
        """Return a command line of two ranks."""
        program = [sys.executable, str(ROOT / "jobs" / f"{self.job}.py"), *FLAGS[self.job]]
        output = ["--log-every", "1", "--logdir", str(self.folder / "curves")]
        output += ["--summary", str(self.folder / "summary.json")]
        return mpirun(*[[*program, *output, *flags]] * 2)

    @property
    def saves(self) -> list[str]:
        """Return the flags that make it save its state."""
        return ["--checkpoint-dir", str(self.checkpoints), "--checkpoint-every", str(EVERY)]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def saved(self) -> list[int]:
        """Return the steps of the checkpoints, the latest first."""
        return CheckpointStore(self.checkpoints).steps()

    @contextmanager
    def running(self, *flags: str) -> Iterator[subprocess.Popen[str]]:
        """Start it, and wait until it has saved more than there was."""
        before = (self.saved or [0])[0]
        with started(self.line(*self.saves, *flags)) as process:
            wait_for(lambda: (self.saved or [0])[0] > before, process)
            yield process

    def results(self) -> dict[str, Any]:
        """Return what is the same in every run of the same steps."""
        summary = json.loads((self.folder / "summary.json").read_text())
        stages = [stage["parameters_sha256"] for stage in summary.get("stages", [])]
        kept = ("parameters_sha256", "test_accuracy", "train_loss", "steps")
        return {"stages": stages, **{key: summary.get(key) for key in kept}}

    def losses(self) -> list[tuple[int, float]]:
        """Return the curve of the loss that a reader sees."""
        last = self.folder / "curves" / "stage1"
        logdir = last if last.exists() else last.parent
        events = EventAccumulator(str(logdir), {"scalars": 0}).Reload()
        return [(event.step, event.value) for event in events.Scalars("train/loss")]


@pytest.fixture(scope="module", params=list(FLAGS))
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(request.param, tmp_path_factory.mktemp(request.param))


def test_a_signal_to_the_launcher_stops_the_job_with_its_state_saved(chain: Chain) -> None:
    with chain.running() as process:
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode == STOPPED_EXIT_CODE == 75, err
    ((step, path),) = re.findall(r"stopped by SIGUSR1 after step (\d+), saved in (\S+):", err)
    assert int(step) >= EVERY
    assert chain.saved[0] == int(step)
    assert Path(path) == chain.checkpoints / f"step-{int(step):09d}"


def test_a_rank_that_is_killed_loses_nothing_that_was_saved(chain: Chain) -> None:
    before = chain.saved[0]
    with chain.running("--resume", "must") as process:
        victim = Random(os.getpid()).choice(rank_pids(str(chain.folder)))
        os.kill(victim, signal.SIGKILL)
        out, _ = process.communicate(timeout=launch.LIMIT_S)
    assert process.returncode not in (0, STOPPED_EXIT_CODE)
    assert f"resuming after step {before}\n" in out
    assert chain.saved[0] > before


def test_the_same_command_passes_over_an_altered_shard_and_ends_in_the_same_bits(
    chain: Chain, tmp_path: Path
) -> None:
    """As a run that was neither stopped nor killed, and that saved nothing."""
    latest, before = chain.saved[:2]
    shard = chain.checkpoints / f"step-{latest:09d}" / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = run(chain.line(*chain.saves))
    assert result.code == 0, result.text
    assert "damaged checkpoint: " in result.err
    assert f"{shard}: altered" in result.err
    assert f"resuming after step {before}\n" in result.out
    straight = Chain(chain.job, tmp_path)
    undisturbed = run(straight.line())
    assert undisturbed.code == 0, undisturbed.text
    assert chain.results() == straight.results()
    assert chain.losses() == straight.losses()
    assert not list(chain.checkpoints.glob("*.partial"))
