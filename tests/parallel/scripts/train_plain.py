"""Train a small network on handwritten digits with Horovod.

    mpirun -np 2 python train_plain.py --compression ternary

An ordinary Horovod script: nothing in it knows of ternary gradients but the value that
``--compression ternary`` gives to one argument.
"""

import argparse

import horovod.torch as hvd
import torch
import torch.nn.functional as F
from horovod.torch import DistributedOptimizer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser(description="Handwritten digits with Horovod")
parser.add_argument("--batch-size", type=int, default=32, help="images a rank")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--lr", type=float, default=0.02, help="for a single rank")
parser.add_argument("--optimizer", choices=["SGD", "Adam"], default="SGD")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--compression", choices=["none", "fp16", "ternary"], default="none")


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 10),
    )


def make_compression(name: str, model: nn.Module):
    if name == "ternary":
        from knet_hvd import Compression

        return Compression.ternary(model.named_parameters())
    return getattr(hvd.Compression, name)


def make_datasets() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    return TensorDataset(images[:1440], labels[:1440]), TensorDataset(images[1440:], labels[1440:])


def average(value: float, name: str) -> float:
    return hvd.allreduce(torch.tensor(value), name=name).item()


def train_epoch(model: nn.Module, optimizer, loader: DataLoader) -> float:
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return average(total / len(loader), "train_loss")


@torch.no_grad()
def test(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    hits = [(model(x).argmax(1) == y).float().mean().item() for x, y in loader]
    return average(sum(hits) / len(hits), "accuracy")


def main() -> None:
    args = parser.parse_args()
    hvd.init()
    torch.manual_seed(args.seed + hvd.rank())
    torch.set_num_threads(1)
    train_set, test_set = make_datasets()
    shards = {"num_replicas": hvd.size(), "rank": hvd.rank()}
    sampler = DistributedSampler(train_set, **shards)
    train_loader = DataLoader(train_set, args.batch_size, sampler=sampler)
    test_loader = DataLoader(
        test_set, 128, sampler=DistributedSampler(test_set, shuffle=False, **shards)
    )
    model = make_model()
    if args.optimizer == "SGD":
        rate = args.lr * hvd.size()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr / 5)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=make_compression(args.compression, model),
        op=hvd.Average,
    )
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        loss = train_epoch(model, optimizer, train_loader)
        accuracy = test(model, test_loader)
        if hvd.rank() == 0:
            print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
