"""Calibration on running ranks, and ``compression="auto"``."""

from functools import partial

import horovod.torch as hvd
import pytest
import torch

import knet_hvd
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.calibration import auto
from knet_hvd.data_parallel.calibration.auto import advised_choice
from knet_hvd.data_parallel.calibration.calibrate import calibrate, unfused_values
from knet_hvd.performance import ALLTOALL, FP16, FP32, Advice, ExchangeFormula

pytestmark = pytest.mark.skipif(hvd.size() == 1, reason="one rank exchanges nothing")


def test_all_ranks_get_the_same_model() -> None:
    state = torch.get_rng_state()
    model = calibrate(HorovodCollectives(), TernaryConfig(), limit_s=0.005)
    assert torch.equal(torch.get_rng_state(), state), "the user's random numbers moved"
    models = hvd.allgather_object(repr({**model.methods}))
    assert len(set(models)) == 1
    assert model.num_ranks == hvd.size()
    assert set(model.methods) == {"fp32", "fp16", "allgather", "alltoall"}
    assert all(cost.curve.latency_s > 0 for cost in model.methods.values())
    assert 0 < model.methods["fp32"].unfused_share <= 1
    assert model.methods["fp16"].unfused_share > 0


def test_only_gradients_above_the_fusion_buffer_are_not_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOROVOD_FUSION_THRESHOLD", raising=False)
    assert unfused_values([2**25, 2**25 + 1, 10], HorovodCollectives().fusion_bytes) == 2**25 + 1
    monkeypatch.setenv("HOROVOD_FUSION_THRESHOLD", "0")
    assert unfused_values([100, 10], HorovodCollectives().fusion_bytes) == 110


def test_auto_trains_as_the_method_it_chose() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(1000))
    optimizer = knet_hvd.DistributedOptimizer(
        torch.optim.SGD([parameter], lr=1.0), [("w", parameter)], compression="auto"
    )
    (parameter.sum() * (hvd.rank() + 1)).backward()
    optimizer.step()
    assert torch.equal(parameter, hvd.broadcast(parameter, 0))
    assert torch.allclose(parameter.mean(), torch.tensor(-(hvd.size() + 1) / 2), 0.1)
    advice = optimizer.compression_advice
    assert set(advice.exchange_s) == {"fp32", "fp16", "allgather", "alltoall"}
    own = (advice.method, advice.bucket_values)
    assert hvd.allgather_object(own) == [own] * hvd.size()
    assert 2**12 <= advice.bucket_values <= 2**24


def test_a_variable_of_one_rank_alone_makes_no_other_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mpirun does not hand variables on to other hosts unless it is told to."""
    quick = partial(calibrate, limit_s=0.005)
    monkeypatch.setattr(auto, "calibrate", quick)
    if hvd.rank() == 1:
        monkeypatch.setenv("HOROVOD_FUSION_THRESHOLD", "4")
    parameter = torch.nn.Parameter(torch.zeros(1000))
    optimizer = knet_hvd.DistributedOptimizer(
        torch.optim.SGD([parameter], lr=1.0), [("w", parameter)], compression="auto"
    )
    own = repr(optimizer.compression_advice)
    assert hvd.allgather_object(own) == [own] * hvd.size()


def test_bf16_leaves_no_choice() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    optimizer = knet_hvd.DistributedOptimizer(
        torch.optim.SGD([parameter], lr=1.0), [("w", parameter)], compression="auto"
    )
    assert optimizer.compression_advice is None
    assert optimizer.ternary_names == ["w"]


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [(FP32, ("none", "auto")), (FP16, ("fp16", "auto")), (ALLTOALL, ("ternary", "alltoall"))],
)
def test_a_choice_becomes_arguments(formula: ExchangeFormula, arguments: tuple[str, str]) -> None:
    assert advised_choice(Advice(formula, {}), "auto") == arguments
