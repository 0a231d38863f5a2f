"""Batch normalization under microbatches."""

from torch import nn

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def scale_momentum(blocks: nn.Module, num_microbatches: int) -> None:
    """Scale the momentum of running statistics to a number of microbatches.

    Each microbatch moves the statistics; afterwards m of them move them as far in a step
    as one whole batch does: 1 - momentum becomes its m-th root.

    Args:
        blocks: Changed in place.
        num_microbatches: Parts of a batch; 1 changes nothing.
    """
    if num_microbatches == 1:
        return
    for module in blocks.modules():
        if isinstance(module, _KINDS) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / num_microbatches)
