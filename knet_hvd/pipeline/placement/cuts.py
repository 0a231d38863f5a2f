"""Cut a network into stages, and say what crosses each cut."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from knet_hvd.models import build_model


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


def output_shapes(
    model: str,
    *,
    in_shape: tuple[int, int, int],
    num_classes: int,
    width: float,
    layerwise: bool = False,
) -> list[tuple[int, ...]]:
    """Return the shape of each block's output for one image, without computing it.

    Args:
        model: The network's name.
        in_shape: Channels, height and width of an image.
        num_classes: The number of logits.
        width: The width factor.
        layerwise: Take every layer for a block.

    Returns:
        A shape without the batch for each block.
    """
    # The meta device knows shapes only: no memory for blocks of other ranks.
    with torch.device("meta"):
        blocks = build_model(
            model, in_shape=in_shape, num_classes=num_classes, width=width, layerwise=layerwise
        ).eval()
        activation = torch.empty(2, *in_shape)
    shapes = []
    with torch.no_grad():
        for block in blocks:
            activation = block(activation)
            shapes.append(tuple(activation.shape[1:]))
    return shapes


def block_names(
    model: str,
    *,
    in_shape: tuple[int, int, int],
    num_classes: int,
    width: float,
    layerwise: bool = False,
) -> list[str]:
    """Return the names of a network's blocks.

    Args:
        model: The network's name.
        in_shape: Channels, height and width of an image.
        num_classes: The number of logits.
        width: The width factor.
        layerwise: Take every layer for a block.
    """
    with torch.device("meta"):
        blocks = build_model(
            model, in_shape=in_shape, num_classes=num_classes, width=width, layerwise=layerwise
        )
    return [name for name, _ in blocks.named_children()]
