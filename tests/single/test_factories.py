"""Functions of the user's by name: what may be wrong with them is told in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from knet_hvd.data import ImageDataset, load_dataset
from knet_hvd.data.settings import ImageSettings
from knet_hvd.errors import KnetError
from knet_hvd.factories import Factory, is_path
from knet_hvd.models import ModelFactory, build_model
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder

NET = """
from torch import nn

SIZE = 3


def build(in_shape, num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_shape[0], round(4 * width)), nn.ReLU(),
                         nn.Linear(round(4 * width), num_classes))


def small():
    return nn.Sequential(nn.Linear(2, 3))


def all_of_them(**sizes):
    return nn.Sequential(nn.Linear(len(sizes), 1))


def asks_for_more(in_shape, color):
    return nn.Sequential(nn.Linear(2, 3))


def a_layer(in_shape):
    return nn.Linear(2, 3)


def empty():
    return nn.Sequential()


def fails(num_classes):
    return nn.Linear(2, {"ten": 10}[num_classes])
"""
DATA = """
import torch

from knet_hvd.data import Dataset, ImageDataset


def load(data_dir):
    x = torch.arange(8.0).reshape(4, 2)
    return Dataset((x, x.sum(1)), (x, x.sum(1)), metrics={})


def images():
    x = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4)
    return ImageDataset((x, torch.tensor([0, 1])), (x, torch.tensor([1, 0])), 2)


def unpaired():
    return Dataset((torch.zeros(3), torch.zeros(2)), (torch.zeros(1), torch.zeros(1)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the user's package; forget its modules afterwards."""
    package = tmp_path / "ownpkg"
    package.mkdir()
    for name, text in (
        ("__init__", ""),
        ("net", NET),
        ("data", DATA),
        ("no_syntax", "def build(:\n"),
        ("needs_more", "import package_that_is_not_there\n"),
        ("broken", "one = 1\none / 0\n"),
    ):
        (package / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "ownpkg"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["a:", ":b", "a:b:c", "a.:b", "a b:c", "1a:b", "a:b()", "a/b:c"])
def test_what_is_no_path_is_refused_before_anything_is_imported(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a name as package\.module:function, got"):
        is_path(name)


def test_a_function_gets_the_sizes_that_it_asks_for() -> None:
    sizes = {"in_shape": (6,), "num_classes": 3, "width": 0.5}
    whole = build_model("ownpkg.net:build", in_shape=(6,), num_classes=3, width=0.5)
    assert [tuple(p.shape) for p in whole.parameters()] == [(2, 6), (2,), (3, 2), (3,)]
    assert len(Factory("ownpkg.net:small").call(nn.Sequential, sizes)) == 1
    assert Factory("ownpkg.net:all_of_them").call(nn.Sequential, sizes)[0].in_features == 3


def test_a_users_network_in_stages_has_the_values_of_one_process() -> None:
    factory = ModelFactory("ownpkg.net:build")
    torch.manual_seed(1)
    whole = factory(in_shape=(6,), num_classes=3)
    torch.manual_seed(1)
    builder = BlockBuilder(lambda: factory(in_shape=(6,), num_classes=3))
    last = builder.build([3])
    assert torch.equal(last.state_dict()["3.weight"], whole.state_dict()["3.weight"])


def test_blocks_of_the_users_that_are_layers_stay_blocks() -> None:
    model = build_model("ownpkg.net:build", in_shape=(6,), num_classes=3, layerwise=True)
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.net:build", r"nowhere\.net:build: there is no module nowhere, in .*"),
        ("ownpkg.nowhere:build", r"there is no module ownpkg\.nowhere, in "),
        ("ownpkg.net:construct", r"ownpkg\.net has no construct; it has build, small, "),
        ("ownpkg.net:SIZE", r"expected a function, got int \('3'\)"),
        ("ownpkg.no_syntax:build", r"importing ownpkg\.no_syntax raised SyntaxError: .*line 1"),
        (
            "ownpkg.needs_more:build",
            r"raised ModuleNotFoundError: No module named 'package_that_is_not_there' "
            r"\(.*needs_more\.py, line 1\)",
        ),
        (
            "ownpkg.broken:build",
            r"importing ownpkg\.broken raised ZeroDivisionError: .*broken\.py, line 2\)",
        ),
        ("ownpkg.net:asks_for_more", r"it asks for color, and may ask for in_shape, num_classes"),
        ("ownpkg.net:a_layer", r"expected it to return .*\.Sequential, got Linear"),
        ("ownpkg.net:empty", r"a network of one block or more, got none"),
        ("ownpkg.net:fails", r"it raised KeyError: 5 \(.*net\.py, line \d+\)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(path: str, message: str) -> None:
    with pytest.raises((KnetError, ValueError), match=message) as error:
        build_model(path, in_shape=(6,), num_classes=5)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text


def test_a_users_data_set_is_what_the_function_returns(folder: Path) -> None:
    dataset = load_dataset("ownpkg.data:load", folder)
    assert len(dataset.train) == 4
    assert dataset.in_shape == (2,)
    assert dataset.num_classes is None
    assert dataset.metrics == {}


def test_a_users_images_take_the_settings_of_images() -> None:
    settings = ImageSettings(crop_size=2, inputs="unit", augment=True)
    dataset = load_dataset("ownpkg.data:images", None, settings)
    assert isinstance(dataset, ImageDataset)
    assert dataset.in_shape == (1, 2, 2)
    assert dataset.augment is not None
    with pytest.raises(ValueError, match=r"crop_size: expected no such setting .* got 2"):
        load_dataset("ownpkg.data:load", None, ImageSettings(crop_size=2))


def test_a_data_set_that_does_not_fit_is_told() -> None:
    with pytest.raises(KnetError, match=r"^ownpkg\.data:unpaired: it raised ValueError: train: "):
        load_dataset("ownpkg.data:unpaired")
    with pytest.raises(KnetError, match=r"return knet_hvd\.data\.dataset\.Dataset, got Sequential"):
        load_dataset("ownpkg.net:small")
