"""Compress the gradients of a Horovod script: one changed line.

horovodrun -np 2 python examples/horovod_script.py
horovodrun -np 2 python examples/horovod_script.py --path argument
"""

import argparse

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import knet_hvd

parser = argparse.ArgumentParser()
parser.add_argument("--path", choices=["optimizer", "argument"], default="optimizer")
path = parser.parse_args().path
hvd.init()
torch.manual_seed(0)

x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y))
sampler = DistributedSampler(data, hvd.size(), hvd.rank())
network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
named = list(network.named_parameters())
if path == "optimizer":  # 1.6 bits a value: knet_hvd in place of hvd
    optimizer = knet_hvd.DistributedOptimizer(sgd, named)
else:  # Horovod's own optimizer
    optimizer = hvd.DistributedOptimizer(sgd, named, knet_hvd.Compression.ternary(named))
hvd.broadcast_parameters(network.state_dict(), root_rank=0)
for epoch in range(5):
    sampler.set_epoch(epoch)
    for inputs, targets in DataLoader(data, batch_size=32, sampler=sampler):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs), targets)
        loss.backward()
        optimizer.step()
    if hvd.rank() == 0:
        print(f"epoch {epoch}: loss {loss.item():.3f}", flush=True)
if hvd.rank() == 0 and path == "optimizer":
    sent = optimizer.wire_bytes
    print(f"{sent.compressed:.0f} bytes a step instead of {sent.uncompressed:.0f}")
