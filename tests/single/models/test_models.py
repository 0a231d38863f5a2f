"""The networks: sizes as published, shapes, seeds, and cuts between blocks."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from knet_hvd.models import build_model, num_parameters
from knet_hvd.models.blocks import layers_as_blocks
from knet_hvd.models.cifarnet import _pool, _response_norm
from knet_hvd.models.registry import IMAGE_MODELS
from knet_hvd.models.response_norm import ResponseNorm
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder

DIGITS, MNIST, CIFAR10 = (1, 8, 8), (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "in_shape", "expected"),
    [
        ("lenet", MNIST, 431_080),
        ("mlp", MNIST, 545_810),
        ("cifarnet", CIFAR10, 1_756_426),
        ("cifarnet", (3, 24, 24), 1_068_298),
        ("alexnet", CIFAR10, 23_273_418),
        ("vgg16", CIFAR10, 14_724_042),
        ("mnist4", MNIST, 1_675_082),
        ("mnist8", MNIST, 968_042),
        ("resnet20", CIFAR10, 272_474),
    ],
)
def test_parameter_counts_are_as_documented(
    name: str, in_shape: tuple[int, int, int], expected: int
) -> None:
    model = build_model(name, in_shape=in_shape, num_classes=10)
    assert num_parameters(model) == expected


@pytest.mark.parametrize(("width", "millions"), [(0.5, 3.7), (0.75, 8.3)])
def test_width_scales_vgg16(width: float, millions: float) -> None:
    model = build_model("vgg16", in_shape=CIFAR10, num_classes=10, width=width)
    assert round(num_parameters(model) / 1e6, 1) == millions


@pytest.mark.parametrize("in_shape", [DIGITS, MNIST, CIFAR10])
@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_every_model_maps_every_data_set_to_logits(
    name: str, in_shape: tuple[int, int, int]
) -> None:
    model = build_model(name, in_shape=in_shape, num_classes=7, width=0.25)
    logits = model(torch.randn(2, *in_shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_a_seed_determines_the_parameters(name: str) -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        model = build_model(name, in_shape=MNIST, num_classes=10, width=0.1)
        return model.state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_a_network_may_be_cut_between_any_two_blocks(name: str) -> None:
    model = build_model(name, in_shape=MNIST, num_classes=10, width=0.1).eval()
    images = torch.randn(2, *MNIST)
    whole = model(images)
    for cut in range(1, len(model)):
        activation = model[:cut](images)
        assert torch.equal(model[cut:](activation), whole)


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_block_does_not_overwrite_its_input(layerwise: bool) -> None:
    # The rank before keeps its output for its own backward pass.
    for name in IMAGE_MODELS:
        model = build_model(name, in_shape=CIFAR10, num_classes=10, width=0.1, layerwise=layerwise)
        activation = torch.randn(2, *CIFAR10)
        for block in model:
            before = activation.clone()
            output = block(activation)
            assert torch.equal(activation, before), name
            activation = output.detach()


def test_block_names_are_those_of_the_layers() -> None:
    model = build_model("lenet", in_shape=MNIST, num_classes=10)
    assert [name for name, _ in model.named_children()] == ["conv1", "conv2", "fc3", "logits"]
    assert len(build_model("vgg16", in_shape=CIFAR10, num_classes=10, width=0.1)) == 14


@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_layers_as_blocks_are_the_same_network(name: str) -> None:
    networks = []
    for layerwise in (False, True):
        torch.manual_seed(0)
        networks.append(
            build_model(name, in_shape=MNIST, num_classes=10, width=0.1, layerwise=layerwise).eval()
        )
    whole, layers = networks
    assert len(layers) == sum(len(list(block.children())) for block in whole)
    assert not any(isinstance(layer, nn.Sequential) for layer in layers)
    images = torch.randn(2, *MNIST)
    assert torch.equal(layers(images), whole(images))
    pairs = zip(whole.parameters(), layers.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_layer_names_say_block_and_type() -> None:
    model = build_model("lenet", in_shape=MNIST, num_classes=10, layerwise=True)
    names = [name for name, _ in model.named_children()]
    assert names[:2] == ["conv1_conv2d", "conv1_maxpool2d"]


def test_two_layers_of_a_type_in_a_block_are_two_blocks() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    layers = layers_as_blocks(nn.Sequential(OrderedDict(first=block, last=nn.Linear(2, 1))))
    assert [name for name, _ in layers.named_children()] == [
        *("first_linear", "first_relu", "first_linear_2", "last")
    ]


def test_lenet_takes_the_published_shapes_on_mnist() -> None:
    model = build_model("lenet", in_shape=MNIST, num_classes=10)
    images = torch.randn(1, *MNIST)
    assert model[:1](images).shape == (1, 20, 12, 12)
    assert model[:2](images).shape == (1, 50, 4, 4)


def test_building_keeps_the_network_in_training_mode() -> None:
    for name in IMAGE_MODELS:
        model = build_model(name, in_shape=MNIST, num_classes=10, width=0.1)
        assert all(module.training for module in model.modules()), name


def test_cifarnet_starts_from_the_tutorials_values() -> None:
    torch.manual_seed(0)
    model = build_model("cifarnet", in_shape=CIFAR10, num_classes=10)
    expected = {
        "conv1.0": (0.05, 0.0),
        "conv2.0": (0.05, 0.1),
        "fc3.1": (0.04, 0.1),
        "fc4.0": (0.04, 0.1),
        "logits.0": (1 / 192, 0.0),
    }
    for name, (std, bias) in expected.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.weight.abs().max() <= 2 * std
        # Cutting a normal distribution at two deviations leaves 0.880 of one.
        assert float(layer.weight.detach().std()) == pytest.approx(0.88 * std, rel=0.05)
        assert layer.bias is not None
        assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))


def test_cifarnet_normalizes_as_tensorflow_defines_it() -> None:
    x = torch.randn(1, 12, 2, 2, dtype=torch.float64) * 30
    expected = torch.empty_like(x)
    for channel in range(12):
        window = x[:, max(0, channel - 4) : channel + 5]
        total = 1.0 + 0.001 / 9 * (window**2).sum(dim=1)
        expected[:, channel] = x[:, channel] / total**0.75
    torch.testing.assert_close(_response_norm()(x), expected)


def test_cifarnet_pools_as_same_padding_does() -> None:
    x = torch.randn(1, 1, 8, 8)
    padded = nn.functional.pad(x, (0, 1, 0, 1), value=float("-inf"))
    expected = nn.functional.max_pool2d(padded, 3, stride=2)
    assert torch.equal(_pool()(x), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "resnet"},
            "alexnet, cifarnet, lenet, mlp, mnist4, mnist8, resnet20, vgg16, transformer",
        ),
        ({"in_shape": (28, 28)}, r"lenet takes images .*, got samples of \[28, 28\]"),
        ({"name": "transformer"}, r"transformer takes sequences .*, got samples of \[1, 28, 28\]"),
        ({"in_shape": (1, 0, 28)}, "in_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"in_shape": (1, 3, 28)}, "at least 4x4 pixels, got 3x28"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "name": "lenet",
        "in_shape": MNIST,
        "num_classes": 10,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "size"), [(64, 9), (7, 5), (3, 9), (6, 4)])
def test_response_norm_equals_pytorchs(channels: int, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.LocalResponseNorm(size, 0.1, 0.75, 1.0)(x)
    actual = ResponseNorm(size, 0.1, 0.75, 1.0)(x)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((actual * weight).sum(), x)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(gradient, reference)


def builder_of(name: str, width: float) -> BlockBuilder:
    build = partial(build_model, name, in_shape=CIFAR10, num_classes=10, width=width)
    return BlockBuilder(build)


@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_some_blocks_have_the_values_of_the_whole_network(name: str) -> None:
    torch.manual_seed(3)
    whole = build_model(name, in_shape=CIFAR10, num_classes=10, width=0.3)
    following = torch.rand(3)
    expected = whole.state_dict()
    builder = builder_of(name, width=0.3)
    for own in (range(1), range(1, 3), range(2, len(whole)), range(len(whole))):
        torch.manual_seed(3)
        blocks = builder.build(own)
        assert torch.equal(torch.rand(3), following), "the generator went elsewhere"
        names = [list(whole._modules)[index] for index in own]
        assert [key for key, _ in blocks.named_children()] == names
        for key, value in blocks.state_dict().items():
            assert torch.equal(value, expected[key]), key
        assert all(parameter.requires_grad for parameter in blocks.parameters())
    assert all(tensor.is_meta for tensor in builder.skeleton.state_dict().values())


def test_each_block_can_be_run_by_itself() -> None:
    builder = builder_of("cifarnet", width=0.1)
    activation = torch.randn(2, *CIFAR10)
    for block in builder.each():
        activation = block(activation)
        assert bool(torch.isfinite(activation).all())
    assert activation.shape == (2, 10)


def own_network() -> nn.Sequential:
    """A network of a user's, with a layer that draws and one that does not."""
    return nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(20, 3))


def test_a_network_of_ones_own() -> None:
    torch.manual_seed(3)
    expected = own_network().state_dict()
    builder = BlockBuilder(own_network)
    assert builder.names == ["0", "1", "2", "3"]
    torch.manual_seed(3)
    last = builder.build([3])
    assert torch.equal(last.state_dict()["3.weight"], expected["3.weight"])


class Everything(nn.Module):
    """Initial values of all kinds: functions, constants, views, conversions, derived values."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(0.5 * torch.randn(3, 4))
        self.embedding = nn.Embedding(5, 4, padding_idx=2)
        with torch.no_grad():
            self.embedding.weight[3] = 7.0
        self.converted = nn.Linear(3, 3).half()
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool(), persistent=False)
        self.register_buffer("constant", torch.tensor([1.0, 2.0]))
        self.register_buffer("frequencies", 1 / 10.0 ** (torch.arange(0, 8, 2).float() / 8))
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.BatchNorm1d(4)


@pytest.mark.parametrize("own", [[0], [1], [2], [0, 1, 2]])
def test_initial_values_of_all_kinds(own: list[int]) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(Everything(), Everything(), nn.Linear(3, 3))

    torch.manual_seed(3)
    whole = build()
    following = torch.rand(3)
    builder = BlockBuilder(build)
    torch.manual_seed(3)
    blocks = builder.build(own)
    assert torch.equal(torch.rand(3), following), "the generator went elsewhere"
    for index, block in zip(own, blocks, strict=True):
        expected = [*whole[index].named_parameters(), *whole[index].named_buffers()]
        actual = [*block.named_parameters(), *block.named_buffers()]
        for (key, value), (name, other) in zip(expected, actual, strict=True):
            assert key == name
            assert (value.dtype, value.stride()) == (other.dtype, other.stride())
            assert torch.equal(value, other), key


def test_one_module_without_parameters_in_two_places() -> None:
    relu = nn.ReLU()
    builder = BlockBuilder(lambda: nn.Sequential(nn.Linear(3, 3), relu, nn.Linear(3, 3), relu))
    assert builder.names == ["0", "1", "2", "3"]


@pytest.mark.parametrize("initialize", [nn.init.trunc_normal_, nn.init.orthogonal_])
def test_initial_values_that_cannot_be_repeated(initialize: Callable[..., Tensor]) -> None:
    def build() -> nn.Sequential:
        layer = nn.Linear(3, 3)
        initialize(layer.weight)
        return nn.Sequential(layer)

    with pytest.raises(ValueError, match="leaves tensors of the meta device"):
        BlockBuilder(build)


def test_a_value_that_nobody_sets() -> None:
    class Unset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.empty(3))

    with pytest.raises(ValueError, match="no initial value was recorded for scale of block 0"):
        BlockBuilder(lambda: nn.Sequential(Unset()))
