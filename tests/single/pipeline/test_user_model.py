"""What users give as a model, as blocks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from knet_hvd.pipeline.blocks.user_model import UserModel, user_model


class Layer(nn.Module):
    """A layer that torch.fx could not trace: what it does depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.sum() > 1e9:
            return x
        y: Tensor = x + self.linear(self.norm(x))
        return y


class Network(nn.Module):
    """A chain over named parts, with a skip connection, a free parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.position = nn.Parameter(torch.randn(6, 8))
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.register_buffer("scale", torch.full((8,), 0.5))
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        skip = x
        for index, layer in enumerate(self.layers):
            x = layer(x, mask)
            if index == 2:
                x = x + skip * self.scale
        y: Tensor = self.head(x)
        return y


class TwoInputs(Network):
    def forward(self, tokens: Tensor, offset: Tensor) -> Any:  # type: ignore[override]
        x = self.embed(tokens) + offset
        for layer in self.layers:
            x = layer(x)
        return self.head(x), offset


class LooksAtValues(Network):
    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(tokens)
        if x.sum() > 0:
            x = x + 1
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.head(x)
        return y


def run(model: UserModel, inputs: Any) -> Any:
    """Run all blocks in turn."""
    for block in model.blocks:
        inputs = block(inputs)
    return inputs


def keys(model: UserModel) -> list[str]:
    """Return the names of all blocks' tensors in the user's network."""
    pairs = zip(model.prefixes, model.blocks, strict=True)
    return [prefix + key for prefix, block in pairs for key in block.state_dict()]


TOKENS = torch.tensor([[0, 1, 2, 3], [4, 0, 1, 2]])


@pytest.mark.parametrize("split", [["layers.2"], ["layers.1", "layers.3"], ["head"]])
def test_a_module_that_is_split(split: list[str]) -> None:
    network = Network()
    model = user_model(network, split)
    assert len(model.source) == len(split) + 1
    assert torch.equal(run(model, TOKENS), network(TOKENS))
    assert sorted(keys(model)) == sorted(network.state_dict())


def test_a_module_with_several_inputs_and_outputs() -> None:
    network = TwoInputs()
    offset = torch.randn(2, 4, 8)
    outputs = run(user_model(network, ["layers.2"], num_inputs=2), (TOKENS, offset))
    for output, expected in zip(outputs, network(TOKENS, offset), strict=True):
        assert torch.equal(output, expected)


def test_a_function_gives_the_values_of_one_process() -> None:
    torch.manual_seed(5)
    whole = Network()
    model = user_model(Network, ["layers.1", "layers.3"])
    assert all(tensor.is_meta for tensor in model.source.skeleton.state_dict().values())
    torch.manual_seed(5)
    (block,) = model.source.build([1])
    for key, value in block.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key]), key


def test_a_function_whose_values_cannot_be_made_for_a_few_blocks() -> None:
    def build() -> nn.Sequential:
        layers = [nn.Linear(3, 3) for _ in range(3)]
        for layer in layers:
            nn.init.trunc_normal_(layer.weight)
        return nn.Sequential(*layers)

    torch.manual_seed(5)
    whole = build()
    before = torch.get_rng_state()
    model = user_model(build)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn before build"
    torch.manual_seed(5)
    (block,) = model.source.build([2])
    for key, value in block.state_dict().items():
        assert torch.equal(value, whole[2].state_dict()[key]), key


def test_lists_and_sequentials() -> None:
    relu = nn.ReLU()
    layers = [nn.Linear(3, 4), relu, nn.Linear(4, 3), relu]
    for model in (user_model(layers), user_model(nn.Sequential(*layers))):
        assert len(model.source) == 4
        assert keys(model) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert model.source.build([2])[0] is layers[2], "the user's own modules are trained"


@pytest.mark.parametrize(
    ("model", "split", "error", "text"),
    [
        (LooksAtValues, ["layers.1"], ValueError, r"test_user_model.py:\d+: if x.sum\(\) > 0"),
        (Network, ["layers.9"], ValueError, "split: expected parts of Network, such as embed"),
        (Network, ["layers"], ValueError, "calls layers once, got 0 calls"),
        (Network, [], ValueError, r"such as split=\['layers'\]; it has embed, layers, head"),
        (lambda: [nn.ReLU()], ["0"], ValueError, "got a list: its entries are the blocks"),
        (list, [], ValueError, "at least one block, got none"),
        (lambda: 3, [], TypeError, "expected nn.Sequential, a list of modules.*got int"),
    ],
)
@pytest.mark.parametrize("is_function", [False, True])
def test_what_cannot_be_cut(
    model: Callable[[], Any],
    split: list[str],
    error: type[Exception],
    text: str,
    is_function: bool,
) -> None:
    with pytest.raises(error, match=text):
        user_model(model if is_function else model(), split)
