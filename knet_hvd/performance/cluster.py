"""What the scaling predictor takes as given: links, clusters and networks, as numbers.

A *network* here is a neural network; what joins machines is a *link*.
"""

import math
from dataclasses import dataclass

BACKWARD_SHARE = 2 / 3
"""Share of a step's computation that backward takes: it does twice forward's work, the
gradients of the activations and those of the parameters."""


def _check_positive(**values: float) -> None:
    """Raise ValueError unless every value is finite and above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a finite number > 0, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Carry messages in both directions at once: the alpha-beta model.

    Attributes:
        gbit_per_s: Nominal bandwidth in each direction, 10^9 bits a second.
        efficiency: Share of it that large messages reach, above 0 to 1.
        latency_s: Seconds that a message takes beside its bytes.

    Raises:
        ValueError: If one is out of range.
    """

    gbit_per_s: float
    efficiency: float = 1.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _check_positive(gbit_per_s=self.gbit_per_s)
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency: expected > 0 to 1, got {self.efficiency}")
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ValueError(f"latency_s: expected 0 or more, got {self.latency_s}")

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second that large messages reach in each direction."""
        return self.gbit_per_s * 1e9 / 8 * self.efficiency

    def transfer_s(self, num_bytes: float, num_messages: int) -> float:
        """Return the seconds of messages sent one after the other.

        Args:
            num_bytes: Bytes of all of them together.
            num_messages: How many there are.
        """
        return num_bytes / self.bytes_per_s + num_messages * self.latency_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Join equal nodes of equal GPUs.

    Attributes:
        name: What people call it.
        gpus_per_node: GPUs of a node, all of which share its link to other nodes.
        intra_node: Link of each GPU to its neighbors in the node.
        inter_node: Link of each node to the other nodes.
        codec_values_per_s: Gradient values a second that a GPU encodes and decodes.
        overlap: Share of backward, 0 to 1, during which gradients cross at the same
            time. 0: all of the exchange comes after backward.

    Raises:
        ValueError: If a number is out of range.
    """

    name: str
    gpus_per_node: int
    intra_node: Link
    inter_node: Link
    codec_values_per_s: float
    overlap: float = 0.0

    def __post_init__(self) -> None:
        _check_positive(codec_values_per_s=self.codec_values_per_s)
        if self.gpus_per_node < 1:
            raise ValueError(f"gpus_per_node: expected at least 1, got {self.gpus_per_node}")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap: expected 0 to 1, got {self.overlap}")

    def num_nodes(self, num_gpus: int) -> int:
        """Return the nodes that ``num_gpus`` fill.

        Raises:
            ValueError: If they are neither part of one node nor fill whole nodes.
        """
        if 1 <= num_gpus <= self.gpus_per_node:
            return 1
        if num_gpus < 1 or num_gpus % self.gpus_per_node:
            raise ValueError(
                f"num_gpus: expected 1 to {self.gpus_per_node} or a multiple of "
                f"{self.gpus_per_node}, got {num_gpus}"
            )
        return num_gpus // self.gpus_per_node

    def gpu_counts(self, max_gpus: int) -> list[int]:
        """Return powers of 2 within a node, then whole nodes in powers of 2.

        Args:
            max_gpus: The largest count that may be returned.

        Raises:
            ValueError: If ``max_gpus`` is below 1.
        """
        if max_gpus < 1:
            raise ValueError(f"max_gpus: expected at least 1, got {max_gpus}")
        part = [2**i for i in range(self.gpus_per_node.bit_length())]
        nodes = [self.gpus_per_node * 2**i for i in range(max_gpus.bit_length())]
        return sorted({count for count in part + nodes if count <= max_gpus})


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Describe a neural network as a load: its gradient, and its speed on one GPU.

    Attributes:
        name: What people call it.
        num_parameters: Values of its gradient.
        batch_per_gpu: Images a GPU a step, the same at any number of GPUs.
        images_per_s_per_gpu: Images a second of one GPU alone, without an exchange.

    Raises:
        ValueError: If a number is out of range.
    """

    name: str
    num_parameters: float
    batch_per_gpu: int
    images_per_s_per_gpu: float

    def __post_init__(self) -> None:
        _check_positive(
            num_parameters=self.num_parameters,
            batch_per_gpu=self.batch_per_gpu,
            images_per_s_per_gpu=self.images_per_s_per_gpu,
        )

    @property
    def compute_s(self) -> float:
        """Seconds that a GPU computes for a step."""
        return self.batch_per_gpu / self.images_per_s_per_gpu
