"""Path B: ranks that do not share what the codes need are told so."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import Compression, RankMismatchError, TernaryConfig
from knet_hvd.errors import KnetError
from tests.parallel.helpers import backward, make_parameters, needs_ranks
from tests.parallel.optimizers import run_steps

CONFIG = TernaryConfig(min_values=1)
pytestmark = needs_ranks(2)


def make(name: str, op: Any, optimizer_op: Any) -> tuple[dict[str, Any], Any, Any]:
    # A name of its own: a broken exchange leaves operations of this name behind.
    parameters = {name: make_parameters([(700,)])["p0"]}
    compressor = Compression.ternary(parameters.items(), ternary=CONFIG, op=op)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(parameters.values(), lr=0.1),
        parameters.items(),
        compression=compressor,
        op=optimizer_op,
    )
    return parameters, optimizer, compressor


@pytest.mark.parametrize("op", [hvd.Average, hvd.Sum], ids=["Average", "Sum"])
@pytest.mark.parametrize("what", ["scales", "steps"])
def test_one_rank_with_another_state(what: str, op: Any) -> None:
    name = f"{what}.{op}"
    parameters, optimizer, compressor = make(name, op, op)
    run_steps(optimizer, parameters, range(2))
    if hvd.rank() == hvd.size() - 1:
        saved = compressor.state_dict()
        saved[what][name] *= 1 + 1e-5 if what == "scales" else 7
        compressor.load_state_dict(saved)
    backward(parameters)
    with pytest.raises(RankMismatchError, match=f"{name}: ranks used different scales"):
        optimizer.step()


@pytest.mark.parametrize("op", [hvd.Average, hvd.Sum], ids=["Average", "Sum"])
def test_another_op_than_the_optimizers(op: Any) -> None:
    other = hvd.Sum if op == hvd.Average else hvd.Average
    parameters, optimizer, _ = make(f"op.{op}", op, other)
    with pytest.raises(RankMismatchError, match="is `op` not the one"):
        run_steps(optimizer, parameters, range(2))


def test_a_parameter_that_was_not_named() -> None:
    parameters = make_parameters([(700,), (600,)])
    compressor = Compression.ternary([("p0", parameters["p0"])], ternary=CONFIG)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD([parameters["p1"]], lr=0.1),
        [("unnamed", parameters["p1"])],
        compression=compressor,
    )
    with pytest.raises(KnetError, match="not the gradient of one of the named"):
        backward(parameters)
    assert optimizer is not None


def test_adasum_is_refused_by_the_compressor() -> None:
    if hvd.size() & (hvd.size() - 1):
        pytest.skip("Adasum itself needs a power of two ranks")
    parameters = {"adasum": make_parameters([(700,)])["p0"]}
    compressor = Compression.ternary(parameters.items(), ternary=CONFIG)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(parameters.values(), lr=0.1),
        parameters.items(),
        compression=compressor,
        op=hvd.Adasum,
    )
    with pytest.raises(KnetError, match="Adasum"):
        backward(parameters)
    assert optimizer is not None
