"""One rank of DistributedDataParallel whose training ends with an error."""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from knet_hvd.compression import TernaryCodec
from knet_hvd.ddp import TernaryState, ternary_hook

torch.set_num_threads(1)
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def train(state: TernaryState, at_step_3: object = None) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    model = DistributedDataParallel(net, bucket_cap_mb=0.02)
    model.register_comm_hook(state, ternary_hook)
    for step in range(6):
        if step == 3 and at_step_3 is not None and RANK == 1:
            at_step_3()
        model(torch.randn(4, 64)).square().mean().backward()


def disagree() -> None:
    TernaryState(error_feedback=RANK == 1)


def kill() -> None:
    train(TernaryState(), lambda: os.kill(os.getpid(), 9))


def fail_in_the_thread() -> None:
    """On rank 1 the codec fails; the rank lives on for longer than rank 0 waits."""

    def spoil() -> None:
        def encode(*_: object) -> None:
            raise ValueError("the codec is broken")

        TernaryCodec.encode = encode

    try:
        train(TernaryState(step_timeout_s=2), spoil)
    finally:
        if RANK == 1:
            time.sleep(6)


dist.init_process_group(
    "gloo", init_method=os.environ["KNET_TEST_STORE"], rank=RANK, world_size=SIZE
)
{"disagree": disagree, "kill": kill, "thread": fail_in_the_thread}[sys.argv[1]]()
