"""Images a second against the number of GPUs: a projection, nothing is measured.

After the performance model of TernGrad (section 6 of the paper), built from the
formulas of ``wire_bytes``. A step takes

    compute + max(0, intra-node + codec + inter-node - overlap * backward)

seconds. Inside a node GPUs add their gradients in floating point with a ring: fp16 for
fp16, else fp32. Between nodes each node then sends one sum, no matter how many GPUs it
has: fp32 and fp16 in a ring; ternary as codes of the node's sum, by all-gather or by
all-to-all and levels, whichever sends less. N of the levels is the number of nodes.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from knet_hvd import ops
from knet_hvd.performance.cluster import BACKWARD_SHARE, Cluster, Network
from knet_hvd.performance.exchange_formulas import ALLGATHER, ALLTOALL, FP32, cheapest
from knet_hvd.performance.wire_bytes import allreduce_bytes

Method = Literal["fp32", "fp16", "ternary"]
METHODS: tuple[Method, ...] = get_args(Method)

CODE_BITS = ops.code_bits("trit5")
"""Bits a value of the ternary codes, 1.6."""

_FLOAT_BYTES = {"fp32": 4, "fp16": 2, "ternary": 4}
"""Bytes a value inside a node, where all methods add in floating point."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Say what a node sends one after the other.

    Attributes:
        num_bytes: Bytes of all messages together.
        num_messages: How many messages there are.
    """

    num_bytes: float
    num_messages: int


def inter_node_traffic(num_values: float, num_nodes: int, method: Method) -> Traffic:
    """Return what each node sends to the others in a step.

    Args:
        num_values: Values of the gradient, exchanged as one buffer.
        num_nodes: Nodes that take part, up to 512 for ternary.
        method: How the values cross.

    Returns:
        Bytes and messages. Ternary includes the messages that share the scales (their
        bytes, a few for each tensor, are left out).

    Raises:
        ValueError: If the levels codec does not know so many nodes.
    """
    if method != "ternary":
        num_bytes = allreduce_bytes(_FLOAT_BYTES[method] * num_values, num_nodes)
        return Traffic(num_bytes, FP32.num_messages(num_nodes))
    exchange = cheapest((ALLGATHER, ALLTOALL), num_nodes, CODE_BITS)
    num_bytes = exchange.wire_bits(num_nodes, CODE_BITS) / 8 * num_values
    share_scales = math.ceil(math.log2(num_nodes))
    return Traffic(num_bytes, exchange.num_messages(num_nodes) + share_scales)


def intra_node_s(network: Network, cluster: Cluster, num_gpus: int, method: Method) -> float:
    """Return the seconds in which the GPUs of a node add their gradients."""
    gpus = min(num_gpus, cluster.gpus_per_node)
    num_bytes = allreduce_bytes(_FLOAT_BYTES[method] * network.num_parameters, gpus)
    return cluster.intra_node.transfer_s(num_bytes, 2 * (gpus - 1))


def inter_node_s(network: Network, cluster: Cluster, num_gpus: int, method: Method) -> float:
    """Return the seconds in which nodes exchange their sums, codec included.

    A GPU encodes and decodes the share of the sum that it holds after the ring.

    Raises:
        ValueError: If ``num_gpus`` does not fill whole nodes.
    """
    num_nodes = cluster.num_nodes(num_gpus)
    if num_nodes == 1:
        return 0.0
    traffic = inter_node_traffic(network.num_parameters, num_nodes, method)
    wire_s = cluster.inter_node.transfer_s(traffic.num_bytes, traffic.num_messages)
    if method != "ternary":
        return wire_s
    values = network.num_parameters / cluster.gpus_per_node
    return wire_s + values / cluster.codec_values_per_s


def step_s(network: Network, cluster: Cluster, num_gpus: int, method: Method) -> float:
    """Return the seconds of a training step.

    Args:
        network: Which network is trained.
        cluster: On what it is trained.
        num_gpus: 1 to a node's GPUs, or whole nodes.
        method: How gradients cross.

    Raises:
        ValueError: If ``num_gpus`` does not fill whole nodes.
    """
    exchange_s = inter_node_s(network, cluster, num_gpus, method)
    exchange_s += intra_node_s(network, cluster, num_gpus, method)
    hidden_s = cluster.overlap * BACKWARD_SHARE * network.compute_s
    return network.compute_s + max(0.0, exchange_s - hidden_s)


def images_per_s(network: Network, cluster: Cluster, num_gpus: int, method: Method) -> float:
    """Return the images a second of all GPUs together; see ``step_s``."""
    batch = num_gpus * network.batch_per_gpu
    return batch / step_s(network, cluster, num_gpus, method)


def wire_limit_images_per_s(
    network: Network, cluster: Cluster, num_gpus: int, method: Method
) -> float:
    """Return the images a second if nothing but the bytes between nodes took time.

    With the nominal bandwidth, perfect overlap and GPUs of infinite speed: no training
    that exchanges so many bytes is faster. Infinite on one node.
    """
    num_nodes = cluster.num_nodes(num_gpus)
    if num_nodes == 1:
        return math.inf
    traffic = inter_node_traffic(network.num_parameters, num_nodes, method)
    wire_s = 8 * traffic.num_bytes / (cluster.inter_node.gbit_per_s * 1e9)
    return num_gpus * network.batch_per_gpu / wire_s
