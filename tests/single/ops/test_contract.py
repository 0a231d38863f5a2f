"""What torch asks of an op: schema, fake kernel, tracing, and nothing for autograd."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from knet_hvd import ops

OPS = torch.ops.knet_hvd


def samples(device: str) -> dict[str, tuple[object, ...]]:
    """Return arguments of every op: 1000 values in 8 buckets of 128, 3 ranks."""
    values = torch.linspace(-1, 1, 1000, device=device)
    scales = torch.full((8,), 0.5, device=device)
    payload = torch.empty(256, dtype=torch.uint8, device=device)
    payloads = torch.full((3, 256), 77, dtype=torch.uint8, device=device)
    sums = torch.zeros(1000, dtype=torch.int16, device=device)
    words = torch.zeros(64, dtype=torch.int64, device=device)
    many, how = [values[:300], values[300:].half()], (128, 0)
    two_scales, many_sums = torch.full((9,), 0.5, device=device), sums.new_ones(1920)
    outs = [torch.empty_like(tensor) for tensor in many]
    keys = ([1, 2, 4], [3, 5], [0, 640])
    payload_of_two = torch.empty(384, dtype=torch.uint8, device=device)
    payloads_of_two = torch.full((3, 384), 77, dtype=torch.uint8, device=device)
    return {
        "statistics_many": (many, 128),
        "max_abs_many": (many, 128),
        "ternarize_many": (many, two_scales, *how, *keys, True, payload_of_two),
        "decode_mean_many": (payloads_of_two, two_scales, *how, 3, outs),
        "dequantize_many": (many_sums, two_scales, *how, 3, outs),
        "statistics": (values, 128),
        "max_abs": (values, 128),
        "ternarize": (values, scales, 128, 0, [1, 2, 3, 4], 0, True, payload),
        "unpack_sum": (payloads, 0, sums),
        "decode_mean": (payloads, scales, 128, 0, 3, values),
        "dequantize": (sums, scales, 128, 3, values),
        "pack_digits": (sums, 7, 3, 22, words),
        "unpack_digits": (words, 7, 3, 22, sums),
    }


def test_samples_cover_every_op() -> None:
    defined = torch._C._dispatch_get_all_op_names()
    named = {n.split("::")[1] for n in defined if n.startswith("knet_hvd::")}
    assert named - {"cpu_backend", "cuda_launches"} == set(samples("cpu"))


@pytest.mark.parametrize("name", list(samples("cpu")))
def test_opcheck(device, name) -> None:
    torch.library.opcheck(getattr(OPS, name), samples(device)[name])


@pytest.mark.parametrize("name", list(samples("cpu")))
def test_fake_kernels_give_the_real_shapes(device, name) -> None:
    real = getattr(OPS, name)(*samples(device)[name])
    with FakeTensorMode() as mode:
        arguments = tree_map_only(Tensor, mode.from_tensor, samples(device)[name])
        fake = getattr(OPS, name)(*arguments)
    if real is None:
        assert fake is None
    else:
        found = (fake.shape, fake.dtype, fake.device)
        assert found == (real.shape, real.dtype, real.device)


def round_trip(values: Tensor) -> tuple[Tensor, Tensor]:
    """Encode with the largest value as scale, and decode; by the ops themselves."""
    scales, moments = OPS.max_abs(values, 128), OPS.statistics(values, 128)
    payload = values.new_empty(256, dtype=torch.uint8)
    OPS.ternarize(values, scales, 128, 0, [1, 2, 3, 4], 0, True, payload)
    out = torch.empty_like(values)
    OPS.decode_mean(payload[None], scales, 128, 0, 1, out)
    return out, moments


def test_a_round_trip_compiles_to_one_graph(device) -> None:
    values = torch.linspace(-1, 1, 1000, device=device)
    compiled = torch.compile(round_trip, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(values), round_trip(values), strict=True):
        assert torch.equal(found, expected)
        assert bool(expected.any())


def test_nothing_is_recorded_for_autograd(device) -> None:
    leaf = torch.linspace(-1, 1, 1000, device=device, requires_grad=True)
    scales = ops.max_abs(leaf)
    payload = ops.ternarize(leaf, scales, key=(1, 2, 3, 4))
    decoded = ops.decode_mean(payload[None], scales, torch.empty_like(leaf))
    moments = ops.statistics(leaf)
    sums = torch.ones(1000, dtype=torch.int16, device=device)
    expected = ops.ternarize(leaf.detach(), scales, key=(1, 2, 3, 4))
    assert torch.equal(payload, expected)
    for tensor in (scales, moments, payload, decoded):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
    before = leaf.detach().clone()
    ops.dequantize(sums, scales, leaf)  # as into a parameter: written, not recorded
    assert leaf.is_leaf
    assert not torch.equal(leaf.detach(), before)


def test_documented_functions_compile_without_graph_breaks() -> None:
    compiled = torch.compile(lambda x: ops.max_abs(x, 128), fullgraph=True, backend="eager")
    x = torch.randn(300)
    assert torch.equal(compiled(x), ops.max_abs(x, 128))
