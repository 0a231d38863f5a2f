"""PyTorch's random numbers on a device: the CPU's generator, and the GPU's own if it is one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of all generators that a network on the device draws from.

    Args:
        device: Of the network.

    Returns:
        The CPU's, then the device's if it has one.
    """
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def own_random_states(device: torch.device) -> Iterator[None]:
    """Draw random numbers within that nothing afterwards misses."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def save_random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of `random_states` as a tree for a checkpoint."""
    first, *others = random_states(device)
    return {"random_state": first, "device_random_states": others}


def load_random_states(device: torch.device, tree: Mapping[str, Any]) -> None:
    """Continue with the random numbers of `save_random_states`.

    A GPU's generator stays as it is if the tree is of a run on the CPU.

    Args:
        device: Of the network.
        tree: From a checkpoint or not.
    """
    torch.set_rng_state(tree["random_state"])
    for state in tree.get("device_random_states", ()):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
