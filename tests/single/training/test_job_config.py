"""Settings that both jobs have, and their types."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from knet_hvd.training.config import JobConfig, may_differ
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.loop.learning_rate import set_learning_rate
from knet_hvd.training.pipeline.config import PipelineConfig

both_jobs = pytest.mark.parametrize("config", [TrainingConfig, PipelineConfig])


@both_jobs
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", nn.Linear(1, 1), "model: expected str, got Linear"),
        ("logdir", "runs", "logdir: expected Path or None, got str"),
        ("epochs", 1.5, "epochs: expected int, got float"),
        ("epochs", True, "epochs: expected int, got bool"),
        ("learning_rate", "0.1", "learning_rate: expected float, got str"),
        ("ternary", {"seed": 1}, "ternary: expected TernaryConfig, got dict"),
    ],
)
def test_a_setting_of_another_type_is_refused_by_name(
    config: type[JobConfig], name: str, value: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        config(**{name: value})


@both_jobs
def test_a_choice_that_does_not_exist(config: type[JobConfig]) -> None:
    with pytest.raises(ValueError, match="optimizer: expected one of sgd, momentum, adam, got 'x'"):
        config(optimizer="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="crop_size: expected int or None, got tuple"):
        config(crop_size=(1, 2))  # type: ignore[arg-type]
    assert config(learning_rate=1).learning_rate == 1


@both_jobs
@pytest.mark.parametrize("name", ["epochs", "batch_size", "max_steps", "checkpoint_every"])
def test_a_number_out_of_range(config: type[JobConfig], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        config(**{name: 0})  # type: ignore[arg-type]


@both_jobs
def test_what_a_resumed_run_may_change(config: type[JobConfig]) -> None:
    free = may_differ(config)
    assert {"epochs", "logdir", "resume", "timeout_s", "log_every"} <= free
    assert not {"model", "learning_rate", "seed", "average_decay", "ternary"} & free


@both_jobs
def test_only_what_differs_from_the_defaults_is_shown(config: type[JobConfig]) -> None:
    assert config().not_default() == {}
    assert config(epochs=3, logdir=Path("runs")).not_default() == {"epochs": 3, "logdir": "runs"}


@pytest.mark.parametrize(
    ("schedule", "half_way"), [("constant", 0.2), ("polynomial", 0.2 * 0.5**0.5), ("cosine", 0.1)]
)
def test_learning_rates(schedule: Any, half_way: float) -> None:
    groups = [{"lr": 0.2}]
    set_learning_rate(groups, schedule, 0.2, remaining=0.5)
    assert groups[0]["lr"] == pytest.approx(half_way)
    set_learning_rate(groups, schedule, 0.2, remaining=1.0)
    assert groups[0]["lr"] == pytest.approx(0.2)


READ_FLAGS = {
    "data_parallel": """
        from knet_hvd.training.data_parallel.flags import parse_config
        read = lambda flags: parse_config(flags, "")
    """,
    "pipeline": """
        from knet_hvd.training.pipeline.flags import parse_config
        read = lambda flags: parse_config(flags, "")
        for kind in ("backprop", "synthetic", "conditioned", "local", "delayed"):
            read(["--decoupler", kind, "--microbatches", "1"])
    """,
}


@pytest.mark.parametrize("job", READ_FLAGS)
def test_flags_are_read_and_refused_without_torch_and_mpi(job: str) -> None:
    """Importing those takes seconds, which a wrong flag must not wait for."""
    code = f"""
        import sys
        import knet_hvd.training.cli
        {READ_FLAGS[job]}
        assert read(["--epochs", "3", "--model", "mlp"]).epochs == 3
        for wrong in (["--epochs", "0"], ["--model", "resnet"], ["--data", "imagenet"]):
            try:
                read(wrong)
            except (ValueError, SystemExit):
                continue
            raise AssertionError(wrong)
        print([m for m in ("torch", "numpy", "horovod", "mpi4py") if m in sys.modules])
    """
    code = textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
