"""The data-parallel job on handwritten digits, two ranks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from knet_hvd.models import build_model
from tests.system.launch import JOB, Result, mpirun, run

FLAGS = ["--epochs", "10", "--learning-rate", "0.02", "--model", "lenet"]
KEYS = {
    "test_accuracy",
    "train_seconds",
    "samples_per_second",
    "num_ranks",
    "wire_bytes_per_step",
    "uncompressed_wire_bytes_per_step",
    "compression_ratio",
    "parameters_sha256",
    "config",
}
Train = Callable[..., dict[str, Any]]


def train_job(
    folder: Path, *flags: str, num_ranks: int = 2, **environment: str
) -> tuple[dict[str, Any], Result]:
    summary = folder / "results" / "summary.json"
    command = [*JOB, *FLAGS, *flags, "--summary", str(summary)]
    result = run(mpirun(*[command] * num_ranks), **environment)
    assert result.code == 0, result.text
    return json.loads(summary.read_text()), result


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorboard")


@pytest.fixture(scope="module")
def ternary(tmp_path_factory: pytest.TempPathFactory, logdir: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ternary")
    flags = ["--logdir", str(logdir), "--histogram-every", "50"]
    return train_job(folder, *flags)[0]


def test_the_summary_holds_what_a_reader_needs(ternary: dict[str, Any]) -> None:
    assert set(ternary) >= KEYS
    assert ternary["num_ranks"] == 2
    assert ternary["config"]["compression"] == "ternary"
    assert ternary["config"]["learning_rate"] == 0.02
    assert 15 < ternary["compression_ratio"] < 20
    sent, full = (ternary["wire_bytes_per_step"], ternary["uncompressed_wire_bytes_per_step"])
    assert full == 4 * ternary["num_parameters"]
    assert full / sent == pytest.approx(ternary["compression_ratio"])
    assert len(ternary["parameters_sha256"]) == 64


def test_the_same_command_gives_the_same_parameters(
    ternary: dict[str, Any], tmp_path: Path
) -> None:
    """Not even TensorBoard, which the first run wrote, or a profile makes a difference."""
    again, result = train_job(tmp_path, "--profile", str(tmp_path / "traces"))
    assert again["parameters_sha256"] == ternary["parameters_sha256"]
    assert again["test_accuracy"] == ternary["test_accuracy"]
    assert "lenet on digits, 2 ranks, ternary: test accuracy 0.9" in result.out
    for rank in range(2):
        trace = json.loads((tmp_path / "traces" / f"rank{rank}.json").read_text())
        names = {event.get("name") for event in trace["traceEvents"]}
        ranges = ("statistics", "encode", "exchange", "decode")
        assert {f"knet_hvd::{name}" for name in ranges} <= names


def test_ternary_is_as_accurate_as_fp32(ternary: dict[str, Any], tmp_path: Path) -> None:
    fp32, _ = train_job(tmp_path, "--compression", "none")
    assert fp32["test_accuracy"] > 0.95
    assert ternary["test_accuracy"] > fp32["test_accuracy"] - 0.02
    assert fp32["compression_ratio"] == 1
    assert fp32["wire_bytes_per_step"] == ternary["uncompressed_wire_bytes_per_step"]
    assert fp32["parameters_sha256"] != ternary["parameters_sha256"]


def test_tensorboard_shows_curves_and_histograms(ternary: dict[str, Any], logdir: Path) -> None:
    assert len(list(logdir.glob("events.*"))) == 1  # of rank 0
    events = EventAccumulator(str(logdir), {"histograms": 0})  # 0: all
    events.Reload()
    tags = events.Tags()
    scales = {tag for tag in tags["scalars"] if tag.startswith("scale/")}
    assert len(scales) >= 3, tags
    assert all(tag.endswith(".weight") for tag in scales)
    expected = {"train/loss", "test/accuracy", "wire/bytes_per_step"}
    assert expected <= set(tags["scalars"])
    assert not any(len(events.Scalars(tag)) == 1 for tag in tags["scalars"]), "curves only"
    shown = hyperparameters(events)
    assert shown.keys() == {
        "model",
        "data",
        "compression",
        "num_ranks",
        "learning_rate",
        "histogram_every",
    }
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses[-1] < losses[0] / 4
    accuracies = [event.value for event in events.Scalars("test/accuracy")]
    assert len(accuracies) == 10
    assert accuracies[-1] == pytest.approx(ternary["test_accuracy"])
    sent = {event.value for event in events.Scalars("wire/bytes_per_step")}
    assert list(sent) == [pytest.approx(ternary["wire_bytes_per_step"])]
    kinds = {"1 original", "2 clipped", "3 ternary", "4 averaged"}
    layers = {tag.rsplit("/", 1)[0] for tag in tags["histograms"]}
    assert len(layers) == 2
    assert {f"{layer}/{kind}" for layer in layers for kind in kinds} == set(tags["histograms"])
    assert len(events.Histograms(sorted(tags["histograms"])[0])) >= 4


def hyperparameters(events: Any) -> dict[str, Any]:
    """Return a run's row of the HPARAMS tab."""
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    return dict(data.session_start_info.hparams)


def test_horovods_own_optimizer_trains_as_well(tmp_path: Path) -> None:
    summary, _ = train_job(tmp_path, "--exchange", "allreduce")
    assert summary["test_accuracy"] > 0.95
    assert 8 < summary["compression_ratio"] < 14


def test_the_codec_without_its_native_library(tmp_path: Path) -> None:
    flags = ["--max-steps", "5"]
    (tmp_path / "native").mkdir()
    slow, result = train_job(tmp_path, *flags, KNET_EXT="off")
    fast, native = train_job(tmp_path / "native", *flags)
    assert slow["parameters_sha256"] == fast["parameters_sha256"]
    assert result.text.count("no native codec kernel for cpu tensors") == 2, result.text
    assert "no native codec kernel" not in native.text


def test_bf16_and_crops_train_as_well(tmp_path: Path) -> None:
    flags = ["--model", "mlp", "--precision", "bf16", "--crop-size", "7", "--augment"]
    summary, _ = train_job(tmp_path, *flags)
    model = build_model("mlp", in_shape=(1, 7, 7), num_classes=10)
    assert summary["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert summary["test_accuracy"] > 0.8


def test_auto_says_what_it_chose_and_why(tmp_path: Path) -> None:
    flags = ["--compression", "auto", "--epochs", "1"]
    summary, result = train_job(tmp_path, *flags)
    advice = summary["compression_advice"]
    assert advice.startswith(("use ", "do not compress here"))
    assert advice in result.text
    for method in ("fp32", "fp16", "allgather", "alltoall"):
        assert f"{method} " in advice


def test_auto_is_not_for_horovods_own_optimizer(tmp_path: Path) -> None:
    flags = ["--compression", "auto", "--exchange", "allreduce"]
    result = run(mpirun([*JOB, *flags]))
    assert result.code != 0
    assert "exchange allreduce" in result.text
