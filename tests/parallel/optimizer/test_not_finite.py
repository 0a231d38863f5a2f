"""NaN and Inf on one rank are NaN on all, for one step only; loss scalers see it."""

import math

import horovod.torch as hvd
import pytest
import torch
from torch import nn

from knet_hvd import TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import needs_ranks, own_gradient
from tests.parallel.optimizers import PATHS, finish_step, make_wrapped, wrap

SHAPES = [(30, 40), (900,), (5,)]
LAST = hvd.size() - 1
CLIP = TernaryConfig(min_values=64)
MAX = TernaryConfig(min_values=64, scale_rule="max")
FEEDBACK = TernaryConfig(min_values=64, error_feedback=True)
CASES = {
    "fp32, nan": (torch.float32, math.nan, CLIP),
    "fp32, inf": (torch.float32, math.inf, CLIP),
    "fp32, -inf": (torch.float32, -math.inf, CLIP),
    "fp64, nan": (torch.float64, math.nan, CLIP),
    "fp16, inf": (torch.float16, math.inf, CLIP),
    "bf16, inf": (torch.bfloat16, math.inf, CLIP),
    "bf16, nan, feedback": (torch.bfloat16, math.nan, FEEDBACK),
    "fp32, nan, feedback": (torch.float32, math.nan, FEEDBACK),
    "fp16, inf, feedback": (torch.float16, -math.inf, FEEDBACK),
    "fp32, nan, max": (torch.float32, math.nan, MAX),
    "fp16, inf, max": (torch.float16, -math.inf, MAX),
}


@needs_ranks(2)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", PATHS)
def test_that_gradient_is_nan_on_all_ranks_in_that_step(path: str, name: str) -> None:
    dtype, value, config = CASES[name]
    if path == "allreduce" and config.scale_rule == "max":
        pytest.skip("path B has no scale rule max")
    parameters, optimizer = make_wrapped(SHAPES, path, config, lr=0.0, dtype=dtype)
    for step in range(5):
        broken = step in (0, 2, 3)
        for number, parameter in enumerate(parameters.values()):
            gradient = own_gradient(parameter, number, step)
            if broken and number != 1 and hvd.rank() == LAST:
                gradient.view(-1)[-1] = value
            parameter.grad = None
            (parameter * gradient).sum().backward()
        optimizer.synchronize()
        grads = [p.grad for p in parameters.values()]
        assert all(g is not None and g.dtype == dtype for g in grads)
        assert_same_on_all_ranks(torch.nan_to_num(g, nan=7.0) for g in grads)
        whole, normal, small = grads
        assert bool(whole.isnan().all()) == broken, step
        assert bool(small[-1].isfinite()) != broken, step
        assert normal.isfinite().all(), step
        assert small[:-1].isfinite().all(), step
        if not broken:
            assert whole.isfinite().all()
            assert whole.abs().max() > 0
        finish_step(optimizer)


@pytest.mark.parametrize("path", PATHS)
def test_a_loss_scaler_skips_the_step_on_all_ranks(path: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(40, 30)
    parameters = dict(model.named_parameters())
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.1), parameters, path, CLIP)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for step in range(4):
        before = [p.detach().clone() for p in model.parameters()]
        inputs = torch.ones(8, 40)
        if step in (0, 2) and hvd.rank() == LAST:
            inputs[0, 0] = torch.inf
        optimizer.zero_grad()
        scaler.scale(model(inputs).square().mean()).backward()
        optimizer.synchronize()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
        same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert same == (step in (0, 2)), step
        assert_same_on_all_ranks(model.parameters())
    assert scaler.get_scale() == 1024.0 / 4
