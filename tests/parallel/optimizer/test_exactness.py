"""Path A gives, bit for bit, what one process computes from all ranks' gradients."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.averages import assert_steps_average
from tests.parallel.helpers import Parameters, backward, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, sgd, wrap

ALL_CODES = {"min_values": 1}
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "a bucket of one tensor": [(40, 50)],
    "fewer blocks than ranks": [(130,)],
    "several tensors": [(30, 40), (900,), (7,), (64, 20), (5, 5, 5, 5)],
    "single values and 0-d": [(1,), (), (3,), ()],
    "one value": [()],
    "long": [(20_001,)],
}
CONFIGS = {
    "rms": TernaryConfig(**ALL_CODES),
    "max, crumb4": TernaryConfig(scale_rule="max", wire_format="crumb4", **ALL_CODES),
    "bucketed": TernaryConfig(scale_group_size=128, seed=2**32 - 1, **ALL_CODES),
}


def check_steps(
    parameters: Parameters, config: TernaryConfig, divisor: int, **arguments: Any
) -> None:
    optimizer = wrap(sgd(parameters), parameters, ternary=config, **arguments)
    assert_steps_average(optimizer, parameters, config, divisor=divisor)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=list(SHAPES))
def test_shapes(shapes: list[tuple[int, ...]], config: TernaryConfig, exchange: str) -> None:
    check_steps(make_parameters(shapes), config, hvd.size(), path=exchange)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("max_bucket_values", [1, 1000, 3000])
def test_many_buckets(max_bucket_values: int, exchange: str) -> None:
    shapes = [(30, 40), (900,), (7,), (64, 20), (5, 5, 5, 5), (1,)]
    check_steps(
        make_parameters(shapes),
        CONFIGS["rms"],
        hvd.size(),
        path=exchange,
        max_bucket_values=max_bucket_values,
    )


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("name", ["rms", "bucketed", "max, crumb4"])
@pytest.mark.parametrize("payload_values", [1, 1300])
def test_payloads(payload_values: int, name: str, exchange: str) -> None:
    """Cut anywhere between blocks, gradients are those of the whole tensor."""
    check_steps(
        make_parameters([(90, 77), (900,), (64, 20)]),
        CONFIGS[name],
        hvd.size(),
        path=exchange,
        payload_values=payload_values,
    )


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_sum_is_not_divided(exchange: str) -> None:
    parameters = make_parameters([(600,), (20, 30)])
    check_steps(parameters, CONFIGS["rms"], 1, path=exchange, op=hvd.Sum)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)
def test_dtypes(dtype: torch.dtype, exchange: str) -> None:
    parameters = make_parameters([(700,), (3,), (20, 30)], dtype)
    check_steps(parameters, CONFIGS["rms"], hvd.size(), path=exchange)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_dtypes_mixed_in_one_bucket(exchange: str) -> None:
    parameters = make_parameters([(700,), (20, 30)])
    for number, dtype in enumerate([torch.bfloat16, torch.float64]):
        parameters[f"q{number}"] = torch.nn.Parameter(torch.ones(650, dtype=dtype))
    check_steps(parameters, CONFIGS["rms"], hvd.size(), path=exchange)


@needs_ranks(2)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_gradients_that_are_not_contiguous(exchange: str) -> None:
    weight = torch.ones(16, 8, 3, 3).to(memory_format=torch.channels_last)
    parameters = {"conv": torch.nn.Parameter(weight), **make_parameters([(600,)])}
    backward(parameters)
    gradient = parameters["conv"].grad
    assert gradient is not None
    assert not gradient.is_contiguous()  # else this test shows nothing
    parameters["conv"].grad = None
    parameters["p0"].grad = None
    check_steps(parameters, CONFIGS["rms"], hvd.size(), path=exchange)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("shapes", [[(0,), (600,), (0, 5)], [(0,)]])
def test_parameters_without_values(shapes: list[tuple[int, ...]], exchange: str) -> None:
    check_steps(make_parameters(shapes), CONFIGS["rms"], hvd.size(), path=exchange)


@needs_ranks(2)
def test_the_automatic_exchange_gives_the_same_codes() -> None:
    check_steps(make_parameters([(900,)]), CONFIGS["rms"], hvd.size(), path="auto")
