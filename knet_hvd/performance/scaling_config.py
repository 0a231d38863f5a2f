"""Configuration of the scaling predictor."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from knet_hvd.compression.levels import MAX_RANKS
from knet_hvd.performance.cluster import Cluster, Link, Network
from knet_hvd.performance.scaling_curves import Curve, paper_curves

_REQUIRED = ("parameters", "images_per_s_per_gpu", "batch_per_gpu")
_OUTPUT = ("figure", "logdir", "summary", "check_paper", "max_gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingConfig:
    """Predict images/s for the TernGrad paper's networks and clusters, or for your own.

    Raises:
        ValueError: If a setting is out of range, or your own network is incomplete.
    """

    figure: Path | None = None
    """PNG file for the figure; if not given, scaling.png in logdir. Without both, only
    tables are printed."""

    logdir: Path | None = None
    """Folder for TensorBoard (figure, curves, tables); none is written without it."""

    summary: Path | None = None
    """JSON file for the curves and the comparison with the paper."""

    check_paper: bool = False
    """Print how far the predictor is from the paper's figure, not the curves."""

    max_gpus: int = 512
    """Largest number of GPUs."""

    name: str = "own network"
    """Title of your network."""

    parameters: float | None = None
    """Values of your network's gradient, for instance 25.6e6. Your own network, in
    place of the paper's, needs this and the next two; what follows them has defaults.
    """

    images_per_s_per_gpu: float | None = None
    """Images/s that you measured on one of your GPUs alone, training."""

    batch_per_gpu: int | None = None
    """Images a GPU a step: the more, the rarer is an exchange."""

    gpus_per_node: int = 4
    """GPUs of one node of yours; they share its link to the others."""

    inter_node_gbit_per_s: float = 1.0
    """What one node really sends to another, 10^9 bits/s (iperf3 tells)."""

    inter_node_latency_us: float = 50.0
    """Time of an empty message between nodes, 10^-6 s (TCP 20 to 50, InfiniBand 2)."""

    intra_node_gbit_per_s: float = 100.0
    """What a GPU really sends to its neighbor in the node, 10^9 bits/s
    (PCIe 3.0 about 100, NVLink 300 and more)."""

    intra_node_latency_us: float = 5.0
    """Time of an empty message inside a node, 10^-6 s."""

    codec_gvalues_per_s: float = 10.0
    """Gradient values that a GPU encodes and decodes, 10^9 a second."""

    overlap: float = 0.0
    """Share of backward, 0 to 1, during which gradients cross at the same time.
    0 is what fits the paper's figure; buckets that leave early come nearer to 1."""

    def __post_init__(self) -> None:
        missing = [name for name in _REQUIRED if getattr(self, name) is None]
        changed = [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in _OUTPUT and getattr(self, field.name) != field.default
        ]
        if changed and missing:
            raise ValueError(
                f"{', '.join(changed)} set for your own network: expected "
                f"{', '.join(_REQUIRED)} as well, got no {', '.join(missing)}"
            )
        if self.check_paper and not missing:
            raise ValueError("check_paper: expected the paper's networks, got your own")
        self.curves()  # checks all other numbers
        limit = MAX_RANKS * (4 if missing else self.gpus_per_node)
        if not 1 <= self.max_gpus <= limit:
            raise ValueError(f"max_gpus: expected 1 to {limit}, got {self.max_gpus}")

    def curves(self) -> list[Curve]:
        """Return what is to be predicted: the paper's six curves, or your own one."""
        if (
            self.parameters is None
            or self.images_per_s_per_gpu is None
            or self.batch_per_gpu is None
        ):
            return paper_curves(self.max_gpus)
        network = Network(
            name=self.name,
            num_parameters=self.parameters,
            batch_per_gpu=self.batch_per_gpu,
            images_per_s_per_gpu=self.images_per_s_per_gpu,
        )
        return [Curve(network, self._cluster(), self.max_gpus)]

    def _cluster(self) -> Cluster:
        """Return your own cluster."""
        return Cluster(
            name=f"{self.gpus_per_node} GPUs a node, "
            f"{self.inter_node_gbit_per_s:g} Gbit/s between nodes",
            gpus_per_node=self.gpus_per_node,
            intra_node=Link(
                gbit_per_s=self.intra_node_gbit_per_s, latency_s=self.intra_node_latency_us * 1e-6
            ),
            inter_node=Link(
                gbit_per_s=self.inter_node_gbit_per_s, latency_s=self.inter_node_latency_us * 1e-6
            ),
            codec_values_per_s=self.codec_gvalues_per_s * 1e9,
            overlap=self.overlap,
        )
