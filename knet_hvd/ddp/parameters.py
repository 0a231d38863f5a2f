"""The parameters of a model under DistributedDataParallel, found by identity.

Buckets are no key: the first step has a single one with all parameters, later steps have
others, and a restart may have others again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from knet_hvd.data_parallel.arguments import check_floating_point, named_pairs
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.errors import KnetError


class GradientBucket(Protocol):
    """What is used of ``torch.distributed.GradBucket``, which not every build of torch has."""

    def index(self) -> int:
        """Return its number in the step; buckets come in rising order."""

    def is_last(self) -> bool:
        """Return whether the step has no further bucket."""

    def buffer(self) -> Tensor:
        """Return all gradients as one tensor [n]."""

    def gradients(self) -> Sequence[Tensor]:
        """Return each gradient's part of the buffer."""

    def parameters(self) -> Sequence[Tensor]:
        """Return the parameters, in the order of the gradients."""


@dataclass(frozen=True, slots=True, eq=False)
class BucketParameter(NamedParameter):
    """A parameter whose gradient lies in a bucket of DistributedDataParallel."""

    view: Tensor

    @property
    def gradient(self) -> Tensor:
        """Its part of the bucket, where values have the order of the parameter's memory."""
        return self.view


class ParameterNames:
    """Give each parameter a name and a number, the same on all ranks and in all steps."""

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]] | None) -> None:
        """Take names; with None, parameters are numbered when they are first seen."""
        pairs = None if named_parameters is None else named_pairs(named_parameters)
        self._given = pairs
        self._numbers: dict[Tensor, tuple[str, int]] = {}
        for number, (name, tensor) in enumerate(pairs or ()):
            self._numbers.setdefault(tensor, (name, number))

    def facts(self) -> dict[str, object]:
        """Return what ranks have to agree on: given names, dtypes and shapes."""
        return {
            f"parameter {name}": f"{tensor.dtype} {list(tensor.shape)}"
            for tensor, (name, _) in self._numbers.items()
        }

    def of(self, bucket: GradientBucket) -> list[BucketParameter]:
        """Return the parameters of a bucket.

        Raises:
            KnetError: If a gradient is sparse, or names were given and one has none.
            ValueError: If one is not of a floating-point dtype.
        """
        if bucket.buffer().is_sparse:
            (tensor,) = bucket.parameters()
            raise KnetError(
                f"parameter {self._find(tensor)[0]} of shape {list(tensor.shape)}: expected a "
                "dense gradient, got a sparse one, which ternary_hook does not exchange; write "
                "nn.Embedding(..., sparse=False)"
            )
        return [
            BucketParameter(*self._named(tensor), view)
            for tensor, view in zip(bucket.parameters(), bucket.gradients(), strict=True)
        ]

    def _named(self, tensor: Tensor) -> tuple[str, Tensor, int]:
        name, number = self._find(tensor)
        check_floating_point(name, tensor)
        return name, tensor, number

    def _find(self, tensor: Tensor) -> tuple[str, int]:
        found = self._numbers.get(tensor)
        if found is not None:
            return found
        if self._given is not None:
            raise KnetError(
                f"named_parameters: a parameter of shape {list(tensor.shape)} has no name; pass "
                "all of model.named_parameters()"
            )
        number = len(self._numbers)
        return self._numbers.setdefault(tensor, (f"parameter.{number}", number))
