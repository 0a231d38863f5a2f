"""Scale rules: from a gradient's statistics to the scale of its ternary codes."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression.config import TernaryConfig


def standard_deviation(values: Sequence[Tensor], bucket_size: int = 0) -> Tensor:
    """Return the standard deviation of each bucket, in one pass over the tensors.

    Args:
        values: One contiguous gradient [any shape] or more.
        bucket_size: Values a bucket; 0 for one bucket a tensor.

    Returns:
        fp64 [buckets of all tensors], the population's deviation; not finite where a
        value is not.
    """
    moments = ops.statistics_many(values, bucket_size)
    numels = tuple(tensor.numel() for tensor in values)
    counts = _bucket_counts(numels, bucket_size, moments.device)
    mean = moments[:, 0] / counts
    return (moments[:, 1] / counts - mean * mean).clamp_min(0.0).sqrt()


@functools.lru_cache(maxsize=64)  # a copy to a GPU waits for it, and no graph keeps it
def _bucket_counts(
    numels: tuple[int, ...], bucket_size: int, device: torch.device
) -> Tensor:
    """Return the number of values in each bucket, 1 for an empty tensor."""
    counts: list[int] = []
    for numel in numels:
        whole, rest = divmod(numel, bucket_size) if bucket_size else (0, numel)
        counts += [bucket_size] * whole
        counts += [max(1, rest)] if rest or not whole else []
    return torch.tensor(counts, dtype=torch.float64, device=device)


def local_scales(values: Tensor, config: TernaryConfig) -> Tensor:
    """Return this rank's scale for each bucket of a gradient.

    ``"clip"`` gives c * sigma (arXiv 1705.07878, section 3.3, as the authors' code has
    it: the scale is c * sigma itself, and larger values always fire); ``"max"`` gives
    the largest absolute value (eq. 2).

    Args:
        values: Contiguous gradient [any shape].
        config: Scale rule, clip factor and bucket size.

    Returns:
        fp32 [num_buckets], not negative; +inf where a value is NaN or infinite, so that
        a maximum over ranks keeps it (NaN is lost in an MPI maximum).
    """
    return local_scales_many([values], config)


def local_scales_many(values: Sequence[Tensor], config: TernaryConfig) -> Tensor:
    """Return ``local_scales`` of each gradient, one after the other.

    Args:
        values: One contiguous gradient [any shape] or more, on one device.
        config: Scale rule, clip factor and bucket size.

    Returns:
        fp32 [buckets of all gradients].
    """
    if config.scale_rule == "max":
        scales = ops.max_abs_many(values, config.bucket_size)
    else:
        deviation = standard_deviation(values, config.bucket_size)
        scales = (deviation * config.effective_clip_factor).to(torch.float32)
    return scales.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
