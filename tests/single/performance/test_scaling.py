"""Properties that any prediction must have, whatever the numbers."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.compression import LevelsCodec
from knet_hvd.performance import (
    Cluster,
    Link,
    Network,
    allgather_bytes,
    allreduce_bytes,
    alltoall_bytes,
    images_per_s,
    step_s,
)
from knet_hvd.performance.cluster import BACKWARD_SHARE
from knet_hvd.performance.scaling import (
    CODE_BITS,
    METHODS,
    Method,
    inter_node_traffic,
    wire_limit_images_per_s,
)

methods = st.sampled_from(METHODS)
bandwidths = st.floats(1e-3, 1e4)
latencies = st.floats(0, 1e-2)
more = st.floats(1, 100)


@st.composite
def links(draw: st.DrawFn) -> Link:
    efficiency = draw(st.floats(0.01, 1))
    gbit_per_s, latency_s = draw(bandwidths), draw(latencies)
    return Link(gbit_per_s=gbit_per_s, efficiency=efficiency, latency_s=latency_s)


clusters = st.builds(
    Cluster,
    name=st.just("any"),
    gpus_per_node=st.integers(1, 8),
    intra_node=links(),
    inter_node=links(),
    codec_values_per_s=st.floats(1e6, 1e12),
    overlap=st.floats(0, 1),
)
networks = st.builds(
    Network,
    name=st.just("any"),
    num_parameters=st.floats(1, 1e9),
    batch_per_gpu=st.integers(1, 1024),
    images_per_s_per_gpu=st.floats(0.1, 1e5),
)
loads = st.tuples(networks, clusters, st.integers(2, 512), methods)
Load = tuple[Network, Cluster, int, Method]


def seconds(load: Load, **changes: Any) -> float:
    """Return the time of a step on whole nodes, with changes to the cluster."""
    network, cluster, num_nodes, method = load
    cluster = dataclasses.replace(cluster, **changes)
    return step_s(network, cluster, num_nodes * cluster.gpus_per_node, method)


@given(loads, more)
def test_more_bandwidth_is_never_slower(load: Load, factor: float) -> None:
    for name in ("intra_node", "inter_node"):
        link: Link = getattr(load[1], name)
        faster = dataclasses.replace(link, gbit_per_s=link.gbit_per_s * factor)
        assert seconds(load, **{name: faster}) <= seconds(load)


@given(loads, more)
def test_less_latency_more_overlap_or_a_faster_codec_are_never_slower(
    load: Load, factor: float
) -> None:
    cluster = load[1]
    link = cluster.inter_node
    link = dataclasses.replace(link, latency_s=link.latency_s / factor)
    assert seconds(load, inter_node=link) <= seconds(load)
    assert seconds(load, overlap=1.0) <= seconds(load)
    codec = cluster.codec_values_per_s * factor
    assert seconds(load, codec_values_per_s=codec) <= seconds(load)


@given(loads)
def test_throughput_is_between_nothing_and_linear(load: Load) -> None:
    network, cluster, num_nodes, method = load
    num_gpus = num_nodes * cluster.gpus_per_node
    rate = images_per_s(network, cluster, num_gpus, method)
    assert 0 < rate <= num_gpus * network.images_per_s_per_gpu * (1 + 1e-9)


@given(loads)
def test_one_gpu_only_computes(load: Load) -> None:
    network, cluster, _, method = load
    assert step_s(network, cluster, 1, method) == network.compute_s
    rate = images_per_s(network, cluster, 1, method)
    assert rate == pytest.approx(network.images_per_s_per_gpu)


@given(loads)
def test_backward_hides_at_most_its_own_time(load: Load) -> None:
    hidden = seconds(load, overlap=0.0) - seconds(load, overlap=1.0)
    assert -1e-9 <= hidden <= BACKWARD_SHARE * load[0].compute_s * (1 + 1e-9) + 1e-9


@given(networks, clusters, st.integers(2, 512))
def test_no_step_is_faster_than_its_bytes(
    network: Network, cluster: Cluster, num_nodes: int
) -> None:
    cluster = dataclasses.replace(cluster, overlap=0.0)
    num_gpus = num_nodes * cluster.gpus_per_node
    for method in METHODS:
        limit = wire_limit_images_per_s(network, cluster, num_gpus, method)
        rate = images_per_s(network, cluster, num_gpus, method)
        assert rate <= limit * (1 + 1e-9)


@pytest.mark.parametrize("num_nodes", [*range(1, 20), 128, 511, 512])
def test_traffic_is_that_of_the_wire_bytes(num_nodes: int) -> None:
    """fp32 4 and fp16 2 bytes in a ring; ternary the exchange that `auto` takes."""
    fp32, fp16, ternary = (
        inter_node_traffic(1000, num_nodes, method).num_bytes for method in METHODS
    )
    assert fp32 == allreduce_bytes(4000, num_nodes)
    assert fp16 == fp32 / 2
    level_bits = LevelsCodec(num_nodes).bits_per_value
    gathered = allgather_bytes(CODE_BITS, num_nodes)
    bits = min(gathered, alltoall_bytes(CODE_BITS + level_bits, num_nodes))
    assert 8 * ternary == pytest.approx(1000 * bits)
    assert ternary <= fp32 / 5  # at 512 nodes 6 times fewer


def test_a_step_by_hand() -> None:
    """8 GPUs on 2 nodes; every term has a size of its own."""
    network = Network(name="n", num_parameters=1e6, batch_per_gpu=10, images_per_s_per_gpu=100)
    cluster = Cluster(
        name="c",
        gpus_per_node=4,
        intra_node=Link(gbit_per_s=8, latency_s=1e-3),
        inter_node=Link(gbit_per_s=1, efficiency=0.8, latency_s=1e-2),
        codec_values_per_s=1e7,
        overlap=0.3,
    )
    intra_s = 2 * 4e6 * 3 / 4 / 1e9 + 6 * 1e-3
    ring_s = 4e6 / 1e8 + 2 * 1e-2
    codes_s = 0.2e6 / 1e8 + (1 + 1) * 1e-2 + 1e6 / 4 / 1e7
    hidden_s = 0.3 * 2 / 3 * 0.1
    for method, inter_s in (("fp32", ring_s), ("ternary", codes_s)):
        expected = 0.1 + intra_s + inter_s - hidden_s
        assert step_s(network, cluster, 8, method) == pytest.approx(expected)
    assert step_s(network, cluster, 2, "fp16") == 0.1  # hidden by backward


def test_gpus_fill_whole_nodes() -> None:
    link = Link(gbit_per_s=1)
    cluster = Cluster(
        name="c", gpus_per_node=6, intra_node=link, inter_node=link, codec_values_per_s=1
    )
    assert cluster.gpu_counts(50) == [1, 2, 4, 6, 12, 24, 48]
    assert cluster.gpu_counts(3) == [1, 2]
    assert [cluster.num_nodes(n) for n in (1, 5, 6, 12)] == [1, 1, 1, 2]
    for num_gpus in (0, 7):
        with pytest.raises(ValueError, match=f"multiple of 6, got {num_gpus}"):
            cluster.num_nodes(num_gpus)
    with pytest.raises(ValueError, match="max_gpus: expected at least 1, got 0"):
        cluster.gpu_counts(0)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_numbers_out_of_range_are_named(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"gbit_per_s: .* got {bad}"):
        Link(gbit_per_s=bad)
    with pytest.raises(ValueError, match=rf"num_parameters: .* got {bad}"):
        Network(name="", num_parameters=bad, batch_per_gpu=1, images_per_s_per_gpu=1)
    for field, value in (("efficiency", 1.1), ("latency_s", -1e-6)):
        with pytest.raises(ValueError, match=f"{field}: expected .* got {value}"):
            Link(gbit_per_s=1, **{field: value})
