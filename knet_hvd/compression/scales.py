"""Scale rules: from a gradient's statistics to the scale of its ternary codes."""

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression.config import TernaryConfig


def standard_deviation(values: Tensor, bucket_size: int = 0) -> Tensor:
    """Return the standard deviation of each bucket, in one pass over the tensor.

    Args:
        values: Contiguous gradient [any shape].
        bucket_size: Values a bucket; 0 for one bucket.

    Returns:
        fp64 [num_buckets], the population's deviation; not finite where a value is not.
    """
    moments = ops.statistics(values, bucket_size)
    counts = _bucket_counts(values.numel(), bucket_size, moments)
    mean = moments[:, 0] / counts
    return (moments[:, 1] / counts - mean * mean).clamp_min(0.0).sqrt()


def _bucket_counts(numel: int, bucket_size: int, like: Tensor) -> Tensor:
    counts = torch.full_like(like[:, 0], float(bucket_size or max(1, numel)))
    if bucket_size and numel:
        counts[-1] = numel - bucket_size * (counts.numel() - 1)
    return counts


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
    if config.scale_rule == "max":
        scales = ops.max_abs(values, config.bucket_size)
    else:
        deviation = standard_deviation(values, config.bucket_size)
        scales = (deviation * config.effective_clip_factor).to(torch.float32)
    return torch.where(torch.isfinite(scales), scales, torch.inf)
