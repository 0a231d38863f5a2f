"""Cut a network into stages, and say what crosses each cut."""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def equal_cuts(num_blocks: int, num_stages: int) -> tuple[int, ...]:
    """Cut into stages whose numbers of blocks differ by one at most.

    Args:
        num_blocks: Blocks of the network.
        num_stages: Stages; the first ones get a block more if there are any left.

    Returns:
        The number of blocks before each of the ``num_stages - 1`` cuts.

    Raises:
        ValueError: If there are fewer blocks than stages.
    """
    if not 1 <= num_stages <= num_blocks:
        raise ValueError(
            f"stages: expected 1 to {num_blocks}, the number of blocks, got {num_stages}"
        )
    size, left = divmod(num_blocks, num_stages)
    return tuple(size * stage + min(stage, left) for stage in range(1, num_stages))


def check_cuts(cuts: Sequence[int], num_blocks: int, num_stages: int) -> None:
    """Raise unless the cuts leave every stage at least one block.

    Args:
        cuts: Blocks before each cut.
        num_blocks: Blocks of the network.
        num_stages: Stages.

    Raises:
        ValueError: If there are too many or too few cuts, or they are out of order.
    """
    if len(cuts) != num_stages - 1:
        raise ValueError(
            f"cuts: expected {num_stages - 1} for {num_stages} stages, got {len(cuts)}"
        )
    bounds = [0, *cuts, num_blocks]
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(
            f"cuts: expected rising numbers from 1 to {num_blocks - 1}, got {tuple(cuts)}"
        )


def stage_blocks(num_blocks: int, cuts: Sequence[int], stage: int) -> range:
    """Return the numbers of the blocks of a stage.

    Args:
        num_blocks: Blocks of the network.
        cuts: Blocks before each cut, checked.
        stage: The stage.
    """
    bounds = [0, *cuts, num_blocks]
    return range(bounds[stage], bounds[stage + 1])


def num_stages(num_ranks: int, replicas: int, stages: int | None = None) -> int:
    """Return the stages that ranks can hold.

    Args:
        num_ranks: All ranks.
        replicas: Replicas of each stage.
        stages: The stages, if they were chosen.

    Raises:
        ValueError: If stages times replicas is another number than that of the ranks.
    """
    if stages is None and num_ranks % replicas:
        raise ValueError(
            f"replicas: expected a divisor of {num_ranks}, the number of ranks, got "
            f"{replicas}: start a multiple of {replicas} ranks (mpirun -np), or change "
            "--replicas"
        )
    stages = stages or num_ranks // replicas
    if stages * replicas != num_ranks:
        raise ValueError(
            f"stages * replicas: expected as many as there are ranks, {num_ranks}, got "
            f"{stages} * {replicas} = {stages * replicas}: start {stages * replicas} "
            "ranks (mpirun -np), or change --stages or --replicas"
        )
    return stages


def output_shapes(skeleton: nn.Sequential, example: Tensor) -> list[tuple[int, ...]]:
    """Return the shape of each block's output for one sample, without computing it.

    Args:
        skeleton: The whole network on the meta device.
        example: Inputs of the network, [n, ...]; only shape and dtype count.

    Returns:
        A shape without the batch for each block.
    """
    blocks = copy.deepcopy(skeleton).eval()
    # Two samples, so that a block that joins samples shows up.
    activation = torch.empty(2, *example.shape[1:], dtype=example.dtype, device="meta")
    shapes = []
    with torch.no_grad():
        for block in blocks:
            activation = block(activation)
            shapes.append(tuple(activation.shape[1:]))
    return shapes
