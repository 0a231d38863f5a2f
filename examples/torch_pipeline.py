"""The task of own_pipeline.py in PyTorch's own pipeline, to compare.

torchrun --nproc-per-node 2 examples/torch_pipeline.py
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.pipelining import Schedule1F1B, SplitPoint, pipeline
from torch.utils.data import DataLoader, TensorDataset, random_split

dist.init_process_group("gloo")
rank, last = dist.get_rank(), dist.get_world_size() - 1
torch.manual_seed(0)

x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y))
training, test = random_split(data, [1500, 297])
hidden = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(5)]
network = nn.Sequential(*hidden, nn.Linear(64, 10))
cuts = {str(6 * stage // (last + 1)): SplitPoint.BEGINNING for stage in range(1, last + 1)}
pipe = pipeline(network, mb_args=(data[:25][0],), split_spec=cuts)
stage = pipe.build_stage(rank, torch.device("cpu"))
schedule = Schedule1F1B(stage, n_microbatches=2, loss_fn=nn.functional.cross_entropy)
optimizer = torch.optim.AdamW(stage.submod.parameters(), lr=3e-3)
for epoch in range(6):
    for inputs, targets in DataLoader(training, batch_size=50, shuffle=True):
        losses: list[torch.Tensor] = []
        schedule.step(
            *[inputs] * (rank == 0), target=targets if rank == last else None, losses=losses
        )
        optimizer.step()
        optimizer.zero_grad()
    if rank == last:
        print(f"epoch {epoch}: loss {sum(losses) / 2:.3f}", flush=True)
dist.destroy_process_group()
