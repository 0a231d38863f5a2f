"""ResNet-20: shapes, shortcuts and initial values as published."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from knet_hvd.models import build_model
from knet_hvd.models.resnet20 import ResidualUnit


def test_groups_have_the_published_shapes() -> None:
    model = build_model("resnet20", in_shape=(3, 32, 32), num_classes=10)
    names = [name for name, _ in model.named_children()]
    units = [f"conv{group}_{unit}" for group in (2, 3, 4) for unit in (1, 2, 3)]
    assert names == ["conv1", *units, "logits"]
    activation, shapes = torch.randn(2, 3, 32, 32), []
    for block in model:
        activation = block(activation)
        shapes.append(tuple(activation.shape[1:]))
    assert shapes == [*[(16, 32, 32)] * 4, *[(32, 16, 16)] * 3, *[(64, 8, 8)] * 3, (10,)]


def test_twenty_layers_have_weights_beside_the_two_shortcuts() -> None:
    model = build_model("resnet20", in_shape=(3, 32, 32), num_classes=10)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    shortcuts = [name for name in layers if "shortcut" in name]
    assert len(layers) - len(shortcuts) == 20
    assert [name.split(".")[0] for name in shortcuts] == ["conv3_1", "conv4_1"]


def test_a_unit_adds_its_input() -> None:
    torch.manual_seed(0)
    unit = ResidualUnit(8, 8, 1).eval()
    images = torch.randn(2, 8, 6, 6)
    first, norm1, _, second, norm2 = unit.residual
    expected = functional.relu(norm2(second(functional.relu(norm1(first(images))))) + images)
    torch.testing.assert_close(unit(images), expected)


def test_initial_values_are_those_of_he_et_al() -> None:
    torch.manual_seed(0)
    model = build_model("resnet20", in_shape=(3, 32, 32), num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            assert float(module.weight.detach().std()) == pytest.approx(
                math.sqrt(2 / fan_in), rel=0.15
            )
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
