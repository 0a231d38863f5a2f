"""What torch asks of an op: schema, fake kernel, tracing, and nothing for autograd."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from knet_hvd import ops

OPS = torch.ops.knet_hvd


def samples(device: str) -> dict[str, tuple[object, ...]]:
    """Return arguments of every op: two tensors in 9 scale groups of 128, 3 ranks."""
    values = torch.linspace(-1, 1, 1000, device=device)
    tensors = [values[:300], values[300:].half()]
    outs = [torch.empty_like(tensor) for tensor in tensors]
    scales = torch.full((9,), 0.5, device=device)
    payload = torch.empty(384, dtype=torch.uint8, device=device)
    payloads = torch.full((3, 384), 77, dtype=torch.uint8, device=device)
    sums = torch.zeros(1000, dtype=torch.int16, device=device)
    words = torch.zeros(64, dtype=torch.int64, device=device)
    return {
        "statistics": (tensors, 128),
        "scales": (tensors, 128, 0, 2.5),
        "ternarize": (tensors, scales, 128, 0, [1, 2, 4], [3, 5], [0, 640], True, payload),
        "unpack_sum": (payloads, 0, sums),
        "decode_mean": (payloads, scales, 128, 0, 3, outs),
        "dequantize": (sums.new_ones(1920), scales, 128, 0, 3, outs),
        "pack_digits": (sums, 7, 3, 22, words),
        "unpack_digits": (words, 7, 3, 22, sums),
    }


def test_samples_cover_every_op() -> None:
    defined = torch._C._dispatch_get_all_op_names()
    named = {n.split("::")[1] for n in defined if n.startswith("knet_hvd::")}
    assert named - {"cpu_backend", "_cuda_launches"} == set(samples("cpu"))


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
    scales, moments = OPS.scales([values], 128, 2, 1.0), OPS.statistics([values], 128)
    payload = values.new_empty(256, dtype=torch.uint8)
    OPS.ternarize([values], scales, 128, 0, [1, 2, 4], [3], [0], True, payload)
    out = torch.empty_like(values)
    OPS.decode_mean(payload[None], scales, 128, 0, 1, [out])
    return out, moments


def test_a_round_trip_compiles_to_one_graph(device) -> None:
    values = torch.linspace(-1, 1, 1000, device=device)
    compiled = torch.compile(round_trip, fullgraph=True, backend="eager")
    for found, expected in zip(compiled(values), round_trip(values), strict=True):
        assert torch.equal(found, expected)
        assert bool(expected.any())


def test_nothing_is_recorded_for_autograd(device) -> None:
    leaf = torch.linspace(-1, 1, 1000, device=device, requires_grad=True)
    scales = ops.scales([leaf])
    payload = ops.ternarize([leaf], scales, key=(1, 2, 4), streams=[3])
    moments = ops.statistics([leaf])
    sums = torch.ones(1000, dtype=torch.int16, device=device)
    expected = ops.ternarize([leaf.detach()], scales, key=(1, 2, 4), streams=[3])
    assert torch.equal(payload, expected)
    for tensor in (scales, moments, payload):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
    before = leaf.detach().clone()
    ops.dequantize(sums, scales, [leaf])  # as into a parameter: written, not recorded
    assert leaf.is_leaf
    assert not torch.equal(leaf.detach(), before)


def test_documented_functions_compile_without_graph_breaks() -> None:
    compiled = torch.compile(lambda x: ops.scales([x], 128), fullgraph=True, backend="eager")
    x = torch.randn(300)
    assert torch.equal(compiled(x), ops.scales([x], 128))
