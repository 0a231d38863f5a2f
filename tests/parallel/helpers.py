"""What parallel tests share: parameters and their gradients, which differ from rank to rank."""

from collections.abc import Iterable, Mapping, Sequence

import horovod.torch as hvd
import pytest
import torch
from torch import Tensor, nn

Parameters = dict[str, nn.Parameter]


def needs_ranks(number: int) -> pytest.MarkDecorator:
    reason = f"needs {number} ranks, got {hvd.size()}"
    return pytest.mark.skipif(hvd.size() < number, reason=reason)


def make_gradient(
    shape: Sequence[int],
    *,
    rank: int,
    step: int = 0,
    number: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the gradient of one rank in one step for the parameter of that number."""
    seed = (rank * 1009 + step) * 1009 + number
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_parameters(
    shapes: Iterable[Sequence[int]], dtype: torch.dtype = torch.float32
) -> Parameters:
    """Return parameters p0, p1, ..., the same on all ranks."""
    return {
        f"p{number}": nn.Parameter(torch.ones(tuple(shape), dtype=dtype))
        for number, shape in enumerate(shapes)
    }


def losses(parameters: Mapping[str, Tensor], step: int = 0) -> list[Tensor]:
    """Return a loss for each parameter, whose gradient is that of make_gradient."""
    return [
        (p * own_gradient(p, number, step)).sum().double()
        for number, p in enumerate(parameters.values())
    ]


def own_gradient(parameter: Tensor, number: int, step: int = 0) -> Tensor:
    shape, dtype, rank = parameter.shape, parameter.dtype, hvd.rank()
    return make_gradient(shape, rank=rank, step=step, number=number, dtype=dtype)


def backward(parameters: Mapping[str, Tensor], step: int = 0) -> None:
    torch.stack(losses(parameters, step)).sum().backward()


def copies(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters.values()]
