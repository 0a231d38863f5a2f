"""Train a network of your own, cut over the ranks that mpirun starts.

    mpirun -np 2 python examples/own_pipeline.py
    mpirun -np 4 python examples/own_pipeline.py --decoupler delayed

Every rank runs this script and draws the same batches; each trains its own blocks.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from knet_hvd.pipeline import Pipeline


def accuracy(output: Tensor, targets: Tensor) -> Tensor:
    return (output.argmax(1) == targets).double().mean()


parser = argparse.ArgumentParser()
parser.add_argument("--decoupler", default="backprop", help="backprop, local, delayed, synthetic")
parser.add_argument("--out", default="model.pt", help="file for the trained network")
flags = parser.parse_args()
torch.manual_seed(0)  # the same order of batches on every rank

x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y))
training, test = random_split(data, [1500, 297])
hidden = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(5)]
pipeline = Pipeline(
    nn.Sequential(*hidden, nn.Linear(64, 10)),
    example=data[:1][0],
    loss=nn.functional.cross_entropy,
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    decoupler=flags.decoupler,
)
for epoch in range(6):
    for inputs, targets in DataLoader(training, batch_size=50, shuffle=True):
        loss = pipeline.step(inputs, targets)
    found = pipeline.evaluate(DataLoader(test, batch_size=297), metric=accuracy)
    if pipeline.rank == 0:
        print(f"epoch {epoch}: loss {loss:.3f}, test accuracy {found:.3f}", flush=True)
state = pipeline.export()
if state is not None:
    print(pipeline.placement())
    torch.save(state, flags.out)  # load_state_dict of the whole network reads it
