"""The hook for ``DistributedDataParallel.register_comm_hook``.

PyTorch compares the annotations as objects and looks for a parameter of the name ``bucket``:
annotations in this file must not become strings.
"""

import torch
import torch.distributed as dist

from knet_hvd.ddp.state import TernaryState
from knet_hvd.errors import KnetError


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

    Raises:
        KnetError: If ``torch.compile`` calls it for single gradients; and see ``TernaryState``.
    """
    if isinstance(bucket, tuple):
        raise KnetError(
            "ternary_hook needs buckets of gradients, which DistributedDataParallel does not make "
            "with torch._dynamo.config.optimize_ddp = 'python_reducer'; leave the setting at True"
        )
    return state.reduce(bucket)
