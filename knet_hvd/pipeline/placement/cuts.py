"""Cut a network into stages, and say what crosses each cut."""

import copy
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import nn

from knet_hvd.models.blocks import blocks_of
from knet_hvd.pipeline.activation import Activation, Signature, map_tensors
from knet_hvd.pipeline.blocks.base import BlockSource


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


def output_signatures(source: BlockSource, example: Activation) -> list[Signature]:
    """Return what each block returns for an example.

    Nothing is computed, unless a block looks at values: then all of them run.

    Args:
        source: Hands out the blocks of the network.
        example: Inputs of the network, [n, ...] each.

    Raises:
        TypeError: If a block returns neither a tensor nor a tuple of tensors.
    """
    shapes_only = map_tensors(lambda each: torch.empty_like(each, device="meta"), example)
    skeleton = copy.deepcopy(source.skeleton).eval()
    try:
        return _signatures(source.names, (block for _, block in blocks_of(skeleton)), shapes_only)
    except Exception:  # whatever a user's forward raises without values, or with them again
        with torch.random.fork_rng(devices=[]):
            return _signatures(source.names, (each.eval() for each in source.each()), example)


@torch.enable_grad()  # what requires a gradient is a part of the answer
def _signatures(
    names: Sequence[str], blocks: Iterable[nn.Module], activation: Activation
) -> list[Signature]:
    signatures = []
    for name, block in zip(names, blocks, strict=True):
        activation = block(activation)
        signatures.append(Signature.of(activation, f"block {name}"))
    return signatures
