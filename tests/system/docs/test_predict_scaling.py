"""The scaling predictor as a user runs it: one command, its files, its errors."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.system.launch import ROOT, Result, run

JOB = [sys.executable, str(ROOT / "jobs" / "predict_scaling.py")]
OWN = ["--parameters", "25.6e6", "--images-per-s-per-gpu", "380"]
OWN += ["--batch-per-gpu", "64", "--name", "ResNet-50"]


def predict(folder: Path, *flags: str) -> Result:
    return run([*JOB, "--figure", str(folder / "new" / "scaling.png"), *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scaling")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    flags = ["--logdir", str(folder / "logs")]
    result = predict(folder, *flags, "--summary", str(folder / "results" / "s.json"))
    assert result.code == 0, result.text
    return result


def test_the_figure_is_a_png_that_shows_something(result: Result, folder: Path) -> None:
    with Image.open(folder / "new" / "scaling.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 800
        assert len(image.convert("RGB").getcolors(2**24)) > 100
    assert str(folder / "new" / "scaling.png") in result.out


def test_the_summary_holds_curves_and_comparison(result: Result, folder: Path) -> None:
    summary = json.loads((folder / "results" / "s.json").read_text())
    assert len(summary["curves"]) == 6
    assert len(summary["paper"]) == 15
    first = summary["curves"][0]
    assert first["network"] == "AlexNet"
    assert first["num_gpus"] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert set(first["images_per_s"]) == {"fp32", "fp16", "ternary"}
    assert first["one_node_images_per_s"] == pytest.approx(1500)
    assert summary["config"]["max_gpus"] == 512


def test_the_tables_name_the_one_node_baseline(result: Result) -> None:
    assert result.out.count("one node of 4:") == 6
    assert "VGG-A, (b) P100, NVLink, 100 Gbit/s InfiniBand" in result.out
    assert "not measured" in result.out


def test_tensorboard_shows_figure_curves_and_tables(result: Result, folder: Path) -> None:
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    (image,) = events.Images("scaling")
    assert min(image.width, image.height) > 800
    curves = [tag for tag in events.Tags()["scalars"] if tag.endswith("/ternary")]
    assert len(curves) == 6
    assert [event.step for event in events.Scalars(curves[0])][-1] == 512
    assert "scaling/text_summary" in events.Tags()["tensors"]


def test_the_comparison_with_the_paper_is_the_one_in_the_docs(tmp_path: Path) -> None:
    result = predict(tmp_path, "--check-paper")
    assert result.code == 0, result.text
    table = result.out.split("\n\n")[0]
    assert table.count("miss") == 3
    assert table in (ROOT / "docs" / "results.md").read_text()


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    summary = tmp_path / "s.json"
    flags = ["--gpus-per-node", "8", "--max-gpus", "64", "--summary", str(summary)]
    result = predict(tmp_path, *OWN, *flags)
    assert result.code == 0, result.text
    (curve,) = json.loads(summary.read_text())["curves"]
    assert curve["num_gpus"] == [1, 2, 4, 8, 16, 32, 64]
    assert (tmp_path / "new" / "scaling.png").exists()


def test_an_incomplete_network_is_refused_in_words(tmp_path: Path) -> None:
    result = predict(tmp_path, *OWN[:2])
    assert result.code == 2
    assert "got no images_per_s_per_gpu, batch_per_gpu" in result.text
    assert "Traceback" not in result.text


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("")
    result = predict(tmp_path)
    assert result.code == 1
    assert result.err.startswith("predict_scaling: figure ")
    assert "Traceback" not in result.text


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    result = run(["env", "-C", str(tmp_path), *JOB])
    assert result.code == 0, result.text
    assert result.out.endswith("A projection, not measured.\n")
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(tmp_path: Path) -> None:
    result = run([*JOB, "--help"])
    assert result.code == 0
    for words in ("--inter-node-gbit-per-s", "10^9 bits/s", "one-node", "projection"):
        assert words in result.out
