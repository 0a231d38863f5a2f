"""The plan of buckets: everything once, nothing twice, the same for everybody."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd import ops
from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.buckets.plan import NamedParameter, TernaryBucket, plan_buckets

SIZES = st.lists(st.integers(0, 3000), max_size=20)


def named(sizes: list[int], dtype: torch.dtype = torch.float32) -> list[NamedParameter]:
    return [
        NamedParameter(f"layer{i}.weight", torch.empty(size, dtype=dtype), i)
        for i, size in enumerate(sizes)
    ]


def codec(**settings: object) -> TernaryCodec:
    return TernaryCodec(TernaryConfig(**settings), rank=0)


def names(bucket) -> list[str]:
    return [parameter.name for parameter in bucket.parameters]


def assert_disjoint(parts: list[tuple[int, int]], total: int) -> None:
    """Parts (first, count), in order, fill [0, total) without gap or overlap."""
    end = 0
    for first, count in parts:
        assert first == end
        end += count
    assert end == total


def check_slices(bucket: TernaryBucket, how: TernaryCodec) -> None:
    """Slices cover every value once, in order, and fill their payload's buffers."""
    counts = [parameter.tensor.numel() for parameter in bucket.parameters]
    assert_disjoint(bucket.scales, bucket.num_scales)
    assert [n for _, n in bucket.scales] == [how.num_scales(n) for n in counts]
    for payload in bucket.payloads:
        sizes = [how.payload_bytes(part.values[1]) for part in payload.slices]
        assert payload.num_bytes == sum(sizes)
        begin, count = payload.scales
        own = [(first - begin, n) for first, n in (p.scales for p in payload.slices)]
        assert_disjoint(own, count)
        assert payload.num_values == sum(part.values[1] for part in payload.slices)
    slices = [part for payload in bucket.payloads for part in payload.slices]
    assert [part.parameter for part in slices] == sorted(p.parameter for p in slices)
    for number, numel in enumerate(counts):
        own = [part for part in slices if part.parameter == number]
        assert_disjoint([part.values for part in own], numel)
    for part in slices:
        first, count = part.values
        size, start = how.config.scale_group_size, bucket.scales[part.parameter][0]
        assert first % ops.block_values(how.config.wire_format) == 0
        assert first % (size or 1) == 0
        assert part.scales[0] == start + (first // size if size else 0)
        assert part.scales[1] == how.num_scales(count)


@given(
    sizes=SIZES,
    max_values=st.integers(0, 6000),
    min_values=st.integers(1, 1500),
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    scale_group_size=st.sampled_from([0, 128, 640]),
    payload_values=st.sampled_from([0, 640, 2000, 10**6]),
)
def test_every_parameter_in_one_bucket_and_slices_apart(
    sizes, max_values, min_values, wire_format, scale_group_size, payload_values
) -> None:
    how = codec(min_values=min_values, wire_format=wire_format, scale_group_size=scale_group_size)
    ternary, floats = plan_buckets(named(sizes), how, max_values, payload_values=payload_values)
    found = [name for bucket in (*ternary, *floats) for name in names(bucket)]
    assert sorted(found) == sorted(parameter.name for parameter in named(sizes))
    for index, bucket in enumerate(ternary):
        assert bucket.index == index
        check_slices(bucket, how)
        unit = math.lcm(ops.block_values(wire_format), scale_group_size or 1)
        for payload in bucket.payloads:
            whole = len(payload.slices) == 1
            assert whole or payload.num_values <= max(unit, payload_values)
        counts = [parameter.tensor.numel() for parameter in bucket.parameters]
        assert min(counts) >= min_values
        assert len(counts) == 1 or sum(counts) <= max_values
    for bucket in floats:
        assert all(p.tensor.numel() < min_values for p in bucket.parameters)
        assert bucket.numel == sum(p.tensor.numel() for p in bucket.parameters)


def test_buckets_fill_from_the_last_parameter_on() -> None:
    ternary, floats = plan_buckets(named([600, 10, 700, 800]), codec(), 1500)
    assert [names(b) for b in ternary] == [["layer3.weight", "layer2.weight"], ["layer0.weight"]]
    assert [names(b) for b in floats] == [["layer1.weight"]]
    assert [p.stream for p in ternary[0].parameters] == [3, 2]


@given(sizes=SIZES, seed=st.integers(0, 9), max_values=st.integers(0, 6000))
def test_groups_stay_together(sizes, seed, max_values) -> None:
    """Whatever the size; and parameters outside of groups never join one."""
    members = [f"layer{i}.weight" for i in range(len(sizes))]
    groups = [frozenset(members[seed % 3 :: 5]), frozenset(members[seed % 3 + 1 :: 5])]
    how = codec(min_values=1)
    ternary, floats = plan_buckets(named(sizes), how, max_values, groups)
    in_floats = {name for bucket in floats for name in names(bucket)}
    for group in groups:
        holding = [b for b in ternary if group & set(names(b))]
        assert len(holding) <= 1
        for bucket in holding:
            assert set(names(bucket)) == group - in_floats
            check_slices(bucket, how)


def plan_as_text(dtype: torch.dtype = torch.float32) -> list[object]:
    sizes, groups = [700, 3, 900, 512, 511, 4000], [{"layer0.weight", "layer3.weight"}]
    ternary, floats = plan_buckets(
        named(sizes, dtype), codec(), 1500, [frozenset(g) for g in groups]
    )
    parts = [
        (b.index, b.parameters[s.parameter].name, s.values, s.scales)
        for b in ternary
        for payload in b.payloads
        for s in payload.slices
    ]
    return [parts, [(b.index, b.dtype, names(b)) for b in floats]]


def test_every_call_gives_the_same_plan() -> None:
    plan = plan_as_text()
    assert plan == plan_as_text()
    assert [part[1] for part in plan[0]] == [
        *("layer5.weight", "layer3.weight", "layer0.weight", "layer2.weight")
    ]


def test_patterns_and_dtypes_of_float_buckets() -> None:
    """One buffer for fp64, one for all others; patterns win over sizes."""
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.float32]
    parameters = [
        NamedParameter(f"{part}.{i}", torch.empty(5000, dtype=dtype), i)
        for i, dtype in enumerate(dtypes)
        for part in ("head", "body")
    ]
    how = codec(float_parameters=("head.*",))
    ternary, floats = plan_buckets(parameters, how, 10**6)
    assert sorted(n for b in ternary for n in names(b)) == [f"body.{i}" for i in range(4)]
    found = {bucket.dtype: sorted(names(bucket)) for bucket in floats}
    assert found == {torch.float32: ["head.1", "head.2", "head.3"], torch.float64: ["head.0"]}
    assert [bucket.index for bucket in floats] == [0, 1]


def test_devices_do_not_share_a_bucket() -> None:
    """``meta`` stands for any second device."""
    parameters = [
        NamedParameter(f"{kind}.{size}", torch.empty(size, device=kind), size)
        for kind in ("cpu", "meta")
        for size in (10, 600, 700)
    ]
    group = frozenset(parameter.name for parameter in parameters)
    for groups in ((), (group,)):
        ternary, floats = plan_buckets(parameters, codec(), 10**6, groups)
        devices = [b.parameters[0].tensor.device.type for b in ternary]
        assert devices == ["meta", "cpu"]
        assert [len(b.parameters) for b in (*ternary, *floats)] == [2, 2, 1, 1]


def test_no_parameters() -> None:
    assert plan_buckets([], codec(), 100) == ([], [])


@pytest.mark.parametrize("max_values", [0, 1])
def test_a_parameter_larger_than_a_bucket_has_one_of_its_own(max_values) -> None:
    ternary, _ = plan_buckets(named([600, 700]), codec(), max_values)
    assert [len(bucket.parameters) for bucket in ternary] == [1, 1]
