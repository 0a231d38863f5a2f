"""Formulas of what crosses the network; takes plain numbers, imports no Horovod."""

from knet_hvd.performance.advice import Advice, advise
from knet_hvd.performance.cluster import Cluster, Link, Network
from knet_hvd.performance.cost_model import (
    EXCHANGE_METHODS,
    FLOAT_METHODS,
    CostModel,
    ExchangeMethod,
    MethodCost,
)
from knet_hvd.performance.scaling import images_per_s, step_s
from knet_hvd.performance.time_curve import TimeCurve
from knet_hvd.performance.wire_bytes import (
    allgather_bytes,
    allreduce_bytes,
    alltoall_bytes,
    cheapest_exchange,
)

__all__ = [
    "EXCHANGE_METHODS",
    "FLOAT_METHODS",
    "Advice",
    "Cluster",
    "CostModel",
    "ExchangeMethod",
    "Link",
    "MethodCost",
    "Network",
    "TimeCurve",
    "advise",
    "allgather_bytes",
    "allreduce_bytes",
    "alltoall_bytes",
    "cheapest_exchange",
    "images_per_s",
    "step_s",
]
