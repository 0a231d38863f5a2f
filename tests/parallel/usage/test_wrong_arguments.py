"""Common mistakes in calls: one line that names the argument, what came, and what to write."""

from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from horovod.torch.optimizer import DistributedOptimizer as horovods_optimizer
from torch import nn

import knet_hvd
from knet_hvd import Compression, TernaryConfig
from tests.parallel.helpers import needs_ranks

Made = Callable[[nn.Module], Any]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def optimizer(**arguments: Any) -> Made:
    """Return a call of path A with these arguments."""

    def make(model: nn.Module) -> Any:
        named = arguments.pop("named_parameters", model.named_parameters())
        return knet_hvd.DistributedOptimizer(sgd(model), named, **arguments)

    return make


def compressor(**arguments: Any) -> Made:
    """Return a call of path B with these arguments."""
    return lambda model: Compression.ternary(model.named_parameters(), **arguments)


def config(**settings: Any) -> Made:
    return lambda model: TernaryConfig(**settings)


PAIRS = r"named_parameters: expected pairs of a name and a parameter, got "
WRITE = r".*pass model\.named_parameters\(\)"
CODEC = r"ternary: expected a TernaryConfig, got .*write ternary=knet_hvd\.TernaryConfig"
SET = r"process_set: expected an hvd\.ProcessSet, got .*write hvd\.add_process_set"
NAMES = "compression: expected ternary, auto, none, fp16"
GROUPS = "groups: expected a number or lists of parameters, got "
WRONG: list[tuple[str, Made, str]] = [
    ("a model", lambda m: knet_hvd.DistributedOptimizer(m), "optimizer: expected a torch.optim"),
    ("parameters", lambda m: knet_hvd.DistributedOptimizer(m.parameters()), "optimizer: expected"),
    ("a class", lambda m: knet_hvd.DistributedOptimizer(torch.optim.SGD), "got SGD"),
    (
        "wrapped by Horovod",
        lambda m: knet_hvd.DistributedOptimizer(horovods_optimizer(sgd(m), m.named_parameters())),
        "optimizer: it is already an hvd.DistributedOptimizer",
    ),
    (
        "wrapped by ours",
        lambda m: horovods_optimizer(knet_hvd.DistributedOptimizer(sgd(m))),
        "optimizer: it is already a knet_hvd.DistributedOptimizer",
    ),
    ("no names", lambda m: optimizer(named_parameters=m.parameters())(m), PAIRS + "a par" + WRITE),
    ("the model", lambda m: optimizer(named_parameters=m)(m), PAIRS + "a Linear" + WRITE),
    ("a dict", lambda m: optimizer(named_parameters=m.state_dict())(m), PAIRS + "a Ord" + WRITE),
    (
        "turned around",
        lambda m: optimizer(named_parameters=[(p, n) for n, p in m.named_parameters()])(m),
        PAIRS,
    ),
    ("names only", optimizer(named_parameters=["weight"]), PAIRS + "'weight'" + WRITE),
    ("names of a number", optimizer(named_parameters=3), PAIRS + "a int" + WRITE),
    ("not called", optimizer(compression=Compression.ternary), "pass 'ternary' and `ternary=`"),
    ("no compression", optimizer(compression=None), f"{NAMES}.*got None"),
    ("true", optimizer(compression=True), f"{NAMES}.*got True"),
    ("codec as compression", optimizer(compression=TernaryConfig()), f"{NAMES}.*TernaryConfig"),
    ("passes as text", optimizer(backward_passes_per_step="2"), "backward_passes.*, got '2'"),
    ("passes as bool", optimizer(backward_passes_per_step=True), "backward_passes.*got True"),
    ("passes as float", optimizer(backward_passes_per_step=2.0), "backward_passes.*got 2.0"),
    ("op as text", optimizer(op="average"), "op: .*hvd.Average and hvd.Sum, got 'average'"),
    ("no op", optimizer(op=None), "op: .*got None"),
    ("op as bool", optimizer(op=True), "op: .*got True"),
    ("Adasum", optimizer(op=hvd.Adasum), "op: .*not hvd.Adasum"),
    ("factor as text", optimizer(gradient_predivide_factor="2"), "gradient_pre.*> 0, got '2'"),
    ("factor 0", optimizer(gradient_predivide_factor=0.0), "gradient_predivide.*> 0, got 0.0"),
    ("factor NaN", optimizer(gradient_predivide_factor=float("nan")), "gradient_pre.*got nan"),
    ("num_groups as text", optimizer(num_groups="2"), "num_groups: expected an int.*got '2'"),
    ("groups as text", optimizer(groups="x"), "groups: expected an integer.*got 'x'"),
    ("groups as bool", optimizer(groups=True), "groups: expected an integer.*got True"),
    ("groups as float", optimizer(groups=1.5), "groups: expected an integer.*got 1.5"),
    ("groups of numbers", optimizer(groups=[[1, 2]]), GROUPS + "1 in it; write groups="),
    ("groups of names", optimizer(groups=[["weight"]]), GROUPS + "'weight' in it"),
    ("groups, flat", lambda m: optimizer(groups=list(m.parameters()))(m), GROUPS + "a Param"),
    ("dense as text", optimizer(sparse_as_dense="no"), "sparse_as_dense: expected True or F.*'no'"),
    ("a list of ranks", optimizer(process_set=[0, 1]), SET),
    ("a rank", optimizer(process_set=0), SET),
    ("an unknown set", optimizer(process_set=hvd.ProcessSet([0])), "process_set: .*hvd.init"),
    ("settings as dict", optimizer(ternary={"seed": 1}), CODEC),
    ("settings as bool", optimizer(ternary=False), CODEC),
    ("no exchange", optimizer(exchange=None), "exchange: expected auto.*got None"),
    ("exchanges", optimizer(exchange=["allgather"]), "exchange: expected auto.*got "),
    ("bucket as text", optimizer(max_bucket_values="4"), "max_bucket_values: .*got '4'"),
    ("bucket 0", optimizer(max_bucket_values=0), "max_bucket_values: expected at least 1, got 0"),
    ("payload as float", optimizer(payload_values=1e6), "payload_values: .*got 1000000.0"),
    ("payload 0", optimizer(payload_values=0), "payload_values: expected at least 1, got 0"),
    ("B: no names", lambda m: Compression.ternary(m.parameters()), PAIRS + "a par" + WRITE),
    ("B: the model", lambda m: Compression.ternary(m), PAIRS + "a Linear" + WRITE),
    ("B: settings as dict", compressor(ternary={"seed": 1}), CODEC),
    ("B: op as text", compressor(op="sum"), "op: .*hvd.Average and hvd.Sum, got 'sum'"),
    ("B: Adasum", compressor(op=hvd.Adasum), "op: .*not hvd.Adasum"),
    ("B: a list of ranks", compressor(process_set=[0, 1]), SET),
    ("form", config(wire_format=5), "wire_format: expected one of .*got 5"),
    ("rule", config(scale_rule=None), "scale_rule: expected one of .*got None"),
    ("clip as text", config(clip_factor="2.5"), "clip_factor: expected a number > 0, got '2.5'"),
    ("clip as bool", config(clip_factor=True), "clip_factor: .*got True"),
    ("clip infinite", config(clip_factor=float("inf")), "clip_factor: expected a finite.*inf"),
    ("size as text", config(scale_group_size="128"), "scale_group_size: .*got '128'"),
    ("size as float", config(scale_group_size=128.0), "scale_group_size: .*got 128.0"),
    ("size as bool", config(scale_group_size=False), "scale_group_size: .*got False"),
    ("feedback as text", config(error_feedback="no"), "error_feedback: expected True or.*'no'"),
    ("feedback as number", config(error_feedback=1), "error_feedback: expected True or.*got 1"),
    ("least as text", config(min_values="512"), "min_values: expected an integer.*got '512'"),
    ("least NaN", config(min_values=float("nan")), "min_values: expected an integer.*got nan"),
    ("one pattern", config(float_parameters="*.bias"), r'got .*; write float_parameters=\("\*'),
    ("patterns of numbers", config(float_parameters=(1,)), "float_parameters: expected pat"),
    ("seed as text", config(seed="1"), "seed: expected an integer.*got '1'"),
    ("seed as float", config(seed=1.0), "seed: expected an integer.*got 1.0"),
    ("large seed", config(seed=2**32), "seed: expected 0 to 4294967295, got 4294967296"),
]


@pytest.mark.parametrize(("make", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_arguments_are_named(make: Made, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        make(nn.Linear(30, 40))
    assert "\n" not in str(caught.value)


@needs_ranks(2)
def test_a_compression_that_was_not_called_for_horovod() -> None:
    model = nn.Linear(30, 40)
    named = model.named_parameters()
    wrapped = horovods_optimizer(sgd(model), named, compression=Compression.ternary)
    with pytest.raises(TypeError, match=r"was not called; write compression=knet_hvd\.Compression"):
        model(torch.ones(1, 30)).sum().backward()
    assert wrapped is not None


def test_what_may_be_given_besides() -> None:
    model = nn.Linear(30, 40)
    patterns = ["*.bias"]
    made = knet_hvd.DistributedOptimizer(
        sgd(model),
        iter(list(model.named_parameters())),
        hvd.Compression.fp16(),
        groups=[(model.weight,), [model.bias]],
        ternary=TernaryConfig(clip_factor=2, float_parameters=patterns),  # type: ignore[arg-type]
        max_bucket_values=1000,
    )
    assert made.param_groups[0]["lr"] == 0.1
