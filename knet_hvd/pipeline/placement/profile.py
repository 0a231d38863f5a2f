"""Measure what blocks cost on this rank, and gather it from all ranks."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from knet_hvd.comm import World
from knet_hvd.comm.throttle import Throttle
from knet_hvd.devices import CPU
from knet_hvd.devices.measuring import finish
from knet_hvd.models.blocks import blocks_of, num_parameters
from knet_hvd.pipeline.activation import (
    Activation,
    Signature,
    learnable,
    map_tensors,
    require_gradients,
    tensors_of,
)
from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.gradient_source import backward_through
from knet_hvd.pipeline.placement.decoupler_trial import DecouplerTrial

_REPEATS = 7
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockProfile:
    """Hold what each block costs on one rank.

    Attributes:
        forward_s: Seconds of each block's forward pass over a batch, without a graph.
        train_s: Seconds of each block's forward and backward pass.
        decoupler_s: Seconds of the decoupler of a stage that ends with each block.
    """

    forward_s: list[float]
    train_s: list[float]
    decoupler_s: list[float]

    def stage_s(self, start: int, stop: int, replays: bool) -> float:
        """Return the seconds per step of the blocks [start, stop) as one stage.

        Args:
            start: The first block.
            stop: The block after the last.
            replays: Whether stages but the last run forward twice.
        """
        seconds = sum(self.train_s[start:stop])
        if stop == len(self.train_s):
            return seconds
        again = sum(self.forward_s[start:stop]) if replays else 0.0
        return seconds + again + self.decoupler_s[stop - 1]


def profile_blocks(
    builder: BlockSource,
    inputs: Activation,
    trial: DecouplerTrial,
    throttle: Throttle,
    device: torch.device = CPU,
) -> BlockProfile:
    """Measure each block on a batch of random numbers.

    Args:
        builder: Makes the blocks, each of which is freed before the next.
        inputs: Of the network, [n, ...].
        trial: Does what a stage that ends with a block does for its gradient.
        throttle: Makes this rank slower, for tests.
        device: Of this rank; inputs are there.

    Returns:
        The least of some times for each.
    """
    forward_s, train_s, decoupler_s = [], [], []
    activation = inputs
    least_s = partial(_least_s, throttle=throttle, device=device)
    for index, made in enumerate(builder.each()):
        block = made.to(device)
        leaf = map_tensors(Tensor.detach, activation)
        if index > 0:
            require_gradients(leaf, [each.is_floating_point() for each in tensors_of(leaf)])
        forward_s.append(least_s(partial(_forward, block, leaf)))
        train_s.append(least_s(partial(_train, block, leaf)))
        activation = _forward(block, leaf)
        is_last = index == len(builder) - 1
        seconds = 0.0 if is_last else least_s(partial(trial.run, index, activation))
        decoupler_s.append(seconds)
        del made, block, leaf  # before the next one gets memory
    return BlockProfile(forward_s=forward_s, train_s=train_s, decoupler_s=decoupler_s)


def gather_profiles(world: World, own: BlockProfile) -> list[BlockProfile]:
    """Return the profiles of all ranks; every rank has to call.

    Args:
        world: All ranks.
        own: This rank's.
    """
    texts = world.gather_text(json.dumps(asdict(own)), "the speed of blocks", 10.0)
    return [BlockProfile(**json.loads(text)) for text in texts]


def memory_bytes(
    model: nn.Sequential, outputs: Sequence[Signature], num_microbatches: int, num_states: int
) -> list[int]:
    """Estimate the memory that each block needs while it trains.

    Parameters, gradients and the optimizer's state, and the outputs of all layers with
    their gradients.

    Args:
        model: The whole network.
        outputs: What each block returns for a microbatch.
        num_microbatches: Parts of a step.
        num_states: Values that the optimizer keeps for each parameter.
    """
    sizes = []
    for (_, block), output in zip(blocks_of(model), outputs, strict=True):
        num_layers = sum(1 for layer in block.modules() if not list(layer.children()))
        values = num_parameters(block) * (2 + num_states)
        values += (num_layers + 1) * num_microbatches * output.num_values
        sizes.append(values * _FLOAT_BYTES)
    return sizes


def _forward(block: nn.Module, inputs: Activation) -> Activation:
    with torch.no_grad():
        output: Activation = block(inputs)
    return output


def _train(block: nn.Module, inputs: Activation) -> None:
    output = block(inputs)
    backward_through(output, tuple(torch.ones_like(each) for each in learnable(output)))


def _least_s(run: Callable[[], object], throttle: Throttle, device: torch.device) -> float:
    run()  # the first one allocates
    finish(device)
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        with throttle:
            run()
            finish(device)
        times.append(time.perf_counter() - start)
    return min(times)
