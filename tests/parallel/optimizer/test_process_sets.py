"""Some of the ranks train together, the others without them."""

from collections.abc import Callable

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.helpers import (
    PATHS,
    Parameters,
    all_gradients,
    assert_same_on_all_ranks,
    backward,
    finish_step,
    make_parameters,
    needs_ranks,
    own_gradient,
    same_bits,
    ternary_mean,
    true_mean,
    wrap,
)

SHAPES = [(30, 40), (900,), (7,), (64, 20)]
CONFIG = TernaryConfig(min_values=1)


def sgd(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters.values(), lr=0.1)


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
        members = range(hvd.rank() % 2, hvd.size(), 2)
        parameters = make_parameters(SHAPES)
        optimizer = wrap(sgd(parameters), parameters, path, CONFIG, process_set=process_set)
        for step in range(3 + hvd.rank() % 2):  # one set makes a step more
            backward(parameters, step)
            optimizer.synchronize()
            for number, parameter in enumerate(parameters.values()):
                gradients = all_gradients(parameter, number, step, members)
                expected = ternary_mean(gradients, CONFIG, stream=number, step=step)
                gradient = parameter.grad
                assert gradient is not None
                if path != "allreduce":
                    assert same_bits(gradient, expected)
                elif step == 0:
                    torch.testing.assert_close(gradient.double(), true_mean(gradients))
            assert_same_on_all_ranks((p.grad for p in parameters.values()), process_set)
            finish_step(optimizer)

    in_two_sets(train)


@needs_ranks(2)
@pytest.mark.parametrize("path", PATHS)
def test_a_rank_outside_the_process_set_trains_alone(path: str) -> None:
    members = range(hvd.size() - 1)
    process_set = hvd.add_process_set(list(members))
    parameters = make_parameters(SHAPES)
    optimizer = wrap(sgd(parameters), parameters, path, CONFIG, process_set=process_set)
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
