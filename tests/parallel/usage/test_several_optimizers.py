"""Several models in one process, whose layers are named alike: GANs, actors and critics."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch
from horovod.torch.optimizer import DistributedOptimizer as horovods_optimizer

import knet_hvd
from knet_hvd import Compression, KnetError, TernaryConfig
from tests.parallel.averages import assert_averaged, every_gradient
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import Parameters, losses, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, sgd, wrap

SHAPES = [(30, 40), (700,)]
CONFIG = TernaryConfig(min_values=1)
pytestmark = needs_ranks(2)


def step_all(models: list[Parameters], optimizers: list[Any], step: int) -> None:
    """Exchange all models' gradients at once; ranks take the models in different orders."""
    order = list(range(len(models)))
    for number in order if hvd.rank() % 2 else reversed(order):
        torch.stack(losses(models[number], 10 * step + number)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def check(models: list[Parameters], step: int) -> None:
    for model, parameters in enumerate(models):
        gradients = every_gradient(parameters, 10 * step + model)
        assert_averaged(parameters, gradients, CONFIG, step=step)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_three_models_with_the_same_names(exchange: str, named: bool) -> None:
    models = [make_parameters(SHAPES) for _ in range(3)]
    optimizers = [
        knet_hvd.DistributedOptimizer(
            sgd(model), model.items() if named else None, ternary=CONFIG, exchange=exchange
        )
        for model in models
    ]
    for step in range(2):
        step_all(models, optimizers, step)
        check(models, step)
        for optimizer in optimizers:
            optimizer.zero_grad()


def test_one_of_ours_beside_two_of_horovod() -> None:
    models = [make_parameters(SHAPES) for _ in range(3)]
    ours, plain, fp32 = models
    optimizers = [
        wrap(sgd(ours), ours, "allgather", CONFIG),
        horovods_optimizer(sgd(plain), plain.items()),
        knet_hvd.DistributedOptimizer(sgd(fp32), fp32.items(), "none"),
    ]
    for step in range(2):
        step_all(models, optimizers, step)
        check([ours], step)
        for model, optimizer in zip(models, optimizers, strict=True):
            assert_same_on_all_ranks(model.values())
            optimizer.zero_grad()


def path_b(parameters: Parameters, prefix: str = "") -> Any:
    named = [(f"{prefix}{name}", parameter) for name, parameter in parameters.items()]
    compression = Compression.ternary(named, ternary=CONFIG)
    return hvd.DistributedOptimizer(sgd(parameters), named, compression)


def test_path_b_with_names_of_their_own() -> None:
    models = [make_parameters(SHAPES) for _ in range(3)]
    optimizers = [path_b(model, f"model{number}.") for number, model in enumerate(models)]
    for step in range(3):
        step_all(models, optimizers, step)
        for model, optimizer in zip(models, optimizers, strict=True):
            assert_same_on_all_ranks(model.values())
            optimizer.zero_grad()


def test_path_b_with_the_same_names_says_what_to_write() -> None:
    models = [make_parameters(SHAPES) for _ in range(2)]
    optimizers = [path_b(model, "alike.") for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):  # one after the other is right
        torch.stack(losses(model)).sum().backward()
        optimizer.step()
        assert_same_on_all_ranks(model.values())
    torch.stack(losses(models[0])).sum().backward()
    with pytest.raises(KnetError, match=r"'alike.p1' at once.*named = \[\(f\"critic"):
        torch.stack(losses(models[1])).sum().backward()
    optimizers[0].step()
    assert_same_on_all_ranks(models[0].values())
