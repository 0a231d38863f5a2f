"""Train until the last rank dies in step 5: die.py PATH HOW, HOW being exit or kill."""

import os
import signal
import sys
import time

import horovod.torch as hvd
import torch
from torch import nn

import knet_hvd

hvd.init()
path, how = sys.argv[1:]
torch.manual_seed(0)
model = nn.Linear(400, 300)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
named = list(model.named_parameters())
if path == "allreduce":
    optimizer = hvd.DistributedOptimizer(
        optimizer, named, compression=knet_hvd.Compression.ternary(named)
    )
else:
    optimizer = knet_hvd.DistributedOptimizer(optimizer, named, exchange=path)
for step in range(10**9):
    loss = model(torch.randn(8, 400)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if step == 5 and hvd.rank() == hvd.size() - 1:
        sys.stdout.write(f"DYING {time.time()}\n")
        sys.stdout.flush()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)
    optimizer.step()
