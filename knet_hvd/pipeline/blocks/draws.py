"""Random numbers of blocks, such as dropout's, that no cut and no rank changes.

A block draws from a generator that begins with the seed, the step and the block's number.
So a network drops the same units in any number of stages, a batch that runs forward again
drops what it dropped before, and PyTorch's own generator stays the same on every rank:
what a script shuffles with it, it shuffles alike.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from knet_hvd.devices import CPU
from knet_hvd.devices.random_state import own_random_states, random_states

_TRIALS = 3
"""Calls after which a block that has drawn nothing is taken to draw never."""


class BlockDraws:
    """Run blocks, each with random numbers of its own."""

    def __init__(self, seed: int, first_block: int = 0, device: torch.device = CPU) -> None:
        """Begin with blocks of which nothing is known.

        Args:
            seed: The same on every rank.
            first_block: The number of the first of the blocks in the whole network.
            device: Of the blocks.
        """
        self._seed = seed
        self._device = device
        self._first = first_block
        self._quiet_calls: dict[int, int] = {}
        self._drawing: set[int] = set()

    def run(self, blocks: Iterable[nn.Module], inputs: Any, step: int, microbatch: int = 0) -> Any:
        """Return what the blocks compute, one after the other.

        Args:
            blocks: The same in every call.
            inputs: Of the first.
            step: The training step.
            microbatch: Which part of its batch this is.
        """
        for number, block in enumerate(blocks, start=self._first):
            if self._quiet_calls.get(number, 0) >= _TRIALS:
                inputs = block(inputs)
            else:
                inputs = self._run_one(number, block, inputs, (step, microbatch))
        return inputs

    def _run_one(
        self, number: int, block: nn.Module, inputs: Any, position: tuple[int, int]
    ) -> Any:
        with own_random_states(self._device):
            torch.manual_seed(_key(self._seed, *position, number))
            before = random_states(self._device)
            output = block(inputs)
            if number not in self._drawing:
                if all(map(torch.equal, random_states(self._device), before)):
                    self._quiet_calls[number] = self._quiet_calls.get(number, 0) + 1
                else:
                    self._drawing.add(number)
                    self._quiet_calls.pop(number, None)
        return output


def _key(seed: int, step: int, microbatch: int, block: int) -> int:
    """Return a seed for PyTorch's generator, which takes 32 bits of it."""
    packed = struct.pack("<QQII", seed % 2**64, step, microbatch, block)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=4).digest(), "little")
