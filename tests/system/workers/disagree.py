"""Make a DistributedOptimizer that differs on the last rank: disagree.py WHAT."""

import sys
import time
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

import knet_hvd

hvd.init()
what = sys.argv[1]
odd = hvd.rank() == hvd.size() - 1
dtype = torch.float64 if odd and what == "dtype" else torch.float32
width = 31 if odd and what == "shape" else 30
layers = [nn.Linear(40, width, dtype=dtype)]
if odd and what == "count":
    layers.append(nn.Linear(width, 5))
model = nn.Sequential(*layers)
arguments: dict[str, Any] = {"exchange": "alltoall"}
if odd and what == "exchange":
    arguments = {"exchange": "allgather"}
if odd and what == "ternary":
    arguments["ternary"] = knet_hvd.TernaryConfig(clip_factor=3.0)
sys.stdout.write(f"READY {time.time()}\n")
sys.stdout.flush()
if odd and what == "absent":
    time.sleep(600)
knet_hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), **arguments
)
sys.stdout.write("MADE\n")
