"""One call for many tensors gives the bits of one call for each, on a GPU in few launches."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.codec.gradient_sets import GRADIENT_SETS
from knet_hvd import ops
from knet_hvd.compression import TernaryConfig, local_scales
from knet_hvd.ops import reference
from knet_hvd.ops.native import _cuda_launches

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TENSORS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 127, 128, 640, 641, 4097]) | st.integers(0, 3000),
        st.sampled_from(DTYPES),
        st.integers(0, 7),  # values before it: its alignment
        st.integers(0, 40),  # its place in a larger tensor, in groups
        st.integers(0, 2**32 - 1),  # its stream
    ),
    min_size=1,
    max_size=12,
)
SCALE_GROUPS = st.integers(0, 8).map(lambda groups: 128 * groups)
KEY = (7, 3, 2**40 + 5)


def at_offset(values: Tensor, offset: int, device: str) -> Tensor:
    """Return the values on a device, ``offset`` values after an allocation begins."""
    room = torch.empty(values.numel() + offset, dtype=values.dtype, device=device)
    return room[offset:].copy_(values)


def offsets(sizes: Sequence[int]) -> list[slice]:
    """Return where each of consecutive parts lies."""
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


@given(
    tensors=TENSORS,
    scale_group_size=SCALE_GROUPS,
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    stochastic=st.booleans(),
    kind=st.sampled_from(["normal", "special", "bits"]),
)
def test_many_encode_as_each(
    device, gradient, assert_same_bits, tensors, scale_group_size, wire_format, stochastic, kind
) -> None:
    values = [
        at_offset(gradient(n, dtype, kind, seed), offset, device)
        for seed, (n, dtype, offset, _, _) in enumerate(tensors)
    ]
    moments = [ops.statistics([v], scale_group_size).cpu() for v in values]
    found = ops.statistics(values, scale_group_size)
    assert_same_bits(found, torch.cat(moments), "statistics")
    for rule in ops.SCALE_RULES:
        each = [ops.scales([v], scale_group_size, rule=rule, clip_factor=2.5) for v in values]
        scales = ops.scales(values, scale_group_size, rule=rule, clip_factor=2.5)
        assert_same_bits(scales, torch.cat(each).cpu(), rule)

    streams = [stream for *_, stream in tensors]
    firsts = [128 * first for *_, first, _ in tensors]
    how = {"scale_group_size": scale_group_size, "wire_format": wire_format}
    expected = [
        ops.ternarize(
            [v], s, key=KEY, streams=[stream], first_values=[first], stochastic=stochastic, **how
        )
        for v, s, stream, first in zip(values, each, streams, firsts, strict=True)
    ]
    payload = torch.empty_like(torch.cat(expected))
    ops.ternarize(
        values,
        scales,
        payload,
        key=KEY,
        streams=streams,
        first_values=firsts,
        stochastic=stochastic,
        **how,
    )
    assert_same_bits(payload, torch.cat(expected).cpu(), "payload")


@given(
    tensors=TENSORS,
    scale_group_size=SCALE_GROUPS,
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    num_payloads=st.integers(1, 4),
    padding=st.sampled_from([0, 3, 128]),
)
def test_many_decode_as_each(
    device, assert_same_bits, tensors, scale_group_size, wire_format, num_payloads, padding
) -> None:
    outs = [
        at_offset(torch.full((n,), 77.0, dtype=dtype), offset, device)
        for n, dtype, offset, _, _ in tensors
    ]
    sizes = [ops.payload_bytes(n, wire_format) for n, *_ in tensors]
    counts = [ops.num_scale_groups(n, scale_group_size) for n, *_ in tensors]
    generator = torch.Generator().manual_seed(len(tensors))
    shape = (num_payloads, sum(sizes) + padding)
    payloads = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    scales = torch.rand(sum(counts), generator=generator)
    scales[::5] = torch.tensor([0.0, torch.inf, torch.nan, 3e38])[len(tensors) % 4]
    payloads, scales = payloads.to(device), scales.to(device)
    sums = torch.zeros(shape[1] * 5, dtype=torch.int16, device=device)
    sums = sums[: sum(ops.padded_values(n, wire_format) for n, *_ in tensors)]
    if sums.numel():
        ops.unpack_sum(payloads, wire_format, sums)

    how = {"divisor": num_payloads, "scale_group_size": scale_group_size}
    how["wire_format"] = wire_format
    expected = [out.clone() for out in outs]
    for own, its, out in zip(offsets(sizes), offsets(counts), expected, strict=True):
        ops.decode_mean(payloads[:, own], scales[its], [out], **how)
    expected = [out.cpu() for out in expected]
    ops.decode_mean(payloads, scales, outs, **how)
    for out, want in zip(outs, expected, strict=True):
        assert_same_bits(out, want, "decode_mean")
        out.fill_(77.0)
    ops.dequantize(sums, scales, outs, **how)
    for out, want in zip(outs, expected, strict=True):
        assert_same_bits(out, want, "dequantize")


def results(kernels: object, device: str, gradient: Callable[..., Tensor]) -> list:
    """Return what these kernels make of 250 tensors: more than two launches hold."""
    values = [gradient(n % 700, DTYPES[n % 4], "special", n) for n in range(250)]
    there = [v.to(device) for v in values]
    sizes = [ops.payload_bytes(v.numel(), "trit5") for v in values]
    payload = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
    scales = torch.linspace(0.1, 3, 250, device=device)
    places = (list(range(250)), [128 * n for n in range(250)])
    outs = [torch.empty_like(v) for v in there]
    again = [torch.empty_like(v) for v in there]
    sums = torch.arange(5 * len(payload), device=device).remainder(7).sub(3).short()
    moments = kernels.statistics(there, 0)
    found = [kernels.scales(there, 0, rule, 2.5) for rule in range(3)]
    kernels.ternarize(there, scales, 0, 0, list(KEY), *places, True, payload)
    kernels.decode_mean(payload[None], scales, 0, 0, 1, outs)
    kernels.dequantize(sums, scales, 0, 0, 3, again)
    return [moments, *found, payload, *outs, *again]


def test_native_and_pytorch_kernels_agree(device, gradient, assert_same_bits) -> None:
    found = results(torch.ops.knet_hvd, device, gradient)
    for left, right in zip(found, results(reference, "cpu", gradient), strict=True):
        assert_same_bits(left, right)


def test_gradients_are_written_not_recorded(device) -> None:
    leaves = [torch.ones(n, device=device, requires_grad=True) for n in (3, 700)]
    scales = ops.scales(leaves)
    payload = ops.ternarize(leaves, scales, key=KEY, streams=[0, 1])
    ops.decode_mean(payload[None], scales * 2, leaves)
    for leaf in leaves:
        assert leaf.is_leaf
        assert leaf.tolist() == [2.0] * leaf.numel()
    assert scales.grad_fn is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_keeps_a_bucket(gradient) -> None:
    """Nothing copies from the host or waits, or capture would fail.

    A replay draws the captured step's random numbers again: the step is a kernel's
    parameter. A training loop cannot capture its encoding, then; a decoder it can.
    """
    values = [gradient(n, dtype, seed=n).cuda() for n in (700, 3, 5000) for dtype in DTYPES]
    outs, streams = [torch.empty_like(v) for v in values], list(range(len(values)))
    size = sum(ops.payload_bytes(v.numel(), "trit5") for v in values)
    payload = torch.empty(size, dtype=torch.uint8, device="cuda")

    def round_trip() -> None:
        scales = local_scales(values, TernaryConfig())
        ops.ternarize(values, scales, payload, key=KEY, streams=streams)
        ops.decode_mean(payload[None], scales, outs)

    round_trip()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        round_trip()
    for value in values:
        value.mul_(-3)
    graph.replay()
    replayed = [out.clone() for out in outs]
    round_trip()
    for left, right in zip(replayed, outs, strict=True):
        assert torch.equal(left, right)
    assert bool(outs[-1].any())


@pytest.mark.skipif(not ops.is_loaded, reason="counted by the native library")
@pytest.mark.parametrize("op", ["statistics", "scales", "ternarize", "decode_mean", "dequantize"])
@pytest.mark.parametrize("network", list(GRADIENT_SETS))
def test_a_network_takes_three_launches_at_most(op, network) -> None:
    sizes = [torch.Size(shape).numel() for _, shape in GRADIENT_SETS[network]()]
    assert len(sizes) == 161 or network != "resnet50"
    launches = _cuda_launches(op, sizes)
    assert 1 <= launches <= 3
    assert _cuda_launches(op, sizes * 100) > launches  # it does count
    assert _cuda_launches("ternarize", [0, 0]) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_runs_the_cuda_kernels() -> None:
    """The other tests would pass with the PyTorch kernels, too."""
    assert ops.backend("cuda") == "cuda"


def encode(values: Sequence[Tensor], scales: Tensor | None = None, **changed: object) -> Tensor:
    count = len(values)
    size = sum(ops.payload_bytes(v.numel(), "trit5") for v in values)
    how = {"streams": [0] * count, "key": KEY, **changed}
    payload = torch.empty(size, dtype=torch.uint8)
    scales = torch.ones(count) if scales is None else scales
    return ops.ternarize(values, scales, payload, **how)


def decode(outs: Sequence[Tensor], width: int = 384, **how: int) -> None:
    payloads = torch.zeros(1, width, dtype=torch.uint8)
    ops.decode_mean(payloads, torch.ones(2), outs, **how)


def dequantize(num_sums: int) -> None:
    sums = torch.zeros(num_sums, dtype=torch.int16)
    ops.dequantize(sums, torch.ones(2), two())


def two() -> list[Tensor]:
    return [torch.zeros(700), torch.zeros(3)]


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "none": (lambda: ops.statistics([]), "values: expected one tensor or more"),
    "no out": (lambda: decode([]), "outs: expected one tensor or more, got none"),
    "dtype": (
        lambda: ops.scales([torch.zeros(3), torch.zeros(3, dtype=torch.int32)]),
        r"values\[1\]: expected fp32, .* got torch.int32",
    ),
    "strides": (
        lambda: encode([torch.zeros(3), torch.zeros(4, 2).T]),
        r"values\[1\]: expected a contiguous .* strides \(1, 2\)",
    ),
    "device": (
        lambda: ops.statistics([torch.zeros(3), torch.zeros(3, device="meta")]),
        r"values\[1\]: expected a tensor on cpu, got meta",
    ),
    "scale group size": (lambda: ops.statistics(two(), 64), "multiple of 128, got 64"),
    "scales": (
        lambda: encode(two(), torch.ones(3)),
        "scales: expected 2 contiguous values of torch.float32, got 3",
    ),
    "streams": (
        lambda: encode(two(), streams=[1]),
        "streams: expected one for each of 2 tensors, got 1",
    ),
    "first values": (
        lambda: encode(two(), first_values=[0, 0, 0]),
        "first_values: expected one for each of 2 tensors, got 3",
    ),
    "stream": (lambda: encode(two(), streams=[1, 2**32]), "streams below 2.32"),
    "first value": (lambda: encode(two(), first_values=[0, 5]), "128 .* got 5"),
    "key": (
        lambda: encode(two(), key=(1, 2, 3, 4)),
        r"key: expected \(seed, rank, step\), .* got \[1, 2, 3, 4\]",
    ),
    "payload": (
        lambda: ops.ternarize(
            two(),
            torch.ones(2),
            torch.empty(256, dtype=torch.uint8),
            key=KEY,
            streams=[0, 1],
        ),
        "payload: expected 384 contiguous values of torch.uint8, got 256",
    ),
    "row": (lambda: decode(two(), 383), "rows of at least 384 contiguous bytes"),
    "divisor": (lambda: decode(two(), divisor=0), "divisor: expected 1 to"),
    "sums": (
        lambda: dequantize(703),
        "sums, in blocks of 640: expected 1283 contiguous values of .*, got 703",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_arguments(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_wrong_call_writes_nothing() -> None:
    outs = [torch.full((700,), 5.0), torch.zeros(3, dtype=torch.int16)]
    with pytest.raises(ValueError, match="int16"):
        decode(outs)
    assert outs[0].tolist() == [5.0] * 700
