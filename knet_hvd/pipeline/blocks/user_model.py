"""What a user gives as a model, as blocks."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from knet_hvd.models.blocks import blocks_of
from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder
from knet_hvd.pipeline.blocks.given import GivenBlocks
from knet_hvd.pipeline.blocks.rebuilt import RebuiltBlocks
from knet_hvd.pipeline.blocks.split import split_module

_LOGGER = logging.getLogger(__name__)
Network: TypeAlias = nn.Module | Sequence[nn.Module]
Model: TypeAlias = Network | Callable[[], Network]
"""A network, or a function that builds one."""


@dataclass(frozen=True, slots=True, eq=False)
class UserModel:
    """Hold the blocks of a user's network.

    Attributes:
        source: Hands them out.
        prefixes: What precedes the names of each block's parameters in the user's network.
        network: The network, if the user has built it; its values are rank 0's.
    """

    source: BlockSource
    prefixes: tuple[str, ...]
    network: nn.Sequential | None

    @property
    def blocks(self) -> list[nn.Module]:
        """Return all blocks; those of a function are on the meta device."""
        network = self.source.skeleton if self.network is None else self.network
        return [block for _, block in blocks_of(network)]


def user_model(model: Model, split: Sequence[str] = (), num_inputs: int = 1) -> UserModel:
    """Return the blocks of what a user gives as a model.

    Args:
        model: nn.Sequential or a list of modules, whose entries are the blocks; any other
            module with ``split``; or a function without arguments that returns one of
            these: then each rank has memory for its own blocks only.
        split: Parts of the module at which blocks begin; see ``split_module``.
        num_inputs: Tensors that the network takes.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it cannot be cut, or has no blocks.
    """
    if not isinstance(model, nn.Module | Sequence) and callable(model):
        source = _built_by(model, split, num_inputs)
        return UserModel(source, _prefixes(source.names, split), None)
    network = _as_blocks(model, split, num_inputs)
    given = GivenBlocks(network)
    return UserModel(given, _prefixes(given.names, split), network)


def _built_by(factory: Callable[[], Network], split: Sequence[str], num_inputs: int) -> BlockSource:
    """Return the blocks of the network that a function builds."""

    def blocks() -> nn.Sequential:
        return _as_blocks(factory(), split, num_inputs)

    try:
        return BlockBuilder(blocks)
    except Exception as reason:  # whatever a user's function raises without values
        rebuilt = RebuiltBlocks(blocks)  # raises again what is wrong with values too
        _LOGGER.info("every rank builds the whole network and keeps its stage: %s", reason)
        return rebuilt


def _prefixes(names: Sequence[str], split: Sequence[str]) -> tuple[str, ...]:
    # Blocks of a module that was split keep the whole names of its parts.
    return tuple("" if split else f"{name}." for name in names)


def _as_blocks(model: object, split: Sequence[str], num_inputs: int) -> nn.Sequential:
    """Return a network whose children are the blocks."""
    if isinstance(model, nn.Module) and split:
        return split_module(model, split, num_inputs)
    if split:
        raise ValueError("split: expected a module to cut, got a list: its entries are the blocks")
    if isinstance(model, Sequence) and all(isinstance(each, nn.Module) for each in model):
        model = nn.Sequential(*model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model: expected nn.Sequential, a list of modules, another module with split=..., or "
            f"a function that returns one of these, got {type(model).__name__}"
        )
    if not isinstance(model, nn.Sequential):
        parts = [name for name, _ in model.named_children()]
        raise ValueError(
            f"model: {type(model).__name__} is no nn.Sequential: name the parts at which it may be "
            f"cut, such as split={parts[1:2] or parts}; it has {', '.join(parts) or 'none'}"
        )
    if len(model) == 0:
        raise ValueError("model: expected at least one block, got none")
    return model
