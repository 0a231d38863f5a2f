"""Some of the ranks train together, the others without them."""

from collections.abc import Callable

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.averages import all_gradients, assert_steps_average, true_mean
from tests.parallel.helpers import backward, needs_ranks, own_gradient
from tests.parallel.optimizers import PATHS, finish_step, make_wrapped

SHAPES = [(30, 40), (900,), (7,), (64, 20)]
CONFIG = TernaryConfig(min_values=1)


def in_two_sets(use: Callable[[hvd.ProcessSet], None]) -> None:
    """Call ``use`` on every rank with its set: the even or the odd ranks."""
    parities = [p for p in (0, 1) if p < hvd.size()]
    sets = [hvd.add_process_set(list(range(parity, hvd.size(), 2))) for parity in parities]
    try:
        use(sets[hvd.rank() % 2])
    finally:
        for process_set in sets:
            hvd.remove_process_set(process_set)


@needs_ranks(2)
@pytest.mark.parametrize("path", PATHS)
def test_disjoint_process_sets_train_independently(path: str) -> None:
    def train(process_set: hvd.ProcessSet) -> None:
        assert process_set.ranks == list(range(hvd.rank() % 2, hvd.size(), 2))
        parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, process_set=process_set)
        assert_steps_average(
            optimizer,
            parameters,
            CONFIG,
            num_steps=3 + hvd.rank() % 2,  # one set makes a step more
            path=path,
            process_set=process_set,
        )

    in_two_sets(train)


@needs_ranks(2)
@pytest.mark.parametrize("path", PATHS)
def test_a_rank_outside_the_process_set_trains_alone(path: str) -> None:
    members = range(hvd.size() - 1)
    process_set = hvd.add_process_set(list(members))
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, process_set=process_set)
    backward(parameters)
    optimizer.synchronize()
    for number, parameter in enumerate(parameters.values()):
        gradient = parameter.grad
        assert gradient is not None
        if hvd.rank() not in members or len(members) == 1:
            assert torch.equal(gradient, own_gradient(parameter, number))
        else:
            mean = true_mean(all_gradients(parameter, number, 0, members))
            limit = 1e-6 if path == "allreduce" else 5.0
            assert float((gradient - mean).abs().max()) < limit
    finish_step(optimizer)
    hvd.remove_process_set(process_set)
