"""What scripts do with an optimizer besides calling step."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import nn

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import backward, copies, make_gradient, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, PATHS, make_wrapped, run_steps, sgd, wrap

SHAPES = [(30, 40), (700,), (9,)]
CONFIG = TernaryConfig(min_values=1)


@pytest.mark.parametrize("path", PATHS)
def test_clipping_between_synchronize_and_step_sees_averages(path: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, lr=0.5)
    before = copies(parameters)
    for step in range(2):
        backward(parameters, step)
        optimizer.synchronize()
        assert_same_on_all_ranks(p.grad for p in parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 0.25)
        assert float(norm) > 0.25
        before = copies(parameters)
        with optimizer.skip_synchronize():
            optimizer.step()
        optimizer.zero_grad()
    moved = [b - p.detach() for b, p in zip(before, parameters.values(), strict=True)]
    length = torch.cat([m.flatten() for m in moved]).norm()
    assert float(length) == pytest.approx(0.5 * 0.25, rel=1e-3)


@needs_ranks(2)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_step_after_synchronize_warns_and_exchanges_nothing(exchange: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, exchange, CONFIG)
    backward(parameters)
    optimizer.synchronize()
    averaged = [p.grad.clone() for p in parameters.values() if p.grad is not None]
    with pytest.warns(UserWarning, match="skip_synchronize"):
        optimizer.step()
    for parameter, gradient in zip(parameters.values(), averaged, strict=True):
        assert parameter.grad is not None
        assert same_bits(parameter.grad, gradient)
    assert optimizer.compression_state_dict()["step"] == 1
    optimizer.zero_grad()
    run_steps(optimizer, parameters, [1])
    assert optimizer.compression_state_dict()["step"] == 2


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.LBFGS])
def test_gradients_of_a_closure_are_averaged(optimizer_type: Any, exchange: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    parameters = dict(model.named_parameters())
    optimizer = wrap(optimizer_type(model.parameters(), lr=0.1), parameters, exchange, CONFIG)
    inputs = make_gradient((64, 30), rank=hvd.rank())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(inputs) - inputs[:, :20]).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(4):
        last = optimizer.step(closure)
    assert float(last.detach()) < float(first.detach())
    assert_same_on_all_ranks(parameters.values())


@pytest.mark.parametrize("path", PATHS)
def test_autocast_to_bf16(path: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 20))
    parameters = dict(model.named_parameters())
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.1), parameters, path, CONFIG)
    inputs = make_gradient((64, 20), rank=hvd.rank())
    history = []
    for _ in range(15):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (model(inputs) - inputs).square().mean()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0]
    assert_same_on_all_ranks(parameters.values())


@pytest.mark.parametrize("path", PATHS)
def test_bf16_parameters_train(path: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, path, lr=0.5, dtype=torch.bfloat16)
    run_steps(optimizer, parameters, range(3))
    assert_same_on_all_ranks(parameters.values())
    assert all(not torch.equal(p, torch.ones_like(p)) for p in parameters.values())


@needs_ranks(2)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_zero_grad_while_gradients_cross_is_an_error(exchange: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, exchange, CONFIG)
    backward(parameters)
    with pytest.raises(KnetError, match=r"zero_grad\(\) after backward"):
        optimizer.zero_grad()
    optimizer.step()
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters.values())


@needs_ranks(2)
@pytest.mark.parametrize("passes", [1, 2])
def test_too_many_backward_passes_are_an_error(passes: int) -> None:
    # Names of their own: a broken step leaves operations of these names behind.
    made = make_parameters(SHAPES).items()
    parameters = {f"passes{passes}.{name}": parameter for name, parameter in made}
    optimizer = wrap(sgd(parameters), parameters, ternary=CONFIG, backward_passes_per_step=passes)
    for step in range(passes):
        backward(parameters, step)
    match = rf"p\d: .*backward_passes_per_step={passes} times"
    with pytest.raises(KnetError, match=match):
        backward(parameters, passes)
    with pytest.raises(KnetError, match="changed in place"):  # by what came too much
        optimizer.step()
