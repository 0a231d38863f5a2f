"""Compress the gradients of a DistributedDataParallel script: two lines more.

torchrun --nproc-per-node 2 examples/ddp_hook.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from knet_hvd.ddp import TernaryState, ternary_hook  # one

dist.init_process_group("gloo")
torch.manual_seed(0)
radius, arm = torch.rand(6000), torch.randint(3, (6000,))  # points of three spirals
angle = 6 * radius + arm * 2 * torch.pi / 3 + 0.1 * torch.randn(6000)
data = TensorDataset(torch.stack([radius * angle.sin(), radius * angle.cos()], 1), arm)
sampler = DistributedSampler(data)
network = nn.Sequential(
    *(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3))
)
model = DistributedDataParallel(network)
model.register_comm_hook(state := TernaryState(), ternary_hook)  # two
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(5):
    sampler.set_epoch(epoch)
    for points, arms in DataLoader(data, batch_size=50, sampler=sampler):
        optimizer.zero_grad()
        output = model(points)
        nn.functional.cross_entropy(output, arms).backward()
        optimizer.step()
    right = (network(data.tensors[0]).argmax(1) == arm).double().mean()
    if dist.get_rank() == 0:
        print(f"epoch {epoch}: accuracy {right.item():.4f}", flush=True)
if dist.get_rank() == 0:
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    print(f"{state.wire_bytes:.0f} bytes a step sent for {num_bytes} bytes of gradients")
dist.destroy_process_group()
