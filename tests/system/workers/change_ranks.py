"""Train, let Horovod have other ranks, and train on; prints the error that this has to give.

Usage: change_ranks.py PATH FIRST THEN, each of the last two `alone` or `together`.
"""

import sys

import horovod.torch as hvd
import torch
from mpi4py import MPI

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.helpers import backward, make_parameters
from tests.parallel.optimizers import run_steps, wrap

path, first, then = sys.argv[1:]
world = MPI.COMM_WORLD
groups = {"alone": world.Split(world.rank), "together": world}
hvd.init(comm=groups[first])
parameters = make_parameters([(30, 40), (7,)])
sgd = torch.optim.SGD(parameters.values(), lr=0.1)
optimizer = wrap(sgd, parameters, path, TernaryConfig(min_values=8))
run_steps(optimizer, parameters, range(2))
hvd.shutdown()
hvd.init(comm=groups[then])
try:
    backward(parameters, 2)
    optimizer.step()
except KnetError as error:
    sys.stdout.write(f"rank {world.rank} is told: {error}\n")
