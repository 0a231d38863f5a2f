"""What the pipeline is measured against: one process, and PyTorch's 1F1B."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.pipeline.problem import Method, Problem
from knet_hvd.data.dataset import cross_entropy
from knet_hvd.pipeline.optimizers import update


class Single(Method):
    """One process, on rank 0 while the other rank waits."""

    def __init__(self, problem: Problem, rank: int) -> None:
        """Build all blocks."""
        super().__init__(problem)
        self._rank = rank
        self._blocks = problem.blocks()
        self._optimizer = problem.optimizer(self._blocks)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one batch."""
        if self._rank == 0:
            cross_entropy(self._blocks(inputs), targets).backward()
            update(self._optimizer)


class Torch1F1B(Method):
    """Schedule1F1B of torch.distributed.pipelining over gloo."""

    def __init__(self, problem: Problem, rank: int, interface: str) -> None:
        """Build this rank's stage; every rank has to."""
        import torch.distributed as dist
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        super().__init__(problem)
        os.environ["GLOO_SOCKET_IFNAME"] = interface
        store = Path(problem.args.store)
        dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=2)
        blocks = nn.Sequential(problem.blocks(rank))
        if problem.args.network == "vgg16":
            # gloo takes contiguous tensors only, and convolutions are faster in
            # channels_last: so that is what crosses, without a copy.
            order = (0, 3, 1, 2) if rank else (0, 2, 3, 1)
            blocks.insert(0 if rank else 1, _Permute(*order))
        stage = PipelineStage(blocks, rank, 2, torch.device("cpu"))
        self._rank = rank
        self._schedule = Schedule1F1B(stage, problem.args.microbatches, loss_fn=cross_entropy)
        self._optimizer = problem.optimizer(blocks)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one batch."""
        if self._rank == 0:
            self._schedule.step(inputs)
        else:
            self._schedule.step(target=targets)
        update(self._optimizer)


class _Permute(nn.Module):
    """View images with their dimensions in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self._order = order

    def forward(self, images: Tensor) -> Tensor:
        """Return the view."""
        return images.permute(*self._order)
