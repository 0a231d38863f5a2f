"""Curves of images a second over GPUs, and the tables that people read."""

import functools
from dataclasses import dataclass

from knet_hvd.performance.cluster import Cluster, Network
from knet_hvd.performance.scaling import METHODS, Method, images_per_s
from knet_hvd.performance.terngrad_figure import CELLS, CLUSTERS, TOLERANCE, networks_on


@dataclass(frozen=True)
class Curve:
    """Predict one network on one cluster for every method.

    Attributes:
        network: Which network is trained.
        cluster: On what it is trained.
        max_gpus: The largest number of GPUs.
    """

    network: Network
    cluster: Cluster
    max_gpus: int

    @functools.cached_property
    def gpu_counts(self) -> list[int]:
        """Numbers of GPUs, rising."""
        return self.cluster.gpu_counts(self.max_gpus)

    @functools.cached_property
    def images_per_s(self) -> dict[Method, list[float]]:
        """Images a second by method, one for each of ``gpu_counts``."""
        return {
            method: [
                images_per_s(self.network, self.cluster, count, method) for count in self.gpu_counts
            ]
            for method in METHODS
        }

    @property
    def one_node(self) -> float:
        """Images a second of one full node with fp32: what more nodes have to beat."""
        count = self.cluster.gpus_per_node
        return images_per_s(self.network, self.cluster, count, "fp32")

    def gpus_to_beat_one_node(self, method: Method) -> int | None:
        """Return the fewest GPUs on several nodes that are faster than one node.

        None if there are none up to ``max_gpus``.
        """
        rates = zip(self.gpu_counts, self.images_per_s[method], strict=True)
        node = self.cluster.gpus_per_node
        return next((n for n, rate in rates if n > node and rate > self.one_node), None)

    def as_dict(self) -> dict[str, object]:
        """Return the curve for JSON."""
        beat = {method: self.gpus_to_beat_one_node(method) for method in METHODS}
        return {
            "network": self.network.name,
            "cluster": self.cluster.name,
            "num_gpus": self.gpu_counts,
            "images_per_s": self.images_per_s,
            "one_node_images_per_s": self.one_node,
            "gpus_to_beat_one_node": beat,
        }


def paper_curves(max_gpus: int = 512) -> list[Curve]:
    """Return the six curves of the TernGrad paper's figure, cluster by cluster."""
    return [
        Curve(network, cluster, max_gpus)
        for cluster in CLUSTERS
        for network in networks_on(cluster)
    ]


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in markdown whose columns line up as plain text too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    lines = [
        " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [header, rule, *rows]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def _rate(value: float) -> str:
    """Write images a second with three digits or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def curve_table(curve: Curve) -> str:
    """Return a curve's images a second as a table, and what beats one node."""
    header = ["GPUs", *METHODS, "ternary / fp32", "fp32 / one node"]
    rows = []
    for i, count in enumerate(curve.gpu_counts):
        rates = [curve.images_per_s[method][i] for method in METHODS]
        ratios = [f"{rates[-1] / rates[0]:.2f}", f"{rates[0] / curve.one_node:.2f}"]
        rows.append([str(count), *map(_rate, rates), *ratios])
    beat = ", ".join(
        f"{method} {curve.gpus_to_beat_one_node(method) or 'none'}" for method in METHODS
    )
    node = f"one node of {curve.cluster.gpus_per_node}: {_rate(curve.one_node)}"
    return (
        f"{curve.network.name}, {curve.cluster.name}; images/s, {node}\n\n"
        f"{_markdown(header, rows)}\n\n"
        f"Fewest GPUs on several nodes that beat one node: {beat}"
    )


def paper_table() -> str:
    """Return predicted and published images a second and ratios, cell by cell.

    "wire limit" is what the wire alone allows fp32 at nominal bandwidth: a published
    value above it cannot be reached with that many parameters.
    """
    header = [
        *("cluster", "network", "GPUs", "fp32: paper", "predicted", "wire limit"),
        *("ternary: paper", "predicted", "ratio: paper", "predicted", "deviation", ""),
    ]
    rows = []
    for cell in CELLS:
        miss = "" if abs(cell.deviation) <= TOLERANCE else "miss"
        limit = cell.wire_limit("fp32")
        rows.append(
            [
                *(cell.cluster.name[:3], cell.network, str(cell.num_gpus)),
                *(_rate(cell.fp32), _rate(cell.predicted("fp32"))),
                "" if limit == float("inf") else _rate(limit),
                *(_rate(cell.ternary), _rate(cell.predicted("ternary"))),
                *(f"{cell.ratio:.2f}", f"{cell.predicted_ratio:.2f}"),
                *(f"{100 * cell.deviation:+.0f} %", miss),
            ]
        )
    return _markdown(header, rows)


def paper_comparison() -> list[dict[str, object]]:
    """Return what ``paper_table`` shows, for JSON."""
    return [
        {
            "cluster": cell.cluster.name,
            "network": cell.network,
            "num_gpus": cell.num_gpus,
            "paper_fp32": cell.fp32,
            "predicted_fp32": cell.predicted("fp32"),
            "paper_ternary": cell.ternary,
            "predicted_ternary": cell.predicted("ternary"),
            "paper_ratio": cell.ratio,
            "predicted_ratio": cell.predicted_ratio,
            "deviation": cell.deviation,
            "reproduced": abs(cell.deviation) <= TOLERANCE,
        }
        for cell in CELLS
    ]
