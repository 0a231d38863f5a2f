"""One call for many tensors gives the bits of one call for each."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.codec.gradient_sets import GRADIENT_SETS
from knet_hvd import ops
from knet_hvd.compression import TernaryConfig, local_scales_many
from knet_hvd.ops import reference_many

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
BUCKETS = st.integers(0, 8).map(lambda groups: 128 * groups)
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
    scale_group_size=BUCKETS,
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
    moments = [ops.statistics(v, scale_group_size).cpu() for v in values]
    largest = [ops.max_abs(v, scale_group_size) for v in values]
    found = ops.statistics_many(values, scale_group_size)
    assert_same_bits(found, torch.cat(moments), "statistics")
    scales = ops.max_abs_many(values, scale_group_size)
    assert_same_bits(scales, torch.cat(largest).cpu(), "max_abs")

    streams = [stream for *_, stream in tensors]
    firsts = [128 * first for *_, first, _ in tensors]
    how = {"scale_group_size": scale_group_size, "wire_format": wire_format}
    expected = [
        ops.ternarize(
            v, s, key=(*KEY[:2], stream, KEY[2]), first_value=first, stochastic=stochastic, **how
        )
        for v, s, stream, first in zip(values, largest, streams, firsts, strict=True)
    ]
    payload = torch.empty_like(torch.cat(expected))
    ops.ternarize_many(
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
    scale_group_size=BUCKETS,
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
    buckets = [ops.num_scale_groups(n, scale_group_size) for n, *_ in tensors]
    generator = torch.Generator().manual_seed(len(tensors))
    shape = (num_payloads, sum(sizes) + padding)
    payloads = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    scales = torch.rand(sum(buckets), generator=generator)
    scales[::5] = torch.tensor([0.0, torch.inf, torch.nan, 3e38])[len(tensors) % 4]
    payloads, scales = payloads.to(device), scales.to(device)
    sums = torch.zeros(shape[1] * 5, dtype=torch.int16, device=device)
    sums = sums[: sum(ops.padded_values(n, wire_format) for n, *_ in tensors)]
    if sums.numel():
        ops.unpack_sum(payloads, wire_format, sums)

    how = {"divisor": num_payloads, "scale_group_size": scale_group_size}
    expected = [
        ops.decode_mean(
            payloads[:, own], scales[its], out.clone(), wire_format=wire_format, **how
        ).cpu()
        for own, its, out in zip(offsets(sizes), offsets(buckets), outs, strict=True)
    ]
    ops.decode_mean_many(payloads, scales, outs, wire_format=wire_format, **how)
    for out, want in zip(outs, expected, strict=True):
        assert_same_bits(out, want, "decode_mean")
        out.fill_(77.0)
    ops.dequantize_many(sums, scales, outs, wire_format=wire_format, **how)
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
    moments = kernels.statistics_many(there, 0)
    largest = kernels.max_abs_many(there, 0)
    kernels.ternarize_many(there, scales, 0, 0, list(KEY), *places, True, payload)
    kernels.decode_mean_many(payload[None], scales, 0, 0, 1, outs)
    kernels.dequantize_many(sums, scales, 0, 0, 3, again)
    return [moments, largest, payload, *outs, *again]


def test_native_and_pytorch_kernels_agree(device, gradient, assert_same_bits) -> None:
    found = results(torch.ops.knet_hvd, device, gradient)
    for left, right in zip(found, results(reference_many, "cpu", gradient), strict=True):
        assert_same_bits(left, right)


def test_gradients_are_written_not_recorded(device) -> None:
    leaves = [torch.ones(n, device=device, requires_grad=True) for n in (3, 700)]
    scales = ops.max_abs_many(leaves)
    payload = torch.empty(384, dtype=torch.uint8, device=device)
    ops.ternarize_many(leaves, scales, payload, key=KEY, streams=[0, 1], first_values=[0, 0])
    ops.decode_mean_many(payload[None], scales * 2, leaves)
    for leaf in leaves:
        assert leaf.is_leaf
        assert leaf.tolist() == [2.0] * leaf.numel()
    assert scales.grad_fn is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_keeps_a_bucket(gradient) -> None:
    """Nothing copies from the host or waits, or capture would fail."""
    values = [gradient(n, dtype, seed=n).cuda() for n in (700, 3, 5000) for dtype in DTYPES]
    outs, streams = [torch.empty_like(v) for v in values], list(range(len(values)))
    size = sum(ops.payload_bytes(v.numel(), "trit5") for v in values)
    payload = torch.empty(size, dtype=torch.uint8, device="cuda")

    def round_trip() -> None:
        scales = local_scales_many(values, TernaryConfig())
        ops.ternarize_many(
            values, scales, payload, key=KEY, streams=streams, first_values=[0] * len(values)
        )
        ops.decode_mean_many(payload[None], scales, outs)

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
@pytest.mark.parametrize("op", ["statistics", "max_abs", "ternarize", "decode_mean"])
@pytest.mark.parametrize("network", list(GRADIENT_SETS))
def test_a_network_takes_three_launches_at_most(op, network) -> None:
    sizes = [torch.Size(shape).numel() for _, shape in GRADIENT_SETS[network]()]
    assert len(sizes) == 161 or network != "resnet50"
    launches = ops.cuda_launches(f"{op}_many", sizes)
    assert 1 <= launches <= 3
    assert ops.cuda_launches("dequantize_many", sizes) <= 3
    assert ops.cuda_launches(f"{op}_many", sizes * 100) > launches  # it does count
    assert ops.cuda_launches("ternarize_many", [0, 0]) == 0


def test_without_the_native_library() -> None:
    """The ops work as ever, and launches that nothing counts are no number."""
    program = (
        "import torch; from knet_hvd import ops\n"
        "assert not ops.is_loaded\n"
        "assert ops.max_abs_many([torch.ones(3), torch.zeros(2)]).tolist() == [1, 0]\n"
        "ops.cuda_launches('ternarize_many', [1])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"KNET_EXT": "off", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert "RuntimeError: counting launches needs the native library" in found.stderr


def encode_many(
    values: Sequence[Tensor], scales: Tensor | None = None, **changed: object
) -> Tensor:
    count = len(values)
    size = sum(ops.payload_bytes(v.numel(), "trit5") for v in values)
    how = {"streams": [0] * count, "first_values": [0] * count, "key": KEY, **changed}
    payload = torch.empty(size, dtype=torch.uint8)
    scales = torch.ones(count) if scales is None else scales
    return ops.ternarize_many(values, scales, payload, **how)


def decode_many(outs: Sequence[Tensor], width: int = 384, **how: int) -> None:
    payloads = torch.zeros(1, width, dtype=torch.uint8)
    ops.decode_mean_many(payloads, torch.ones(2), outs, **how)


def dequantize_many(num_sums: int) -> None:
    sums = torch.zeros(num_sums, dtype=torch.int16)
    ops.dequantize_many(sums, torch.ones(2), two())


def two() -> list[Tensor]:
    return [torch.zeros(700), torch.zeros(3)]


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "none": (lambda: ops.statistics_many([]), "values: expected one tensor or more"),
    "no out": (lambda: decode_many([]), "outs: expected one tensor or more, got none"),
    "dtype": (
        lambda: ops.max_abs_many([torch.zeros(3), torch.zeros(3, dtype=torch.int32)]),
        r"values\[1\]: expected fp32, .* got torch.int32",
    ),
    "strides": (
        lambda: encode_many([torch.zeros(3), torch.zeros(4, 2).T]),
        r"values\[1\]: expected a contiguous .* strides \(1, 2\)",
    ),
    "device": (
        lambda: ops.statistics_many([torch.zeros(3), torch.zeros(3, device="meta")]),
        r"values\[1\]: expected a tensor on cpu, got meta",
    ),
    "bucket size": (lambda: ops.statistics_many(two(), 64), "multiple of 128, got 64"),
    "scales": (
        lambda: encode_many(two(), torch.ones(3)),
        "scales: expected 2 contiguous values of torch.float32, got 3",
    ),
    "streams": (
        lambda: encode_many(two(), streams=[1]),
        "streams: expected one for each of 2 tensors, got 1",
    ),
    "first values": (
        lambda: encode_many(two(), first_values=[0, 0, 0]),
        "first_values: expected one for each of 2 tensors, got 3",
    ),
    "stream": (lambda: encode_many(two(), streams=[1, 2**32]), "key: .* below 2.32"),
    "first value": (lambda: encode_many(two(), first_values=[0, 5]), "128 .* got 5"),
    "key": (
        lambda: encode_many(two(), key=(1, 2, 3, 4)),
        r"key: expected \(seed, rank, step\), got \[1, 2, 3, 4\]",
    ),
    "payload": (
        lambda: ops.ternarize_many(
            two(),
            torch.ones(2),
            torch.empty(256, dtype=torch.uint8),
            key=KEY,
            streams=[0, 1],
            first_values=[0, 0],
        ),
        "payload: expected 384 contiguous values of torch.uint8, got 256",
    ),
    "row": (lambda: decode_many(two(), 383), "rows of at least 384 contiguous bytes"),
    "divisor": (lambda: decode_many(two(), divisor=0), "divisor: expected 1 to"),
    "sums": (
        lambda: dequantize_many(703),
        "sums, in blocks of 640: expected 1920 contiguous values of .*, got 703",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_arguments(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(RuntimeError, match=message):
        call()


def test_a_wrong_call_writes_nothing() -> None:
    outs = [torch.full((700,), 5.0), torch.zeros(3, dtype=torch.int16)]
    with pytest.raises(RuntimeError, match="int16"):
        decode_many(outs)
    assert outs[0].tolist() == [5.0] * 700
