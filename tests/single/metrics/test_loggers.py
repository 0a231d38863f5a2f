"""What the loggers write, read back with TensorBoard's own reader."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from knet_hvd.errors import KnetError
from knet_hvd.flat_config import Scalar
from knet_hvd.metrics import MetricLogger, TensorBoardLogger, open_logger, progress


def read_events(logdir: Path) -> Any:
    """Return what TensorBoard sees in a run's directory."""
    events = EventAccumulator(str(logdir), size_guidance={"histograms": 0})
    events.Reload()
    return events


def test_scalars_are_read_back(tmp_path: Path) -> None:
    with open_logger(tmp_path / "new" / "run", rank=0) as logger:
        logger.scalars({"train/loss": 2.5, "train/accuracy": 0.5}, step=1)
        logger.scalars({"train/loss": 1.25}, step=2)
    events = read_events(tmp_path / "new" / "run")
    loss = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert loss == [(1, 2.5), (2, 1.25)]
    assert events.Scalars("train/accuracy")[0].value == 0.5


def test_texts_are_read_back(tmp_path: Path) -> None:
    with TensorBoardLogger(tmp_path) as logger:
        logger.text("command", "python *train.py*", step=0)
    tensors = read_events(tmp_path).Tensors("command/text_summary")
    assert tensors[0].tensor_proto.string_val[0] == b"python *train.py*"


def test_images_are_read_back(tmp_path: Path) -> None:
    pixels = torch.zeros(4, 6, 3, dtype=torch.uint8)
    pixels[0, 5] = torch.tensor([255, 128, 1])
    with TensorBoardLogger(tmp_path) as logger:
        logger.image("figure", pixels, step=3)
    (event,) = read_events(tmp_path).Images("figure")
    assert (event.step, event.height, event.width) == (3, 4, 6)
    with Image.open(BytesIO(event.encoded_image_string)) as image:
        assert image.getpixel((5, 0)) == (255, 128, 1)
        assert image.getpixel((0, 3)) == (0, 0, 0)


@pytest.mark.parametrize("pixels", [torch.zeros(4, 6, 3), torch.zeros(3, 4, 6, dtype=torch.uint8)])
def test_an_image_of_another_layout_is_refused(tmp_path: Path, pixels: torch.Tensor) -> None:
    with (
        TensorBoardLogger(tmp_path) as logger,
        pytest.raises(ValueError, match=r"uint8 \[height, width, 3\], got"),
    ):
        logger.image("figure", pixels, step=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_histograms_are_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([[-1, 0], [0, 3]], dtype=dtype)
    with TensorBoardLogger(tmp_path) as logger:
        logger.histogram("gradient", values, step=4)
    (event,) = read_events(tmp_path).Histograms("gradient")
    assert event.step == 4
    histogram = event.histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (-1, 3, 4)


def test_histogram_of_a_diverged_gradient_holds_its_finite_values(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    with TensorBoardLogger(tmp_path) as logger:
        logger.histogram("some", torch.tensor([nan, 1.0, -inf]), step=0)
        logger.histogram("none", torch.tensor([nan]), step=0)
        logger.histogram("none", torch.empty(0), step=1)
    events = read_events(tmp_path)
    assert events.Histograms("some")[0].histogram_value.num == 1
    assert events.Tags()["histograms"] == ["some"]


def test_hparams_lie_in_the_run_itself(tmp_path: Path) -> None:
    config: dict[str, Scalar] = {"model": "lenet", "lr": 0.5, "num_ranks": 4, "clip": True}
    with open_logger(tmp_path, rank=0) as logger:
        logger.scalars({"test/accuracy": 0.75}, step=30)
        logger.hparams(config, ["test/accuracy"])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    events = read_events(tmp_path)
    assert events.Tags()["scalars"] == ["test/accuracy"], "no card with one point"
    assert read_hparams(events) == config
    experiment = read_plugin_data(events, "_hparams_/experiment").experiment
    names = [info.name.tag for info in experiment.metric_infos]
    assert names == ["test/accuracy"]


def read_plugin_data(events: Any, tag: str) -> Any:
    """Return the message that the HPARAMS tab reads under a tag."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = events.SummaryMetadata(tag).plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def read_hparams(events: Any) -> dict[str, bool | float | str]:
    """Return a run's settings as the HPARAMS tab shows them."""
    data = read_plugin_data(events, "_hparams_/session_start_info")
    settings = data.session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in settings.items()}


def test_hparams_refuse_what_tensorboard_cannot_compare(tmp_path: Path) -> None:
    with (
        TensorBoardLogger(tmp_path) as logger,
        pytest.raises(TypeError, match=r"'layers' must be .* got 'list'"),
    ):
        logger.hparams({"layers": [1, 2]}, [])  # type: ignore[dict-item]


@pytest.mark.parametrize(("use_logdir", "rank"), [(True, 1), (False, 0)])
def test_the_null_logger_takes_everything_and_writes_nothing(
    tmp_path: Path, use_logdir: bool, rank: int
) -> None:
    logdir = tmp_path / "run"
    with open_logger(logdir if use_logdir else None, rank=rank) as logger:
        assert type(logger) is MetricLogger
        logger.scalars({"a": 1.0}, step=0)
        logger.histogram("b", torch.zeros(3), step=0)
        logger.text("c", "d", step=0)
        logger.image("g", torch.zeros(1, 1, 3, dtype=torch.uint8), step=0)
        logger.hparams({"e": 1}, ["f"])
    assert list(tmp_path.iterdir()) == []


def test_both_loggers_offer_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(TensorBoardLogger) == public(MetricLogger)


def test_a_log_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for logdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="choose another one") as error:
            open_logger(logdir, rank=0)
        assert str(logdir) in str(error.value)
        assert "\n" not in str(error.value)


def test_without_the_optional_packages_the_fix_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(KnetError, match="pip install tensorboard"):
        open_logger(tmp_path / "run", rank=0)
    assert not (tmp_path / "run").exists()
    with pytest.raises(KnetError, match="pip install tqdm"):
        progress(range(3), desc="", rank=0)


def test_the_packages_import_without_the_optional_ones() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('tensorboard', 'tqdm', 'sklearn')))\n"
        "import knet_hvd.metrics, knet_hvd.data, knet_hvd.models"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")
