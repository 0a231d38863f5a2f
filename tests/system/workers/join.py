"""Train with fewer batches on the last rank, which calls hvd.join(); prints the error.

Usage: join.py PATH.
"""

import sys

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.helpers import make_parameters
from tests.parallel.optimizers import run_steps, wrap

hvd.init()
is_short = hvd.rank() == hvd.size() - 1
parameters = make_parameters([(30, 40), (7,)])
sgd = torch.optim.SGD(parameters.values(), lr=0.1)
optimizer = wrap(sgd, parameters, sys.argv[1], TernaryConfig(min_values=8))
try:
    run_steps(optimizer, parameters, range(3 if is_short else 5))
    hvd.join()
except (KnetError, HorovodInternalError) as error:
    sys.stdout.write(f"rank {hvd.rank() if hvd.is_initialized() else '?'} is told: {error}\n")
