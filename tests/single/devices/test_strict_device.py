"""The device of the tests itself: it computes what the CPU does, and mixes with nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import strict_device

STRICT = strict_device.register()  # before any backward pass: PyTorch counts devices then

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, fused=True),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(72, 5))


def trained(optimizer: str, device: torch.device) -> list[Tensor]:
    model = network().to(device)
    learner = OPTIMIZERS[optimizer](list(model.parameters()))
    inputs, targets = torch.randn(4, 3, 8, 8).to(device), torch.arange(4).to(device)
    for _ in range(3):
        learner.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        learner.step()
    return [value.detach().cpu() for value in model.state_dict().values()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_learns_bit_for_bit_what_the_cpu_learns(optimizer: str) -> None:
    expected = trained(optimizer, torch.device("cpu"))
    assert all(map(torch.equal, trained(optimizer, STRICT), expected))


def test_a_tensor_of_the_cpu_mixes_with_none_of_its_own() -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device=STRICT)
    parameter = nn.Parameter(there)
    mixtures: list[Callable[[], object]] = [
        lambda: here + there,
        lambda: there.add_(here),
        lambda: torch.cat([there, here]),
        lambda: functional.linear(here, there),
        lambda: functional.cross_entropy(there, torch.zeros(2, dtype=torch.int64)),
        lambda: setattr(parameter, "data", here),
        lambda: torch._foreach_add([there, there], [here, here]),
    ]
    for mixture in mixtures:
        with pytest.raises(RuntimeError, match="expected"):
            mixture()
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    assert float((there * torch.tensor(3.0)).sum()) == 12  # a number, as on CUDA


def test_copies_cross_and_views_share_memory() -> None:
    there = torch.zeros(2, 3, device=STRICT)
    there.copy_(torch.ones(2, 3))
    there.view(-1)[1] = 5.0
    assert there.cpu().tolist() == [[1, 5, 1], [1, 1, 1]]
    assert there.device == there.detach().t().device == STRICT
    leaf = torch.ones(3, requires_grad=True)
    (leaf.to(STRICT) * 2).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2, 2, 2]


def test_autocast_of_the_device_computes_in_bf16() -> None:
    layer = nn.Linear(3, 3).to(STRICT)
    inputs = torch.ones(2, 3, device=STRICT)
    with torch.autocast(STRICT.type, torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.float32


def test_a_module_keeps_parameters_that_two_of_its_layers_share() -> None:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers[1].weight = layers[0].weight
    layers.to(STRICT)
    assert layers[1].weight is layers[0].weight
    assert isinstance(layers[0].weight, nn.Parameter)
