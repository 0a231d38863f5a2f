"""The ops on many tensors as documented functions.

One call for all gradients of a bucket: a GPU takes about a hundred tensors a launch,
and a CPU is spared a call from Python for each. The results are bit for bit those of
the functions for one tensor.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from knet_hvd.ops import checks_many
from knet_hvd.ops.functional import run_check
from knet_hvd.ops.layout import WireFormat, format_index
from knet_hvd.ops.native import is_loaded, warn_if_slow

_ops = torch.ops.knet_hvd

ManyOp = Literal[
    "statistics_many", "max_abs_many", "ternarize_many", "decode_mean_many", "dequantize_many"
]


def _detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach() if t.requires_grad else t for t in tensors]


def statistics_many(values: Sequence[Tensor], scale_group_size: int = 0) -> Tensor:
    """Sum each bucket of each tensor and its squares; see ``statistics``.

    Args:
        values: One contiguous gradient [any shape] or more, of any dtypes, on one
            device.
        scale_group_size: Values a bucket, a multiple of 128; 0 for one bucket a tensor.

    Returns:
        fp64 [buckets of all tensors, 2]: sum and sum of squares.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    run_check(checks_many.check_statistics_many, values, scale_group_size)
    warn_if_slow(values[0].device)
    result: Tensor = _ops.statistics_many(_detached(values), scale_group_size)
    return result


def max_abs_many(values: Sequence[Tensor], scale_group_size: int = 0) -> Tensor:
    """Find the largest absolute value of each bucket of each tensor; see ``max_abs``.

    Arguments and errors are those of ``statistics_many``.

    Returns:
        fp32 [buckets of all tensors].
    """
    run_check(checks_many.check_statistics_many, values, scale_group_size)
    result: Tensor = _ops.max_abs_many(_detached(values), scale_group_size)
    return result


def ternarize_many(
    values: Sequence[Tensor],
    scales: Tensor,
    payload: Tensor,
    *,
    key: tuple[int, int, int],
    streams: Sequence[int],
    first_values: Sequence[int],
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
    stochastic: bool = True,
) -> Tensor:
    """Ternarize and pack many gradients into one payload; see ``ternarize``.

    Args:
        values: One contiguous gradient [any shape] or more, of any dtypes, on one
            device.
        scales: fp32 [buckets of all tensors].
        payload: uint8 [bytes of all tensors, whole blocks each], overwritten.
        key: (seed, rank, step).
        streams: Each tensor's stream of random numbers.
        first_values: Where each of ``values`` begins in its tensor, a multiple of 128.
        scale_group_size: Values a bucket, a multiple of 128; 0 for one bucket a tensor.
        wire_format: ``"trit5"`` or ``"crumb4"``.
        stochastic: False for the nearest code.

    Returns:
        ``payload``.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    places = (list(key), list(streams), list(first_values))
    arguments = (scales, scale_group_size, format_index(wire_format), *places, stochastic)
    run_check(checks_many.check_ternarize_many, values, *arguments, payload)
    warn_if_slow(payload.device)
    _ops.ternarize_many(_detached(values), *arguments, payload)
    return payload


def decode_mean_many(
    payloads: Tensor,
    scales: Tensor,
    outs: Sequence[Tensor],
    *,
    divisor: int = 1,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
) -> None:
    """Decode N payloads of many gradients, and average or add; see ``decode_mean``.

    Args:
        payloads: uint8 [N, bytes of all tensors, whole blocks each], N at most 512.
        scales: fp32 [buckets of all tensors].
        outs: One contiguous gradient [any shape] or more, of any dtypes, on one
            device, overwritten.
        divisor: N for the mean, 1 for the sum.
        scale_group_size: Values a bucket; 0 for one bucket a tensor.
        wire_format: The payloads' format.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    index = format_index(wire_format)
    arguments = (payloads, scales, scale_group_size, index, divisor)
    run_check(checks_many.check_decode_mean_many, *arguments, outs)
    _ops.decode_mean_many(*arguments, _detached(outs))


def dequantize_many(
    sums: Tensor,
    scales: Tensor,
    outs: Sequence[Tensor],
    *,
    divisor: int = 1,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
) -> None:
    """Turn sums of codes into many gradients; see ``dequantize``.

    Args:
        sums: int16 [values of all tensors, whole blocks of ``wire_format`` each].
        scales: fp32 [buckets of all tensors].
        outs: One contiguous gradient [any shape] or more, of any dtypes, on one
            device, overwritten.
        divisor: Number of ranks for the mean, 1 for the sum.
        scale_group_size: Values a bucket; 0 for one bucket a tensor.
        wire_format: Of the payloads that were added.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    index = format_index(wire_format)
    arguments = (sums, scales, scale_group_size, index, divisor)
    run_check(checks_many.check_dequantize_many, *arguments, outs)
    _ops.dequantize_many(*arguments, _detached(outs))


def cuda_launches(op: ManyOp, num_values: Sequence[int], scale_group_size: int = 0) -> int:
    """Count the kernels that one call of an op on many tensors starts on a GPU.

    Counted by the code that starts them, without a GPU.

    Args:
        op: Name of the op.
        num_values: Sizes of the tensors, all fp32.
        scale_group_size: Values a bucket; 0 for one bucket a tensor.

    Returns:
        The number of launches.

    Raises:
        RuntimeError: If the native library was not built, or has no op of that name.
    """
    if not is_loaded:
        raise RuntimeError("counting launches needs the native library: not built here")
    return int(_ops.cuda_launches(op, list(num_values), scale_group_size))
