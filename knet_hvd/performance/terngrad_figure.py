"""The performance figure of the TernGrad paper: its set-up and what it shows.

Wen et al., "TernGrad", NIPS 2017 (arXiv 1705.07878), section 6; the images a second
are read off the poster's chart, to about 3 % (more where bars are near 0).

**Fitted**: one number, the efficiency of cluster (b)'s InfiniBand, by least squares of
the logarithms of the three ratios at 512 GPUs that can be read there. Nothing is fitted
for cluster (a). **Calibrated**: a GTX 1080's speed, so that fp32 on 4 GPUs of one node
gives the images a second that the figure shows. **Assumed**, from data sheets and the
usual figures: all else below.
"""

import dataclasses
from dataclasses import dataclass

from knet_hvd.performance.cluster import Cluster, Link, Network
from knet_hvd.performance.scaling import Method, images_per_s, intra_node_s, wire_limit_images_per_s

TOLERANCE = 0.25
"""A predicted ratio within this share of the paper's counts as reproduced."""

TCP_GOODPUT = 0.94
"""1,448 payload bytes in a frame that takes 1,538 bytes of Ethernet."""

INFINIBAND_EFFICIENCY = 0.20
"""Fitted, see above: 20 of 100 Gbit/s, about what TCP over InfiniBand reaches."""

P100_SPEED = 10.6 / 8.87
"""Peak fp32 TFLOP/s of a P100 (NVLink) over a GTX 1080's: the figure has no readable
value of one P100 node."""

_PCIE = Link(gbit_per_s=126, efficiency=0.8, latency_s=5e-6)  # 3.0, 16 lanes
_NVLINK = Link(gbit_per_s=640, efficiency=0.8, latency_s=5e-6)  # 4 links of 20 GB/s

# Codec speed: half of the GPU's memory bandwidth, 16 bytes a value for reading the
# gradient twice, codes and levels, and writing the result.
ETHERNET_CLUSTER = Cluster(
    name="(a) GTX 1080, PCI switch, 1 Gbit/s Ethernet",
    gpus_per_node=4,
    intra_node=_PCIE,
    inter_node=Link(gbit_per_s=1, efficiency=TCP_GOODPUT, latency_s=50e-6),
    codec_values_per_s=320e9 / 2 / 16,
)
INFINIBAND_CLUSTER = Cluster(
    name="(b) P100, NVLink, 100 Gbit/s InfiniBand",
    gpus_per_node=4,
    intra_node=_NVLINK,
    inter_node=Link(gbit_per_s=100, efficiency=INFINIBAND_EFFICIENCY, latency_s=2e-6),
    codec_values_per_s=732e9 / 2 / 16,
)
CLUSTERS = (ETHERNET_CLUSTER, INFINIBAND_CLUSTER)


def _network(name: str, num_parameters: float, batch: int, node: float) -> Network:
    """Return a network that gives ``node`` images/s on a node of cluster (a), fp32."""
    cluster = ETHERNET_CLUSTER
    draft = Network(
        name=name,
        num_parameters=num_parameters,
        batch_per_gpu=batch,
        images_per_s_per_gpu=node / cluster.gpus_per_node,
    )
    exchange_s = intra_node_s(draft, cluster, cluster.gpus_per_node, "fp32")
    speed = batch / (draft.compute_s - exchange_s)
    return dataclasses.replace(draft, images_per_s_per_gpu=speed)


# GoogLeNet without auxiliary heads (13.4 million with them): the authors' own training
# code has none. Batches as in the figure's caption.
GTX_1080_NETWORKS = (
    _network("AlexNet", 61.0e6, 128, node=1500),
    _network("GoogLeNet", 7.0e6, 64, node=690),
    _network("VGG-A", 132.9e6, 32, node=310),
)


def networks_on(cluster: Cluster) -> tuple[Network, ...]:
    """Return the paper's three networks with their speed on a cluster's GPUs."""
    speed = P100_SPEED if cluster == INFINIBAND_CLUSTER else 1.0
    return tuple(
        dataclasses.replace(network, images_per_s_per_gpu=network.images_per_s_per_gpu * speed)
        for network in GTX_1080_NETWORKS
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """Hold what the figure shows at one place.

    Attributes:
        cluster: ``ETHERNET_CLUSTER`` or ``INFINIBAND_CLUSTER``.
        network: Name of the network.
        num_gpus: GPUs.
        fp32: Images a second with fp32 gradients.
        ternary: Images a second with ternary gradients.
    """

    cluster: Cluster
    network: str
    num_gpus: int
    fp32: float
    ternary: float

    @property
    def ratio(self) -> float:
        """Ternary over fp32, as the figure shows it."""
        return self.ternary / self.fp32

    def predicted(self, method: Method) -> float:
        """Return the images a second that the model predicts here."""
        return images_per_s(self._load, self.cluster, self.num_gpus, method)

    def wire_limit(self, method: Method) -> float:
        """Return the images a second that the wire alone allows here."""
        return wire_limit_images_per_s(self._load, self.cluster, self.num_gpus, method)

    @property
    def predicted_ratio(self) -> float:
        """Ternary over fp32, as the model predicts it."""
        return self.predicted("ternary") / self.predicted("fp32")

    @property
    def deviation(self) -> float:
        """Predicted ratio over the figure's, minus 1."""
        return self.predicted_ratio / self.ratio - 1

    @property
    def _load(self) -> Network:
        """The network with its speed on this cluster."""
        return next(n for n in networks_on(self.cluster) if n.name == self.network)


_ETHERNET_CELLS = (
    *(("AlexNet", 4, 1500, 1530), ("AlexNet", 8, 720, 2190)),
    *(("AlexNet", 16, 830, 3460), ("AlexNet", 512, 25_700, 99_300)),
    *(("GoogLeNet", 4, 690, 690), ("GoogLeNet", 8, 850, 1230)),
    *(("GoogLeNet", 16, 1290, 2330), ("GoogLeNet", 512, 36_500, 62_500)),
    *(("VGG-A", 4, 310, 340), ("VGG-A", 8, 40, 310)),
    *(("VGG-A", 16, 50, 410), ("VGG-A", 512, 1800, 12_500)),
)
_INFINIBAND_CELLS = (
    ("AlexNet", 512, 161_000, 211_000),
    ("GoogLeNet", 512, 94_000, 98_000),
    ("VGG-A", 512, 20_000, 44_000),
)
CELLS = (
    *(Cell(ETHERNET_CLUSTER, *cell) for cell in _ETHERNET_CELLS),
    *(Cell(INFINIBAND_CLUSTER, *cell) for cell in _INFINIBAND_CELLS),
)
"""All that can be read off the figure."""
