"""What cannot work is refused when the optimizer is made, on every rank."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import nn

import knet_hvd
from knet_hvd import KnetError, RankMismatchError, TernaryConfig
from knet_hvd.agreement import check_agreement
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from tests.parallel.helpers import make_parameters, needs_ranks
from tests.parallel.optimizers import wrap

SHAPES = [(30, 40), (700,), (9,)]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "compression": ({"compression": "gzip"}, "expected ternary, auto, none, fp16; got 'gzip'"),
    "exchange": ({"exchange": "ring"}, "expected auto, allgather, alltoall; got 'ring'"),
    "Adasum": ({"op": hvd.Adasum}, "hvd.Average and hvd.Sum"),
    "Max": ({"op": hvd.Max}, "hvd.Average and hvd.Sum"),
    "passes": ({"backward_passes_per_step": 0}, "at least 1, got 0"),
    "groups": ({"groups": -1}, "groups: expected at least 0, got -1"),
    "predivide": ({"op": hvd.Sum, "gradient_predivide_factor": 2.0}, "needs op=hvd.Av"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name: str) -> None:
    arguments, message = WRONG[name]
    parameters = make_parameters(SHAPES)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        knet_hvd.DistributedOptimizer(optimizer, parameters.items(), **arguments)


def test_a_parameter_in_two_groups() -> None:
    parameters = make_parameters(SHAPES)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    twice = [[parameters["p0"]], [parameters["p1"], parameters["p0"]]]
    with pytest.raises(ValueError, match="more than one group"):
        knet_hvd.DistributedOptimizer(optimizer, parameters.items(), groups=twice)


def test_names_that_appear_twice_or_are_missing() -> None:
    parameters = make_parameters(SHAPES)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    twice = [("weight", parameter) for parameter in parameters.values()]
    with pytest.raises(ValueError, match="'weight' appears twice"):
        knet_hvd.DistributedOptimizer(optimizer, twice)
    with pytest.raises(ValueError, match=r"1 of the optimizer's.*\(30, 40\)"):
        knet_hvd.DistributedOptimizer(optimizer, list(parameters.items())[1:])


def test_parameters_that_are_not_of_floating_point() -> None:
    parameter = nn.Parameter(torch.ones(600, dtype=torch.complex64))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with pytest.raises(ValueError, match="w: expected a floating-point parameter"):
        knet_hvd.DistributedOptimizer(optimizer, [("w", parameter)])


def test_a_distributed_optimizer_is_not_wrapped_again() -> None:
    parameters = make_parameters(SHAPES)
    wrapped = wrap(torch.optim.SGD(parameters.values(), lr=0.1), parameters)
    with pytest.raises(ValueError, match="already"):
        wrap(wrapped, parameters)


def test_path_b_takes_no_other_scales_and_ops() -> None:
    named = make_parameters(SHAPES).items()
    for config in (TernaryConfig(scale_rule="max"), TernaryConfig(scale_group_size=128)):
        with pytest.raises(ValueError, match="supports both"):
            knet_hvd.Compression.ternary(named, ternary=config)
    with pytest.raises(ValueError, match=r"hvd\.Average and hvd\.Sum"):
        knet_hvd.Compression.ternary(named, op=hvd.Adasum)


def test_path_bs_compressor_is_not_for_path_a() -> None:
    parameters = make_parameters(SHAPES)
    compressor = knet_hvd.Compression.ternary(parameters.items())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    with pytest.raises(ValueError, match=r"for hvd\.DistributedOptimizer"):
        knet_hvd.DistributedOptimizer(optimizer, parameters.items(), compression=compressor)


def disagreements() -> dict[str, dict[str, Any]]:
    """Return arguments of ``make`` that differ on the last rank."""
    odd = hvd.rank() == hvd.size() - 1
    return {
        r"p1: torch.float32 \[70[01]\] here": {"shapes": [(30, 40), (700 + odd,)]},
        r"p0: torch.float(32|64) .* here": {"dtype": torch.float64 if odd else torch.float32},
        r"Number of entries by rank: \{0: ": {"shapes": SHAPES[: 2 + odd]},
        "ternary: .*'seed': [01].* here": {"ternary": TernaryConfig(seed=int(odd))},
        "settings: .*allgather|alltoall.* here": {"exchange": "allgather" if odd else "alltoall"},
        "settings: .*Compressor.* here": {
            "compression": hvd.Compression.fp16 if odd else hvd.Compression.none
        },
        "settings: .*'none'|'ternary'.* here": {"compression": "none" if odd else "ternary"},
        "settings: .*p1.* here": {"groups": 1 + odd},
    }


def make(shapes: Any = SHAPES, dtype: torch.dtype = torch.float32, **arguments: Any) -> None:
    parameters = make_parameters(shapes, dtype)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    knet_hvd.DistributedOptimizer(optimizer, parameters.items(), **arguments)


@needs_ranks(2)
@pytest.mark.parametrize("message", disagreements())
def test_ranks_that_disagree_all_hear_of_it(message: str) -> None:
    with pytest.raises(RankMismatchError, match=message) as caught:
        make(**disagreements()[message])
    last = hvd.size() - 1
    others = [last] if hvd.rank() != last else list(range(last))
    assert f"rank {hvd.rank()}: ranks disagree on" in str(caught.value)
    named = f"rank {others[0]}." if len(others) == 1 else f"ranks {others}."
    if "Number" not in message or hvd.rank() == last:  # the others have no entry less
        assert f" on {named}" in str(caught.value)


@needs_ranks(2)
def test_path_b_checks_agreement_too() -> None:
    named = make_parameters([(700 + (hvd.rank() == 0),)]).items()
    with pytest.raises(RankMismatchError, match=r"p0: torch.float32 \[70[01]\] here"):
        knet_hvd.Compression.ternary(named)


def test_horovod_compressors_by_instance_or_class_agree_on_all_ranks() -> None:
    for compression in (hvd.Compression.fp16, hvd.Compression.fp16()):
        make(compression=compression)


@needs_ranks(2)
@pytest.mark.parametrize("garbage", ["null", "[" * 100_000, '{"shapes": 7}', "\\x00", ""])
def test_a_rank_that_sends_no_facts(garbage: str) -> None:
    """Such as one of another version; every rank says so in one line."""
    ranks = CollectiveRanks(HorovodCollectives())
    if hvd.rank() == 1:
        for _ in range(2):
            ranks.gather_text(garbage, "shapes")
        return
    with pytest.raises(RankMismatchError) as caught:
        check_agreement(ranks, {"p0": "float32 [3]"}, "shapes")
    assert str(caught.value) == (
        f"rank {hvd.rank()}: ranks disagree on shapes. "
        "rank 1 sent no facts: is it of another version?"
    )


@pytest.mark.skipif(hvd.cuda_built() or hvd.rocm_built(), reason="this Horovod takes GPU tensors")
def test_gradients_on_a_gpu_need_a_horovod_with_cuda() -> None:
    with pytest.raises(KnetError, match="gradients on cuda:0: this Horovod was built without CUDA"):
        HorovodCollectives().check_device(torch.device("cuda", 0))
    HorovodCollectives().check_device(torch.device("cpu"))
