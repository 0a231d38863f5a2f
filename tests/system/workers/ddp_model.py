"""A small network, its batches, and what the ranks' codes of its gradients decode to."""

import copy
import os

import torch
from torch import Tensor, nn

from knet_hvd import TernaryConfig
from knet_hvd.compression import TernaryCodec, local_scales

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class Net(nn.Module):
    """A few layers, one with a weight in channels_last, and one that is never used."""

    def __init__(self, has_unused: bool) -> None:
        super().__init__()
        self.first = nn.Linear(20, 64)
        self.convolution = nn.Conv2d(4, 16, 3, padding=1).to(memory_format=torch.channels_last)
        self.middle = nn.Linear(256, 48)
        self.unused = nn.Linear(30, 30) if has_unused else None
        self.last = nn.Linear(48, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).relu().view(-1, 4, 4, 4)
        hidden = self.convolution(hidden).relu().flatten(1)
        return self.last(self.middle(hidden).relu())


def make_net(has_unused: bool = False) -> Net:
    torch.manual_seed(1)
    return Net(has_unused)


def batch(rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    inputs = torch.randn(16, 20, generator=generator)
    return inputs, inputs.sum(1, keepdim=True).tanh()


def loss_of(model: nn.Module, rank: int, step: int) -> Tensor:
    inputs, targets = batch(rank, step)
    return (model(inputs) - targets).square().mean()


def gradients_of(net: nn.Module, rank: int, steps: list[int]) -> dict[str, Tensor]:
    """Return what backward gives on that rank, accumulated over steps."""
    net = copy.deepcopy(net)
    net.zero_grad(set_to_none=True)
    for step in steps:
        loss_of(net, rank, step).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in net.named_parameters()
    }


def in_memory(tensor: Tensor) -> Tensor:
    """Return the values [n] in the order in which they lie, as they do in a bucket."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def mean_of_codes(
    net: nn.Module, steps: list[int], number: int, config: TernaryConfig
) -> dict[str, Tensor]:
    """Return what all ranks' codes of a step decode to, computed here alone."""
    ranks = [gradients_of(net, rank, steps) for rank in range(SIZE)]
    means = {}
    for stream, (name, parameter) in enumerate(net.named_parameters()):
        own = [torch.empty_like(parameter.detach()).copy_(gradients[name]) for gradients in ranks]
        if config.stays_float(name, parameter.numel()):
            means[name] = torch.stack(own).mean(0)
            continue
        own = [in_memory(each) for each in own]
        scales = torch.stack([local_scales([each], config) for each in own]).amax(0)
        size = TernaryCodec(config, 0).payload_bytes(parameter.numel())
        payloads = torch.empty(SIZE, size, dtype=torch.uint8)
        for rank, each in enumerate(own):
            codec = TernaryCodec(config, rank)
            codec.encode([each], scales, [stream], number, payloads[rank])
        means[name] = torch.empty_like(parameter.detach())
        TernaryCodec(config, 0).decode(payloads, scales, [in_memory(means[name])], SIZE)
    return means
