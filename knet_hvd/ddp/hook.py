"""The hook for ``DistributedDataParallel.register_comm_hook``.

PyTorch compares the annotations as objects and looks for a parameter of the name ``bucket``:
annotations in this file must not become strings.
"""

import torch
import torch.distributed as dist

from knet_hvd.ddp.state import TernaryState


def ternary_hook(
    state: TernaryState,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients over all ranks as ternary codes.

    ``model.register_comm_hook(TernaryState(), ternary_hook)`` is all that a script needs.

    Args:
        state: Settings, and what is kept between steps.
        bucket: Gradients that DistributedDataParallel has put together.

    Returns:
        Gives the bucket's buffer [n] with the means.
    """
    return state.reduce(bucket)
