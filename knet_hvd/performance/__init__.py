"""Formulas of what crosses the network; takes plain numbers, imports no Horovod."""

from knet_hvd.performance.advice import Advice, advise
from knet_hvd.performance.cluster import Cluster, Link, Network
from knet_hvd.performance.cost_model import CostModel, MethodCost
from knet_hvd.performance.exchange_formulas import (
    ALLGATHER,
    ALLTOALL,
    FP16,
    FP32,
    ExchangeFormula,
    cheapest,
)
from knet_hvd.performance.scaling import images_per_s, step_s
from knet_hvd.performance.time_curve import TimeCurve
from knet_hvd.performance.wire_bytes import (
    allgather_bytes,
    allreduce_bytes,
    alltoall_bytes,
)

__all__ = [
    "ALLGATHER",
    "ALLTOALL",
    "FP16",
    "FP32",
    "Advice",
    "Cluster",
    "CostModel",
    "ExchangeFormula",
    "Link",
    "MethodCost",
    "Network",
    "TimeCurve",
    "advise",
    "allgather_bytes",
    "allreduce_bytes",
    "alltoall_bytes",
    "cheapest",
    "images_per_s",
    "step_s",
]
