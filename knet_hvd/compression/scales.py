"""Scale rules: from a gradient's statistics to the scale of its ternary codes."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression.config import TernaryConfig


def magnitudes(values: Sequence[Tensor], config: TernaryConfig) -> Tensor:
    """Return what the clip factor multiplies, in one pass over the tensors.

    The paper clips at 2.5 standard deviations (section 3.3). Ternary codes have no
    offset, so that rule sends almost nothing of a gradient whose mean is far from 0: of
    a constant one, nothing. The root mean square is the same for a mean of 0, and keeps
    such a gradient within the scale.

    Args:
        values: One contiguous gradient [any shape] or more, on one device.
        config: Scale rule ``"rms"`` or ``"std"``, and bucket size.

    Returns:
        fp64 [buckets of all tensors]: the root mean square or the population's standard
        deviation; not finite where a value is not.
    """
    moments = ops.statistics_many(values, config.scale_group_size)
    numels = tuple(tensor.numel() for tensor in values)
    counts = _bucket_counts(numels, config.scale_group_size, moments.device)
    mean_square = moments[:, 1] / counts
    if config.scale_rule == "rms":
        return mean_square.sqrt()
    mean = moments[:, 0] / counts
    return (mean_square - mean * mean).clamp_min(0.0).sqrt()


@functools.lru_cache(maxsize=64)  # a copy to a GPU waits for it, and no graph keeps it
def _bucket_counts(numels: tuple[int, ...], scale_group_size: int, device: torch.device) -> Tensor:
    """Return the number of values in each bucket, 1 for an empty tensor."""
    counts: list[int] = []
    for numel in numels:
        whole, rest = divmod(numel, scale_group_size) if scale_group_size else (0, numel)
        counts += [scale_group_size] * whole
        counts += [max(1, rest)] if rest or not whole else []
    return torch.tensor(counts, dtype=torch.float64, device=device)


def local_scales(values: Tensor, config: TernaryConfig) -> Tensor:
    """Return this rank's scale for each bucket of a gradient.

    ``"std"`` gives c * sigma (arXiv 1705.07878, section 3.3, as the authors' code has
    it: sigma is taken around the mean, the scale is c * sigma itself, and larger values
    always fire); ``"rms"`` takes sigma around 0; ``"max"`` gives the largest absolute
    value (eq. 2).

    Args:
        values: Contiguous gradient [any shape].
        config: Scale rule, clip factor and bucket size.

    Returns:
        fp32 [num_scale_groups], not negative; +inf where a value is NaN or infinite, so that
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
        scales = ops.max_abs_many(values, config.scale_group_size)
    else:
        sigma = magnitudes(values, config)
        scales = (sigma * config.effective_clip_factor).to(torch.float32)
    return scales.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
