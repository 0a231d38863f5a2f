"""Sparse gradients, as of an embedding with ``sparse=True``: their rows cross beside the codes.

As Horovod does it: every rank gets the indices and the values of all ranks' rows, and adds
them up. Which gradients are sparse cannot be seen before they are there, and a rank whose
batch used no row of an embedding has no gradient of it at all. So ranks agree in the first
step, when all have run backward.
"""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from knet_hvd.collectives import Collectives, Handle
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.exchanges.base import Exchange, Reduction

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class SparseBucket:
    """One parameter whose gradient is sparse.

    Attributes:
        name: Of its operations.
        parameter: The parameter.
        sparse_dim: Dimensions that the indices name, the first ones; 1 for an embedding.
        averaged: The averaged gradient of this step, until the parameter gets it.
        num_bytes: Bytes of this rank's own rows in the latest step.
    """

    name: str
    parameter: NamedParameter
    sparse_dim: int
    averaged: Tensor | None = None
    num_bytes: int = 0

    @property
    def parameters(self) -> list[NamedParameter]:
        """The parameter, as other buckets have several."""
        return [self.parameter]


class SparseAgreement:
    """Agree on which parameters have sparse gradients, once, in the first step."""

    def __init__(
        self,
        collectives: Collectives,
        parameters: Sequence[NamedParameter],
        optimizer: int,
        *,
        as_dense: bool,
    ) -> None:
        """Start without knowing.

        Args:
            collectives: All ranks that exchange.
            parameters: All parameters, in an order that ranks share.
            optimizer: Number of the optimizer: operations of another one have other names.
            as_dense: Whether sparse gradients are to be exchanged as dense ones.
        """
        self._collectives = collectives
        self._parameters = parameters
        self._optimizer = optimizer
        self._as_dense = as_dense
        self._seen: dict[Tensor, int] = {}
        self._handle: Handle | None = None
        self._sparse_dims: dict[Tensor, int] | None = None if parameters else {}

    @property
    def is_reached(self) -> bool:
        """Whether the first step's gradients are known on all ranks."""
        return self._sparse_dims is not None

    @property
    def is_in_flight(self) -> bool:
        """Whether this rank has begun to agree, and does not know the result yet."""
        return self._handle is not None and not self.is_reached

    @property
    def sparse(self) -> Collection[Tensor]:
        """Parameters with sparse gradients on any rank; none before it is known."""
        return (self._sparse_dims or {}).keys()

    def may_stay_sparse(self, parameter: NamedParameter) -> bool:
        """Note a sparse gradient of this rank; return whether it can cross as one."""
        tensor = parameter.tensor
        if self._sparse_dims is None:
            self._seen[tensor] = tensor.grad.sparse_dim() if tensor.grad is not None else 0
        elif tensor not in self._sparse_dims and tensor not in self._seen:
            self._seen[tensor] = 0
            _LOGGER.warning(
                "%s: its gradient is sparse, but no rank's was in the first step; from now on it "
                "is exchanged as a dense one, and stays dense",
                parameter.name,
            )
        return not self._as_dense and (self._sparse_dims is None or tensor in self._sparse_dims)

    def advance(self, *, wait: bool) -> bool:
        """Continue to agree; return whether it is reached.

        Args:
            wait: Whether to wait for other ranks.
        """
        if self._sparse_dims is not None:
            return True
        if self._handle is None:
            own = [self._seen.get(each.tensor, 0) for each in self._parameters]
            name = f"sparse.{self._optimizer}.{self._parameters[0].name}"
            self._handle = self._collectives.maximum(torch.tensor(own, dtype=torch.int32), name)
        if not wait and not self._handle.poll():
            return False
        dims = self._handle.wait().tolist()
        self._sparse_dims = {
            each.tensor: dim for each, dim in zip(self._parameters, dims, strict=True) if dim
        }
        return True

    def buckets(self) -> list[SparseBucket]:
        """Return a bucket for each parameter whose rows cross as they are."""
        if self._as_dense or self._sparse_dims is None:
            return []
        return [
            SparseBucket(f"{self._optimizer}.{each.name}", each, self._sparse_dims[each.tensor])
            for each in self._parameters
            if each.tensor in self._sparse_dims
        ]


def reduce_sparse(exchange: Exchange, bucket: SparseBucket) -> Reduction:
    """Give all ranks the sum of all ranks' rows, divided as the exchange says."""
    collectives, parameter = exchange.collectives, bucket.parameter.tensor
    own = _own_gradient(parameter, bucket.sparse_dim)
    indices, values = own.indices().t().contiguous(), own.values().contiguous()
    bucket.num_bytes = indices.nbytes + values.nbytes
    ones = [1] * collectives.size
    count = torch.tensor([len(values)], dtype=torch.int64)
    counts = (yield collectives.all_gather(count, ones, f"counts.{bucket.name}")).tolist()
    if not any(counts):
        bucket.averaged = own
        return
    sizes = [number * bucket.sparse_dim for number in counts]
    all_indices = yield collectives.all_gather(indices.view(-1), sizes, f"indices.{bucket.name}")
    row_bytes = values.element_size() * math.prod(own.shape[bucket.sparse_dim :])
    sizes = [number * row_bytes for number in counts]
    flat = values.view(-1).view(torch.uint8)
    all_values = yield collectives.all_gather(flat, sizes, f"values.{bucket.name}")
    total = torch.sparse_coo_tensor(
        all_indices.view(-1, bucket.sparse_dim).t(),
        all_values.view(values.dtype).view(sum(counts), *values.shape[1:]),
        own.shape,
        check_invariants=True,  # indices came from other ranks
    ).coalesce()
    total.values().div_(exchange.divisor)
    bucket.averaged = total


def _own_gradient(parameter: Tensor, sparse_dim: int) -> Tensor:
    """Return this rank's gradient with each index once; without rows if there is none."""
    gradient = parameter.grad
    if gradient is None:
        gradient = torch.zeros_like(parameter, requires_grad=False).to_sparse(sparse_dim)
    elif not gradient.is_sparse:
        gradient = gradient.detach().to_sparse(sparse_dim)
    elif gradient.sparse_dim() != sparse_dim:
        gradient = gradient.detach().to_dense().to_sparse(sparse_dim)
    return gradient.detach().coalesce()
