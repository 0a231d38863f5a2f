"""Floats as integers of the same order, for a maximum that keeps NaN.

Gloo's maximum of floats loses the NaN of all ranks but the first. Integers have no NaN.
"""

import torch
from torch import Tensor

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def to_ordered(values: Tensor) -> Tensor:
    """Return integers [n] in the order of fp32 or fp64 [n]; NaN is the largest.

    Integers are returned as they are.
    """
    integers = _INTEGERS.get(values.dtype)
    if integers is None:
        return values
    nan = torch.full((), torch.nan, dtype=values.dtype).view(integers)
    return _flip_negative(values.view(integers)).masked_fill_(values.isnan(), int(nan))


def from_ordered(integers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values [n] of that dtype which ``to_ordered`` made integers [n] of."""
    return _flip_negative(integers).view(dtype) if dtype in _INTEGERS else integers


def _flip_negative(bits: Tensor) -> Tensor:
    """Reverse the order of negative numbers: floats have a sign and a size."""
    info = torch.iinfo(bits.dtype)
    return bits ^ ((bits >> (info.bits - 1)) & info.max)
